//! Standard output and standard error, whose readers may leave early (`lft … | head`).
//!
//! The macros `println!` and `eprintln!` panic then; these do not.

use std::io::{BufWriter, Error, ErrorKind, Write};

use anyhow::{Context, Result, anyhow};

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

/// Hands standard output to `fill`, which may write more than memory holds. A reader that has seen enough is no error.
///
/// # Errors
/// When the output cannot be written for another reason, or `fill` fails; once something was written, the error is
/// a plain one, by which nobody can tell that trying again might help.
pub fn stream(fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut stdout = Counted { writer: BufWriter::new(std::io::stdout().lock()), bytes: 0 };
    let written = fill(&mut stdout).and_then(|()| Ok(stdout.flush()?));
    match written {
        Err(e) if e.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => Ok(()),
        Err(e) if stdout.bytes > 0 => Err(anyhow!("the output ends early: {e:#}")),
        written => written,
    }
}

struct Counted<W> {
    writer: W,
    bytes: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

/// Writes a line to standard error: a note, a warning, an error.
pub fn note(line: &str) {
    // Where standard error cannot be written, there is nowhere left to say so.
    let _ = writeln!(std::io::stderr(), "{line}");
}
