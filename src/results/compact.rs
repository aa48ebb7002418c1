//! Merging many small Parquet files into few large ones.
//!
//! A part is written whole and renamed into place before anything that it replaces is removed, and readers prefer a
//! run's own file to a part and a newer part to an older one ([`super::parts`]). So a reader finds every row exactly
//! once at any moment, and a program that is killed on the way leaves at worst some space to reclaim next time.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use polars::prelude::*;

use super::catalog::{Catalog, Entry};
use super::footers::{self, Own};
use super::memo::Stamp;
use super::parts::{self, Part};
use super::record::Status;
use super::{gathered, parquet, scan};
use crate::atomic;

/// Larger files gain nothing from being merged.
const SMALL: u64 = 16 << 20;
/// A part takes in files until they have this many bytes together.
const PART: u64 = 128 << 20;
/// A part of which less than this share of runs still counts is written anew.
const LIVE: f64 = 0.75;
/// Rows of a row group, the unit that a query skips by its statistics.
const GROUP: usize = 1 << 18;

/// What was done for one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files and bytes that were merged.
    pub merged: usize,
    pub bytes_before: u64,
    /// Files and bytes that came of it.
    pub parts: usize,
    pub bytes_after: u64,
}

/// Something that a new part takes in.
struct Input {
    path: PathBuf,
    stamp: Stamp,
    schema: SchemaRef,
    /// Ids of the runs whose rows it takes.
    runs: Vec<String>,
    /// Whether other rows of the file are left behind.
    is_filtered: bool,
}

/// Merges the small files of one table (`results.parquet`, …). Runs that are still going on are left alone.
/// `progress` is told how many of how many files are done.
///
/// # Errors
/// When there are no runs, another program is at it, or a file cannot be written; no row is lost or doubled then.
pub fn compact(root: &Path, file: &'static str, progress: &mut dyn FnMut(usize, usize)) -> Result<Compacted> {
    // Nothing is made where there are no runs.
    Catalog::read_some(root)?;
    let folder = root.join(parts::FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let _lock = lock(&folder)?;
    remove_temporaries(&folder)?;

    let catalog = Catalog::read(root)?;
    let mut warnings = vec![];
    let found = footers::own(&catalog, file, &HashSet::new(), &mut warnings);
    let own: HashSet<&str> = catalog
        .entries
        .iter()
        .zip(&found)
        .filter(|(_, own)| own.is_some())
        .map(|(entry, _)| entry.record.id.as_str())
        .collect();
    let parts = parts::list(root, file, &mut warnings);
    let mut number = parts.first().map_or(0, |part| part.number);
    let mut inputs = own_files(&catalog, file, found);
    // A run whose record cannot be read now may be readable again, so that nothing can be said to be gone.
    if catalog.warnings.is_empty() {
        inputs.extend(worn_parts(&catalog, &parts, &own)?);
    }

    let batches = batches(inputs);
    let total: usize = batches.iter().map(Vec::len).sum();
    let mut done = Compacted::default();
    for batch in batches {
        number += 1;
        let path = parts::path(root, file, number);
        write_part(&path, &batch).with_context(|| format!("cannot merge into {}", path.display()))?;
        sync(&folder)?;
        for input in &batch {
            // A file that has changed since it was read keeps its place before the part.
            if Stamp::of(&input.path) == Some(input.stamp) {
                fs::remove_file(&input.path)
                    .with_context(|| format!("cannot remove {}", input.path.display()))?;
            }
        }
        done.merged += batch.len();
        done.bytes_before += batch.iter().map(|input| input.stamp.bytes).sum::<u64>();
        done.parts += 1;
        done.bytes_after += fs::metadata(&path).map_or(0, |metadata| metadata.len());
        progress(done.merged, total);
    }
    if done.merged > 0 {
        gathered::clear(root, file);
    }
    Ok(done)
}

/// Held until it is dropped, and let go by the system when the program is killed.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!("another lft compact is at work on {}", folder.display()),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Only the holder of the lock writes here, so what is unfinished was left by one that was killed.
fn remove_temporaries(folder: &Path) -> Result<()> {
    for item in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = item?.path();
        if path.extension().is_some_and(|ending| ending == "tmp") {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The small own files of runs that are over, by name and age, so that row groups hold few names.
fn own_files(catalog: &Catalog, file: &str, found: Vec<Option<Own>>) -> Vec<Input> {
    let mut chosen: Vec<(&Entry, Input)> = vec![];
    for (entry, own) in catalog.entries.iter().zip(found) {
        let path = entry.folder.join(file);
        let Some(Own { stamp, schema, .. }) = own else { continue };
        if entry.record.status != Status::Running && stamp.bytes <= SMALL {
            let runs = vec![entry.record.id.clone()];
            chosen.push((entry, Input { path, stamp, schema, runs, is_filtered: false }));
        }
    }
    chosen
        .sort_by(|(a, _), (b, _)| (&a.record.name, &a.record.start).cmp(&(&b.record.name, &b.record.start)));
    chosen.into_iter().map(|(_, input)| input).collect()
}

/// Parts that are small, or of which many rows no longer count. Those of which none counts are removed at once.
fn worn_parts(catalog: &Catalog, parts: &[Part], own: &HashSet<&str>) -> Result<Vec<Input>> {
    let known: HashSet<&str> = catalog.entries.iter().map(|entry| entry.record.id.as_str()).collect();
    let holders = parts::holders(parts);
    let mut worn = vec![];
    for (at, part) in parts.iter().enumerate() {
        let counts = |run: &&String| {
            let run = run.as_str();
            known.contains(run) && !own.contains(run) && holders.get(run) == Some(&at)
        };
        let live: Vec<String> = part.runs.iter().filter(counts).cloned().collect();
        let Some(stamp) = Stamp::of(&part.path) else { continue };
        if live.is_empty() {
            fs::remove_file(&part.path).with_context(|| format!("cannot remove {}", part.path.display()))?;
        } else if stamp.bytes <= SMALL || (live.len() as f64) < LIVE * part.runs.len() as f64 {
            let is_filtered = live.len() < part.runs.len();
            let (path, schema) = (part.path.clone(), part.schema.clone());
            worn.push(Input { path, stamp, schema, runs: live, is_filtered });
        }
    }
    Ok(worn)
}

/// Files with equal columns, up to [`PART`] bytes together. One file alone is worth writing anew only when it sheds
/// rows.
fn batches(inputs: Vec<Input>) -> Vec<Vec<Input>> {
    let mut open: Vec<(SchemaRef, u64, Vec<Input>)> = vec![];
    let mut full = vec![];
    for input in inputs {
        let same = |schema: &SchemaRef| schema.iter().eq(input.schema.iter());
        let at = open.iter().position(|(schema, ..)| same(schema)).unwrap_or_else(|| {
            open.push((input.schema.clone(), 0, vec![]));
            open.len() - 1
        });
        let (_, bytes, batch) = &mut open[at];
        *bytes += input.stamp.bytes;
        batch.push(input);
        if *bytes >= PART {
            full.push(open.swap_remove(at).2);
        }
    }
    full.extend(open.into_iter().map(|(_, _, batch)| batch));
    full.retain(|batch| batch.len() > 1 || batch.iter().any(|input| input.is_filtered));
    full
}

/// Writes one part and reads its footer back: nothing is removed for a part that does not hold every row.
fn write_part(path: &Path, batch: &[Input]) -> Result<()> {
    let runs: Vec<&String> = batch.iter().flat_map(|input| &input.runs).collect();
    let runs = serde_json::to_string(&runs)?;
    let mut rows = 0;
    atomic::write(path, |w| {
        let metadata = KeyValueMetadata::from_static(vec![(parts::RUNS_KEY.to_owned(), runs)]);
        let mut writer =
            parquet::writer(w).with_key_value_metadata(Some(metadata)).batched(&batch[0].schema)?;
        let mut group = DataFrame::empty_with_schema(&batch[0].schema);
        for input in batch {
            let frame = scan::read(&input.path, input.is_filtered.then_some(&input.runs))?;
            rows += frame.height();
            group.vstack_mut_owned(frame)?;
            while group.height() >= GROUP {
                let (mut full, rest) = group.split_at(GROUP as i64);
                writer.write_batch(full.rechunk_mut())?;
                group = rest;
            }
        }
        writer.write_batch(group.rechunk_mut())?;
        writer.finish()?;
        Ok(())
    })?;
    let written = ParquetReader::new(File::open(path)?).num_rows()?;
    ensure!(written == rows, "{written} of {rows} rows arrived");
    Ok(())
}

/// Makes a renamed file outlast a loss of power before what it replaces is removed.
fn sync(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("cannot write {}", folder.display()))?;
    }
    Ok(())
}
