//! Asking before something is lost.

use std::io::{BufRead, IsTerminal, stdin};

use anyhow::{Result, bail};

use super::failure::UsageError;
use crate::console;

/// Whether the user agrees: `yes` has agreed already on the command line, otherwise the question is put on
/// standard error and answered on standard input.
///
/// # Errors
/// When nobody is there to answer.
pub(super) fn agrees(yes: bool, question: &str) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !stdin().is_terminal() {
        bail!(UsageError("nobody is there to answer: say --yes to go ahead without being asked"));
    }
    console::note(&format!("{question} [y/N]"));
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
