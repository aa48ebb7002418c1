//! `lft runs diff`: two runs side by side.

use std::fmt::Write;

use anyhow::Result;

use super::Global;
use crate::cli::output;
use crate::console;
use crate::results::{self, Diff, Frame, RunRecord};

/// Show what two runs differ in: options, environment, code, metrics.
///
/// A run is named by its id, by the beginning of its id, or by its name, which means the newest finished run of
/// that name. Rows are matched by their texts, booleans and `k`; several rows alike are averaged.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lft runs diff ablate_steps my-pythia\n  lft runs diff A B --metric kl --metric nfe"
)]
pub(super) struct Arguments {
    /// The first run.
    a: String,
    /// The second run.
    b: String,
    /// A column of `results` to compare; may be given several times [default: kl, nmse and ppl].
    #[arg(long = "metric", value_name = "COLUMN")]
    metrics: Vec<String>,
}

pub(super) fn execute(global: &Global, arguments: &Arguments) -> Result<()> {
    let diff = results::diff(&global.runs_dir(), &arguments.a, &arguments.b, &arguments.metrics)?;
    output::warn(&diff.warnings);
    console::print(&text(&diff))
}

fn text(diff: &Diff) -> String {
    let line = |letter: char, run: &RunRecord| {
        format!("{letter}: {}  {}  {}\n", run.id, run.status.as_str(), run.start)
    };
    let mut text = line('a', &diff.a) + &line('b', &diff.b);
    section(&mut text, "Options", &diff.options, "equal");
    section(&mut text, "Environment", &diff.environment, "equal");
    section(&mut text, "Metrics", &diff.metrics, "no row that both runs measured");
    if diff.unmatched != (0, 0) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "rows without a counterpart: {} of a, {} of b",
            diff.unmatched.0, diff.unmatched.1
        );
    }
    text += "\nCode\n";
    text += if diff.code.is_empty() { "equal\n" } else { &diff.code };
    text
}

fn section(text: &mut String, title: &str, frame: &Frame, without: &str) {
    let body = if frame.height() == 0 { format!("{without}\n") } else { frame.to_text() };
    *text += &format!("\n{title}\n{body}");
}
