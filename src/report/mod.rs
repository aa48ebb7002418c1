//! One self-contained HTML page about one or many runs: a verdict in words, the table, charts, and how it was made.
//!
//! The page opens without network and without a server; everything it needs is inside the file, and a content
//! security policy forbids it to load anything. From the data up:
//!
//! | file | holds |
//! |---|---|
//! | [`input`] | what a report is made of, as plain structs |
//! | `source` | stored runs read into those structs |
//! | `ablation` | students and skip baselines found in the rows |
//! | `verdict` | the summary in words |
//! | `grid` | the table of results |
//! | `charts` | the figures, with `style` and `downsample` |
//! | `page` | all of it poured into `template.html`, with `report.css` and `report.js` |

mod ablation;
mod charts;
mod downsample;
mod grid;
pub mod input;
mod number;
mod page;
mod source;
mod style;
mod verdict;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::atomic;
use input::Report;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub path: PathBuf,
    pub bytes: u64,
    /// Number of runs in the report.
    pub runs: usize,
}

/// Writes one page about several runs in `root` to `output`, whole or not at all; its folder is made where missing.
///
/// `runs` are names (the newest finished run of that name, else the newest) or ids; without any, the report covers the
/// newest finished run of every name.
///
/// # Errors
/// When a run is unknown (the nearest known name is given), nothing is finished, a table cannot be read, or the file
/// cannot be written.
pub fn compile(root: &Path, runs: &[String], output: &Path, title: Option<&str>) -> Result<Summary> {
    write(&source::read(root, runs, title)?, output)
}

/// Writes one page about one run as it stands on disk; a run in progress should be flushed before.
///
/// # Errors
/// When there is no such run, its tables cannot be read, or the file cannot be written.
pub fn write_run(root: &Path, run_id: &str, output: &Path) -> Result<Summary> {
    write(&source::read_run(root, run_id)?, output)
}

/// Writes the page of an assembled report.
///
/// # Errors
/// When the file cannot be written.
pub fn write(report: &Report, output: &Path) -> Result<Summary> {
    let html = page::render(report)?;
    if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    atomic::write(output, |file| Ok(file.write_all(html.as_bytes())?))?;
    Ok(Summary { path: output.to_owned(), bytes: html.len() as u64, runs: report.runs.len() })
}
