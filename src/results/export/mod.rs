//! Runs in the forms of other programs: TensorBoard event files, and the files of a W&B run.

mod event;
mod series;
mod tensorboard;
mod wandb;

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::catalog::{Catalog, Entry};
use super::frame::Frame;
use super::query::collect;
use super::union::{self, Union};

/// The forms that runs are exported in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    TensorBoard,
    Wandb,
}

/// Writes runs into `output`, which is made where it is missing: those that `wanted` names by id or name, or all.
/// Each run gets a folder named as its own. `progress` is told how many of how many runs are done. Returns the files
/// written, and what was skipped and why.
///
/// # Errors
/// When a run is unknown or a file cannot be written.
pub fn export(
    root: &Path,
    wanted: &[String],
    format: ExportFormat,
    output: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let catalog = Catalog::read_some(root)?;
    let mut warnings = catalog.warnings.clone();
    let mut entries: Vec<&Entry> = match wanted.is_empty() {
        true => catalog.entries.iter().collect(),
        false => {
            let found: Vec<_> = wanted.iter().map(|name| catalog.all_of(name)).collect::<Result<_>>()?;
            found.into_iter().flatten().collect()
        }
    };
    entries.sort_by(|a, b| a.folder.cmp(&b.folder));
    entries.dedup_by(|a, b| a.folder == b.folder);
    let mut written = vec![];
    let total = entries.len();
    for (done, entry) in entries.into_iter().enumerate() {
        progress(done, total);
        // The name of the run's folder is one harmless path component, whatever run.json says.
        let folder = output.join(entry.folder.file_name().unwrap_or_default());
        written.extend(match format {
            ExportFormat::TensorBoard => tensorboard::write(root, entry, &folder, &mut warnings)?,
            ExportFormat::Wandb => wandb::write(root, entry, &folder, &mut warnings)?,
        });
    }
    Ok((written, warnings))
}

/// The rows of one run in one of its tables.
fn rows(root: &Path, entry: &Entry, file: &'static str, warnings: &mut Vec<String>) -> Result<Frame> {
    let catalog = Catalog { root: root.to_owned(), entries: vec![entry.clone()], warnings: vec![] };
    let mut unions = [Union::open(&catalog, file, warnings)];
    let frame = union::collect(&mut unions, warnings, |unions| collect(unions[0].table()?))?;
    Ok(Frame::new(frame))
}
