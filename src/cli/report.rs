//! `lft report`: compile runs into one HTML file.

use std::path::PathBuf;

use anyhow::Result;

use super::Global;
use crate::console;

/// Compile runs into one self-contained HTML file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lft report\n  lft report --runs ablate_steps --title 'Steps' --output steps.html"
)]
pub(super) struct Arguments {
    /// Names or ids of the runs; without it every run.
    #[arg(long, value_name = "NAME_OR_ID", num_args = 1..)]
    runs: Vec<String>,
    /// The file to write.
    #[arg(long, short, value_name = "FILE", default_value = "reports/report.html")]
    output: PathBuf,
    /// Title of the page.
    #[arg(long)]
    title: Option<String>,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let Arguments { runs, output, title } = arguments;
    let summary = crate::report::compile(&global.runs_dir(), &runs, &output, title.as_deref())?;
    let kib = summary.bytes.div_ceil(1024);
    let runs = if summary.runs == 1 { "1 run".to_owned() } else { format!("{} runs", summary.runs) };
    console::print(&format!("{} ({runs}, {kib} KiB)\n", summary.path.display()))
}
