//! Standard output and standard error, whose readers may leave early (`lft … | head`).
//!
//! The macros `println!` and `eprintln!` panic then; these do not.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes a text to standard output. A reader that has seen enough is no error.
///
/// # Errors
/// When the output cannot be written for another reason, such as a full disk.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes a line to standard error: a note, a warning, an error.
pub fn note(line: &str) {
    // Where standard error cannot be written, there is nowhere left to say so.
    let _ = writeln!(std::io::stderr(), "{line}");
}
