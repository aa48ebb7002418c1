//! Compacted Parquet files: each holds the rows of many runs of one table, made by `lft compact`.
//!
//! They lie in `runs/compacted/` as `<table>-<number>.parquet`, with the ids of their runs in the footer. A run's
//! rows count once, wherever they stand: those in the run's own folder come first, then those in the part with
//! the highest number. So a part may be put in place before what it replaces is removed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use polars::prelude::{ParquetReader, Schema, SchemaExt, SchemaRef, SerReader};

/// The folder of the parts, in the runs folder.
pub(super) const FOLDER: &str = "compacted";

/// The name in a part's footer under which the ids of its runs stand, as a JSON array.
pub(super) const RUNS_KEY: &str = "lft.runs";

/// One compacted file.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub path: PathBuf,
    pub number: u64,
    pub schema: SchemaRef,
    /// Ids of the runs whose rows it holds.
    pub runs: Vec<String>,
    pub rows: usize,
}

/// The parts of one table (`results.parquet`, …), highest number first. What cannot be read is named in `warnings`.
pub(super) fn list(root: &Path, file: &str, warnings: &mut Vec<String>) -> Vec<Part> {
    let folder = root.join(FOLDER);
    let mut parts = vec![];
    for (number, path) in stable_names(&folder, stem(file)) {
        match open(path.clone(), number) {
            Ok((part, _)) => parts.push(part),
            // Gone since it was listed: a newer part holds its rows, and the reader will look again.
            Err(_) if !path.exists() => {}
            Err(error) => warnings.push(format!("skipped: {} is broken: {error:#}", path.display())),
        }
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part.number));
    parts
}

/// For each run the place in `parts` of the part whose rows of it count: the first, which has the highest number.
pub(super) fn holders(parts: &[Part]) -> HashMap<&str, usize> {
    let mut holders = HashMap::new();
    for (at, part) in parts.iter().enumerate() {
        for run in &part.runs {
            holders.entry(run.as_str()).or_insert(at);
        }
    }
    holders
}

/// The path of a part.
pub(super) fn path(root: &Path, file: &str, number: u64) -> PathBuf {
    root.join(FOLDER).join(format!("{}-{number:06}.parquet", stem(file)))
}

/// The numbers and paths of the parts. A folder that changes while it is listed can show neither the old file nor
/// the new one, so it is listed until two listings are equal.
fn stable_names(folder: &Path, stem: &str) -> Vec<(u64, PathBuf)> {
    let mut last = names(folder, stem);
    loop {
        let next = names(folder, stem);
        if next == last {
            return next;
        }
        last = next;
    }
}

fn names(folder: &Path, stem: &str) -> Vec<(u64, PathBuf)> {
    let listing = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return vec![],
        listing => listing,
    };
    let number = |path: &PathBuf| -> Option<u64> {
        path.file_name()?
            .to_str()?
            .strip_prefix(stem)?
            .strip_prefix('-')?
            .strip_suffix(".parquet")?
            .parse()
            .ok()
    };
    let paths = listing.into_iter().flatten().flatten().map(|item| item.path());
    let mut names: Vec<_> = paths.filter_map(|path| Some((number(&path)?, path))).collect();
    names.sort();
    names
}

/// A part, from its footer, and the other texts that stand there by their names.
///
/// # Errors
/// When the file cannot be read, or does not say whose rows it holds.
pub(super) fn open(path: PathBuf, number: u64) -> Result<(Part, HashMap<String, String>)> {
    let mut reader = ParquetReader::new(File::open(&path)?);
    let arrow = reader.schema()?;
    let schema = Arc::new(Schema::from_arrow_schema(&arrow));
    let rows = reader.num_rows()?;
    let pairs = reader.get_metadata()?.key_value_metadata().clone().unwrap_or_default();
    let mut pairs: HashMap<String, String> =
        pairs.into_iter().filter_map(|pair| Some((pair.key, pair.value?))).collect();
    let runs = pairs.remove(RUNS_KEY);
    let runs = runs.with_context(|| format!("it does not say whose rows it holds (`{RUNS_KEY}`)"))?;
    let runs = serde_json::from_str(&runs)?;
    Ok((Part { path, number, schema, runs, rows }, pairs))
}

/// The name of a table, which is that of its files without the ending.
pub(super) fn stem(file: &str) -> &str {
    file.strip_suffix(".parquet").unwrap_or(file)
}
