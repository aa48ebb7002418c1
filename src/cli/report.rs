//! `lft report`: compile runs into one HTML file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Global;
use crate::console;
use crate::report::Request;
use crate::report::input::Section;

/// Compile runs into one self-contained HTML file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Runs of one name, script and options that differ in their seed are repetitions: all of them are \
                        shown, as means with bands.\n\nExamples:\n  lft report\n  lft report --runs ablate_steps --title 'Steps' \
                        --output steps.html\n  lft report --runs 'lr_*' --all --text notes.md"
)]
pub(super) struct Arguments {
    /// Names, patterns with *, or ids of the runs; without it the newest finished run of every name.
    #[arg(long, value_name = "NAME_OR_ID", num_args = 1..)]
    runs: Vec<String>,
    /// Every finished run of these names, not only the newest with its repetitions.
    #[arg(long)]
    all: bool,
    /// The file to write.
    #[arg(long, short, value_name = "FILE", default_value = "reports/report.html")]
    output: PathBuf,
    /// Title of the page.
    #[arg(long)]
    title: Option<String>,
    /// A file with Markdown to stand under the summary.
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// A file with a template in Jinja's language; it may extend "report.html".
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let Arguments { runs, all, output, title, text, template } = arguments;
    let request = Request {
        runs,
        all,
        title,
        sections: text.iter().map(|path| section(path)).collect::<Result<_>>()?,
        template,
    };
    let summary = crate::report::compile(&global.runs_dir(), request, &output)?;
    let kib = summary.bytes.div_ceil(1024);
    let runs = if summary.runs == 1 { "1 run".to_owned() } else { format!("{} runs", summary.runs) };
    console::print(&format!("{} ({runs}, {kib} KiB)\n", summary.path.display()))
}

fn section(path: &Path) -> Result<Section> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Section::Text(text))
}
