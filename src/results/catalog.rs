//! What lies in the runs folder.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::RECORD;
use super::record::RunRecord;

/// One run folder with a readable `run.json`.
#[derive(Clone, Debug)]
pub struct Entry {
    pub folder: PathBuf,
    pub record: RunRecord,
}

/// The runs under one root, oldest first.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub entries: Vec<Entry>,
    /// What was skipped and why, one line each.
    pub warnings: Vec<String>,
}

impl Catalog {
    /// Reads every `root/*/run.json`; broken ones are skipped and named in the warnings. Folders
    /// without a `run.json` are no runs. A root that does not exist has no runs.
    ///
    /// # Errors
    /// When the root cannot be listed.
    pub fn read(root: &Path) -> Result<Self> {
        let mut catalog = Self { entries: vec![], warnings: vec![] };
        let listing = match fs::read_dir(root) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(catalog),
            listing => listing.with_context(|| format!("cannot list the runs folder {}", root.display()))?,
        };
        for item in listing {
            let folder = item.with_context(|| format!("cannot list {}", root.display()))?.path();
            let path = folder.join(RECORD);
            if !path.exists() {
                continue;
            }
            match RunRecord::load(&path) {
                Ok(record) => catalog.entries.push(Entry { folder, record }),
                Err(error) => catalog.warnings.push(format!("skipped: {error:#}")),
            }
        }
        catalog.entries.sort_by(|a, b| order(a).cmp(&order(b)));
        catalog.warnings.sort();
        Ok(catalog)
    }

    /// As [`Catalog::read`], but an empty runs folder is an error that says how to fill it.
    ///
    /// # Errors
    /// When the root cannot be listed or holds no run at all.
    pub fn read_some(root: &Path) -> Result<Self> {
        let catalog = Self::read(root)?;
        if catalog.entries.is_empty() && catalog.warnings.is_empty() {
            bail!(
                "no runs in the folder {}: `lft run SCRIPT` makes one, --runs-dir names another folder",
                root.display()
            );
        }
        Ok(catalog)
    }
}

/// For each entry whether it is the newest of its name among them.
pub(super) fn latest(entries: &[&Entry]) -> Vec<bool> {
    let newest: HashMap<&str, usize> =
        entries.iter().enumerate().map(|(i, e)| (e.record.name.as_str(), i)).collect();
    entries.iter().enumerate().map(|(i, e)| newest[e.record.name.as_str()] == i).collect()
}

fn order(entry: &Entry) -> (&str, &str) {
    (&entry.record.start, &entry.record.id)
}
