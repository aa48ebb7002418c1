//! One self-contained HTML page about one or many runs: a verdict in words, the table, charts, and how it was made.
//!
//! The page opens without network and without a server; everything it needs is inside the file, and a content
//! security policy forbids it to load anything. From the data up:
//!
//! | file | holds |
//! |---|---|
//! | [`input`] | what a report is made of, as plain structs |
//! | `source` | stored runs read into those structs |
//! | `ablation` | students and skip baselines found in the rows, with the `outcome` of each |
//! | `verdict` | the summary in words |
//! | `grid` | the table of results |
//! | `comparison` | the best of every method against each other, tested with `statistics` |
//! | [`groups`] | two groups of a script's own, tested and put into words |
//! | `differences` | the options in which several runs differ |
//! | `charts` | the figures, with `style` and `downsample` |
//! | [`plot`] | figures of a script's own |
//! | `markdown` | text of a script's own |
//! | [`page`] | all of it poured into `page/template.html`, with its style and scripts |

mod ablation;
mod charts;
mod comparison;
mod differences;
mod downsample;
mod grid;
pub mod groups;
pub mod input;
mod markdown;
pub(crate) mod number;
mod outcome;
pub mod page;
pub mod plot;
mod source;
mod statistics;
mod style;
mod verdict;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use source::from_rows;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::atomic;
use input::{Report, Section};
use plot::Plot;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub path: PathBuf,
    pub bytes: u64,
    /// Number of runs in the report.
    pub runs: usize,
}

/// What goes on a page, and how.
#[derive(Debug, Default)]
pub struct Request {
    /// Names (the newest finished run of that name, else the newest), patterns with `*`, or ids; without any, the newest
    /// finished run of every name.
    pub runs: Vec<String>,
    /// Every finished run of the names, not only the newest with its repetitions.
    pub all: bool,
    pub title: Option<String>,
    /// Text and figures of a script's own.
    pub sections: Vec<Section>,
    /// A template in place of the page's own, see [`page::render`].
    pub template: Option<PathBuf>,
}

/// Writes one page about several runs in `root` to `output`, whole or not at all; its folder is made where missing.
///
/// A run is joined by its repetitions: the newest finished run of every other seed with the same name, script and
/// options.
///
/// # Errors
/// When a run is unknown (the nearest known name is given), nothing is finished, a table cannot be read, a figure or
/// the template is wrong, or the file cannot be written.
pub fn compile(root: &Path, request: Request, output: &Path) -> Result<Summary> {
    let mut report = source::read(root, &request)?;
    report.sections = request.sections;
    write(&report, template(request.template.as_deref())?.as_deref(), output)
}

/// Writes one page about one run as it stands on disk; a run in progress should be flushed before.
///
/// # Errors
/// When there is no such run, and as [`compile`].
pub fn write_run(root: &Path, run_id: &str, request: Request, output: &Path) -> Result<Summary> {
    let mut report = source::read_run(root, run_id)?;
    report.title = request.title.unwrap_or(report.title);
    report.sections = request.sections;
    write(&report, template(request.template.as_deref())?.as_deref(), output)
}

/// Writes one figure as a page of its own.
///
/// # Errors
/// When the figure cannot be drawn, or the file cannot be written.
pub fn write_plot(plot: &Plot, output: &Path) -> Result<Summary> {
    let title = plot.chart("own-0")?.title;
    let report = Report { title, sections: vec![Section::Plot(Box::new(plot.clone()))], ..Report::default() };
    write(&report, Some(page::PLOT), output)
}

/// The report of one run as it stands on disk.
///
/// # Errors
/// When there is no such run, or its tables cannot be read.
pub fn read_run(root: &Path, run_id: &str) -> Result<Report> {
    source::read_run(root, run_id)
}

/// Writes the page of an assembled report, with a template's text in place of the page's own where given.
///
/// # Errors
/// When a figure or the template is wrong, or the file cannot be written.
pub fn write(report: &Report, template: Option<&str>, output: &Path) -> Result<Summary> {
    let html = page::render(report, template, page::Form::File)?;
    if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    atomic::write(output, |file| Ok(file.write_all(html.as_bytes())?))?;
    Ok(Summary { path: output.to_owned(), bytes: html.len() as u64, runs: report.runs.len() })
}

fn template(path: Option<&Path>) -> Result<Option<String>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read the template {}", path.display()))
    };
    path.map(read).transpose()
}
