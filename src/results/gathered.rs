//! Copies of the rows of many small files, gathered in few files that are opened in their place.
//!
//! Ten thousand files take two seconds to open, most of it spent in the system, while asking for their sizes and times
//! of change takes some hundredths. So the rows of small files are kept together, one file for each set of columns. A
//! run's rows are taken from there as long as its own file has the size and time of change that it had when it was
//! copied. This is a cache, as a memo is: losing it costs time only. Unlike `lft compact` it leaves every file in place.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use polars::prelude::*;

use super::catalog::{self, Catalog, Entry};
use super::footers::Own;
use super::memo::{Stamp, WORTHWHILE};
use super::parts::{self, Part};
use super::record::Status;
use super::{parquet, scan};
use crate::atomic;

/// The folder of the copies, in the runs folder. Hidden, so that it is no run.
const FOLDER: &str = ".lft-gathered";

/// The name in a copy's footer under which stands when the files that it was made of changed, as JSON.
const STAMPS_KEY: &str = "lft.stamps";

/// Files that are larger in either way take longer to read than to open.
const ROWS: usize = 400;
const BYTES: u64 = 64 << 10;

/// One file of copied rows.
struct Copy {
    part: Part,
    /// The files that were looked at. Those that could not be copied are not among the part's runs.
    stamps: HashMap<String, Stamp>,
}

/// For each run the copy that holds its rows, by its place in the list of copies. Files that are new are copied first
/// if that is worth while.
pub(super) fn places(
    catalog: &Catalog,
    file: &str,
    own: &[Option<Own>],
    broken: &HashSet<PathBuf>,
) -> (Vec<Part>, Vec<Option<usize>>) {
    if catalog.entries.len() < WORTHWHILE {
        return (vec![], vec![None; own.len()]);
    }
    let mut copies = list(&catalog.root, file, broken);
    if copy_new(catalog, file, own, &copies) {
        copies = list(&catalog.root, file, broken);
    }
    let mut held: HashMap<&str, (usize, Stamp)> = HashMap::new();
    for (at, copy) in copies.iter().enumerate() {
        let stamps = copy.part.runs.iter().filter_map(|run| Some((run, copy.stamps.get(run)?)));
        held.extend(stamps.map(|(run, stamp)| (run.as_str(), (at, *stamp))));
    }
    let place = |(entry, own): (&Entry, &Option<Own>)| {
        let (at, stamp) = *held.get(key(entry)?)?;
        own.as_ref().filter(|own| own.stamp == stamp).map(|_| at)
    };
    let places = catalog.entries.iter().zip(own).map(place).collect();
    (copies.into_iter().map(|copy| copy.part).collect(), places)
}

/// Removes all copies of a table.
pub(super) fn clear(root: &Path, file: &str) {
    for path in paths(root, file) {
        // What stays is a cache whose files have gone, and is passed over.
        let _ = fs::remove_file(path);
    }
}

/// Whether this is a copy, which may be thrown away.
pub(super) fn is_copy(path: &Path) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|folder| folder == FOLDER)
}

/// What a run is known by here: its id, where its folder is called so and no other run's can be.
fn key(entry: &Entry) -> Option<&str> {
    catalog::key(&entry.folder).filter(|key| *key == entry.record.id)
}

fn paths(root: &Path, file: &str) -> Vec<PathBuf> {
    let prefix = format!("{}-", parts::stem(file));
    let items = fs::read_dir(root.join(FOLDER)).into_iter().flatten().flatten();
    let ours = items.filter(|item| {
        let name = item.file_name();
        name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".parquet"))
    });
    let mut paths: Vec<PathBuf> = ours.map(|item| item.path()).collect();
    paths.sort();
    paths
}

fn list(root: &Path, file: &str, broken: &HashSet<PathBuf>) -> Vec<Copy> {
    let whole = paths(root, file).into_iter().filter(|path| !broken.contains(path));
    whole.filter_map(|path| open(path).ok()).collect()
}

fn open(path: PathBuf) -> Result<Copy> {
    let (part, mut pairs) = parts::open(path, 0)?;
    let stamps = pairs.remove(STAMPS_KEY).unwrap_or_default();
    Ok(Copy { part, stamps: serde_json::from_str(&stamps)? })
}

/// Copies the rows of small files that no copy holds yet; returns whether there is a new copy. One that cannot be
/// written is done without.
fn copy_new(catalog: &Catalog, file: &str, own: &[Option<Own>], copies: &[Copy]) -> bool {
    let looked_at = |key: &str, stamp: Stamp| copies.iter().any(|copy| copy.stamps.get(key) == Some(&stamp));
    let is_new = |(entry, own): &(&Entry, &Own)| {
        let small = own.rows <= ROWS && own.stamp.bytes <= BYTES;
        let over = entry.record.status != Status::Running && own.stamp.is_settled();
        small && over && key(entry).is_some_and(|key| !looked_at(key, own.stamp))
    };
    let there = catalog.entries.iter().zip(own).filter_map(|(entry, own)| Some((entry, own.as_ref()?)));
    let mut alike: HashMap<*const Schema, Vec<(&Entry, &Own)>> = HashMap::new();
    for file in there.filter(is_new) {
        alike.entry(Arc::as_ptr(&file.1.schema)).or_default().push(file);
    }
    alike.retain(|_, files| files.len() >= WORTHWHILE);
    let written = alike.values().filter(|files| {
        let same = |copy: &&Copy| copy.part.schema.iter().eq(files[0].1.schema.iter());
        let old = copies.iter().find(same);
        copy_files(&catalog.root, file, files, old).is_ok()
    });
    written.count() > 0
}

/// Writes one copy of the new files, with what still holds of the old copy, and removes that.
fn copy_files(root: &Path, file: &str, new: &[(&Entry, &Own)], old: Option<&Copy>) -> Result<()> {
    let schema = &new[0].1.schema;
    // One after another: Polars' own threads would take up the next file while they wait for this one, and so without end.
    let read: Vec<Option<DataFrame>> = new
        .iter()
        .map(|(entry, own)| read(&entry.folder.join(file), own).filter(|rows| is_of(rows, &entry.record.id)))
        .collect();
    let mut rows = DataFrame::empty_with_schema(schema);
    let mut runs: Vec<&str> = vec![];
    let mut stamps: HashMap<&str, Stamp> = HashMap::new();
    if let Some(old) = old {
        let fresh: HashSet<&str> = new.iter().map(|(entry, _)| entry.record.id.as_str()).collect();
        let holds = |run: &str| {
            !fresh.contains(run) && Stamp::of(&root.join(run).join(file)).as_ref() == old.stamps.get(run)
        };
        runs.extend(old.part.runs.iter().map(String::as_str).filter(|run| holds(run)));
        stamps.extend(
            old.stamps.iter().map(|(run, stamp)| (run.as_str(), *stamp)).filter(|(run, _)| holds(run)),
        );
        let kept: Vec<String> = runs.iter().map(|run| (*run).to_owned()).collect();
        rows.vstack_mut_owned(scan::read(&old.part.path, Some(&kept))?)?;
    }
    for ((entry, own), read) in new.iter().zip(read) {
        stamps.insert(&entry.record.id, own.stamp);
        if let Some(read) = read {
            runs.push(&entry.record.id);
            rows.vstack_mut_owned(read)?;
        }
    }
    let (runs, stamps) = (serde_json::to_string(&runs)?, serde_json::to_string(&stamps)?);
    // Named by what it holds, so that two programs that copy at once do not take turns under one name.
    let name = blake3::hash(format!("{runs}{stamps}{schema:?}").as_bytes()).to_hex();
    let path = root.join(FOLDER).join(format!("{}-{}.parquet", parts::stem(file), &name[..16]));
    fs::create_dir_all(root.join(FOLDER))?;
    atomic::write(&path, |w| {
        let pairs = vec![(parts::RUNS_KEY.to_owned(), runs), (STAMPS_KEY.to_owned(), stamps)];
        let metadata = KeyValueMetadata::from_static(pairs);
        parquet::writer(w).with_key_value_metadata(Some(metadata)).finish(rows.rechunk_mut())?;
        Ok(())
    })?;
    if let Some(old) = old.filter(|old| old.part.path != path) {
        fs::remove_file(&old.part.path)?;
    }
    Ok(())
}

/// The rows of a small file; `None` when it is broken or no longer what it was.
fn read(path: &Path, own: &Own) -> Option<DataFrame> {
    // Into memory: thousands of files are mapped and let go more slowly than they are read.
    let rows = ParquetReader::new(Cursor::new(fs::read(path).ok()?)).finish().ok()?;
    let same = rows.schema().iter().eq(own.schema.iter());
    (same && Stamp::of(path) == Some(own.stamp)).then_some(rows)
}

/// Whether all rows say that they are of this run, by which they are told apart in a copy.
fn is_of(rows: &DataFrame, run: &str) -> bool {
    let ids = rows.column("run_id").ok().and_then(|ids| ids.str().ok());
    ids.is_some_and(|ids| ids.iter().all(|id| id == Some(run)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{RESULTS, query};

    /// A run that was over an hour ago, with `rows` rows.
    fn run(root: &Path, at: usize) -> PathBuf {
        let rows = 2;
        let (id, folder) = (format!("run-{at}"), root.join(format!("run-{at}")));
        fs::create_dir_all(&folder).unwrap();
        let record = serde_json::json!({
            "schema": 1, "id": id, "name": "run", "status": "finished", "start": format!("2026-01-01T00:{:02}", at % 60),
        });
        fs::write(folder.join("run.json"), record.to_string()).unwrap();
        let kl: Vec<f64> = (0..rows).map(|row| (at * row) as f64).collect();
        let mut table = df!("run" => vec!["run"; rows], "run_id" => vec![id; rows], "kl" => kl).unwrap();
        let path = folder.join(RESULTS);
        parquet::write(&path, &mut table).unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
        path
    }

    fn sums(root: &Path) -> String {
        let answer = query(root, "SELECT COUNT(kl) AS n, sum(kl) AS kl FROM results").unwrap();
        assert_eq!(answer.warnings, [""; 0]);
        answer.frame.to_csv()
    }

    #[test]
    fn copies_answer_for_files_that_are_as_they_were() {
        let root = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..WORTHWHILE).map(|at| run(root.path(), at)).collect();
        let total = |values: &[usize]| {
            format!("n,kl\n{},{:?}\n", 2 * values.len(), values.iter().sum::<usize>() as f64)
        };
        let all: Vec<usize> = (0..WORTHWHILE).collect();
        assert_eq!(sums(root.path()), total(&all));
        let copy = paths(root.path(), RESULTS);
        assert_eq!(copy.len(), 1);

        // Rows come from the copy: a file of the same size and time is not opened.
        let (bytes, stamp) =
            (fs::read(&files[7]).unwrap(), fs::metadata(&files[7]).unwrap().modified().unwrap());
        let dated =
            |time| fs::File::options().write(true).open(&files[7]).unwrap().set_modified(time).unwrap();
        fs::write(&files[7], vec![0; bytes.len()]).unwrap();
        dated(stamp);
        assert_eq!(sums(root.path()), total(&all));

        // What has changed is read anew, what is gone no longer counts.
        fs::write(&files[7], bytes).unwrap();
        dated(stamp + std::time::Duration::from_secs(1));
        fs::remove_dir_all(files[9].parent().unwrap()).unwrap();
        run(root.path(), WORTHWHILE);
        let now: Vec<usize> = (0..=WORTHWHILE).filter(|at| *at != 9).collect();
        assert_eq!(sums(root.path()), total(&now));
        assert_eq!(paths(root.path(), RESULTS), copy, "little is new");

        // A broken copy is thrown away, and a new one made.
        let mut broken = fs::read(&copy[0]).unwrap();
        broken[4..200].fill(0xff);
        fs::write(&copy[0], broken).unwrap();
        assert_eq!(sums(root.path()), total(&now));
        assert!(!copy[0].exists());
        assert_eq!(sums(root.path()), total(&now));
    }
}
