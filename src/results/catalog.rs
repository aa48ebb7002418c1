//! What lies in the runs folder.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::RECORD;
use super::memo::{Memo, Stamp};
use super::record::{RunRecord, Status};

/// One run folder with a readable `run.json`.
#[derive(Clone, Debug)]
pub struct Entry {
    pub folder: PathBuf,
    pub record: RunRecord,
}

/// The runs under one root, oldest first.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub root: PathBuf,
    pub entries: Vec<Entry>,
    /// What was skipped and why, one line each.
    pub warnings: Vec<String>,
}

/// A record as the memo keeps it: scripts are long, and many runs share one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Remembered {
    /// The record without its script's text.
    record: RunRecord,
    /// The index of the script's text.
    script: Option<usize>,
}

impl Catalog {
    /// Reads every `root/*/run.json`; broken ones are skipped and named in the warnings. Folders
    /// without a `run.json` are no runs. A root that does not exist has no runs.
    ///
    /// # Errors
    /// When the root cannot be listed.
    pub fn read(root: &Path) -> Result<Self> {
        let mut catalog = Self { root: root.to_owned(), entries: vec![], warnings: vec![] };
        let folders = match folders(root) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(catalog),
            folders => folders.with_context(|| format!("cannot list the runs folder {}", root.display()))?,
        };
        let mut memo = Memo::<Remembered>::open(root, "records");
        let read: Vec<_> = folders.into_par_iter().filter_map(|folder| Read::from(folder, &memo)).collect();
        for Read { folder, stamp, record, is_new } in read {
            match record {
                Ok(record) => {
                    if is_new {
                        remember(&mut memo, &folder, stamp, &record);
                    }
                    catalog.entries.push(Entry { folder, record });
                }
                Err(error) => catalog.warnings.push(format!("skipped: {error:#}")),
            }
        }
        memo.save(|key| root.join(key).join(RECORD).exists());
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

/// One `run.json`, from the memo or the file.
struct Read {
    folder: PathBuf,
    stamp: Stamp,
    record: Result<RunRecord>,
    is_new: bool,
}

impl Read {
    /// `None` when the folder holds no run.
    fn from(folder: PathBuf, memo: &Memo<Remembered>) -> Option<Self> {
        let path = folder.join(RECORD);
        let stamp = Stamp::of(&path)?;
        let known = key(&folder).and_then(|key| memo.get(key, stamp)).map(|known| {
            let script_text = known.script.and_then(|index| memo.shared(index)).map(str::to_owned);
            RunRecord { script_text, ..known.record.clone() }
        });
        let is_new = known.is_none();
        let record = known.map_or_else(|| RunRecord::load(&path), Ok);
        Some(Self { folder, stamp, record, is_new })
    }
}

fn remember(memo: &mut Memo<Remembered>, folder: &Path, stamp: Stamp, record: &RunRecord) {
    // A running record says something else as soon as its process is gone, without the file changing.
    if let Some(key) = key(folder).filter(|_| record.status != Status::Running) {
        let script = record.script_text.as_deref().map(|text| memo.share(text));
        let record = RunRecord { script_text: None, ..record.clone() };
        memo.learn(key.to_owned(), stamp, Remembered { record, script });
    }
}

/// What a memo knows a run's folder by.
pub(super) fn key(folder: &Path) -> Option<&str> {
    folder.file_name()?.to_str()
}

/// Everything that could be a run's folder; hidden ones are those of runs that are being removed.
fn folders(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut folders = vec![];
    for item in fs::read_dir(root)? {
        let item = item?;
        if !item.file_name().to_string_lossy().starts_with('.') {
            folders.push(item.path());
        }
    }
    Ok(folders)
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
