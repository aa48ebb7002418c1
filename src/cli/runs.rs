//! `lft runs`: the list of runs.

use anyhow::Result;

use super::{Global, output};

/// List the runs, newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lft runs\n  lft runs --format json")]
pub(super) struct Arguments {
    #[command(flatten)]
    output: output::Arguments,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let format = arguments.output.check()?;
    let root = global.runs_dir();
    let answer = crate::results::list(&root)?;
    output::warn(&answer.warnings);
    if answer.frame.height() == 0 {
        global.note(&format!("no runs in the folder {}: `lft run SCRIPT` makes one", root.display()));
    }
    arguments.output.write(&answer.frame, format)
}
