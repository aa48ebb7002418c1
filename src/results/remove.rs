//! Removing runs: whole folders, and never anything outside the runs folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};

use super::catalog::{Catalog, Entry};
use super::record::Status;
use super::{FILES, RECORD, gathered};

/// A folder with this prefix is a run on its way out: no reader takes it for a run any more.
pub(super) const REMOVING: &str = ".removing-";

/// A file of [`crate::atomic`] that is older than this was left by a program that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What `lft runs gc` would remove.
#[derive(Debug)]
pub struct Garbage<'a> {
    /// The runs, each with why it is garbage.
    pub runs: Vec<(&'a Entry, &'static str)>,
    /// Files and folders that killed programs left.
    pub leftovers: Vec<PathBuf>,
}

/// Finds the runs that ended badly or hold nothing and began at least `age` ago, and what killed programs left.
///
/// # Errors
/// When a folder cannot be listed.
pub fn garbage<'a>(catalog: &'a Catalog, root: &Path, age: Duration) -> Result<Garbage<'a>> {
    let mut runs = vec![];
    let mut leftovers = abandoned(root, |name| name.starts_with(REMOVING))?;
    for entry in &catalog.entries {
        leftovers
            .extend(abandoned(&entry.folder, |name| name.starts_with(".lft-") && name.ends_with(".tmp"))?);
        let why = match entry.record.status {
            Status::Running => continue,
            Status::Failed => "failed",
            Status::Interrupted => "interrupted",
            Status::Finished if is_empty(entry)? => "empty",
            Status::Finished => continue,
        };
        if began_before(entry, age) {
            runs.push((entry, why));
        }
    }
    Ok(Garbage { runs, leftovers })
}

/// Removes runs. Each folder is first renamed, so that no reader ever sees half a run.
///
/// # Errors
/// When one of them is still running, in which case nothing is removed, or when a folder cannot be removed.
pub fn remove(entries: &[&Entry]) -> Result<()> {
    if let Some(running) = entries.iter().find(|entry| entry.record.status == Status::Running) {
        bail!("run {} is still running: stop it first; nothing was removed", running.record.id);
    }
    for entry in entries {
        let what = || format!("cannot remove the run folder {}", entry.folder.display());
        let name = entry.folder.file_name().with_context(what)?.to_string_lossy();
        let aside = entry.folder.with_file_name(format!("{REMOVING}{name}"));
        fs::rename(&entry.folder, &aside).with_context(what)?;
        delete(&aside).with_context(what)?;
    }
    // What was removed for good is in no copy either.
    let roots: BTreeSet<&Path> = entries.iter().filter_map(|entry| entry.folder.parent()).collect();
    for root in roots {
        FILES.iter().for_each(|(_, file)| gathered::clear(root, file));
    }
    Ok(())
}

/// Removes what [`garbage`] found besides runs.
///
/// # Errors
/// When one of them cannot be removed.
pub fn remove_leftovers(paths: &[PathBuf]) -> Result<()> {
    paths
        .iter()
        .try_for_each(|path| delete(path).with_context(|| format!("cannot remove {}", path.display())))
}

/// Bytes of all files in a run's folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for item in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let item = item?;
        let metadata = item.metadata()?;
        bytes += if metadata.is_dir() { size(&item.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// A link is removed as a link; what it points to stays.
fn delete(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

/// Whether a run's folder holds its record and nothing else.
fn is_empty(entry: &Entry) -> Result<bool> {
    let record = &entry.record;
    let logged = record.results_rows + record.training_rows + record.benchmarks_rows;
    let listing =
        fs::read_dir(&entry.folder).with_context(|| format!("cannot list {}", entry.folder.display()))?;
    let others = listing.filter(|item| item.as_ref().map_or(true, |item| item.file_name() != RECORD)).count();
    Ok(logged + others == 0)
}

fn began_before(entry: &Entry, age: Duration) -> bool {
    let began = DateTime::parse_from_rfc3339(&entry.record.start).map(|start| start.to_utc());
    began.is_ok_and(|began| (Utc::now() - began).to_std().is_ok_and(|passed| passed >= age))
}

fn abandoned(folder: &Path, is: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    if !folder.exists() {
        return Ok(found);
    }
    for item in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let item = item?;
        let old = || {
            let changed = item.metadata().and_then(|metadata| metadata.modified()).ok()?;
            SystemTime::now().duration_since(changed).ok()
        };
        if is(&item.file_name().to_string_lossy()) && old().is_some_and(|age| age >= ABANDONED) {
            found.push(item.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Run, RunInfo};

    fn run(root: &Path, name: &str, rows: i64) -> Run {
        let mut run = Run::create(root, RunInfo { name: name.to_owned(), ..RunInfo::default() }).unwrap();
        for k in 0..rows {
            run.log(vec![("k".to_owned(), k.into())]).unwrap();
        }
        run
    }

    fn ids(catalog: &Catalog) -> Vec<&str> {
        catalog.entries.iter().map(|entry| entry.record.name.as_str()).collect()
    }

    #[test]
    fn garbage_is_what_ended_badly_or_holds_nothing() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "good", 1).finish(Status::Finished).unwrap();
        run(root.path(), "bad", 1).fail("it diverged").unwrap();
        run(root.path(), "hollow", 0).finish(Status::Finished).unwrap();
        let mut kept = run(root.path(), "weights", 0);
        fs::write(kept.path_for("w.safetensors").unwrap(), "w").unwrap();
        kept.finish(Status::Finished).unwrap();
        let _going_on = run(root.path(), "running", 0);
        drop(run(root.path(), "left", 1));

        let catalog = Catalog::read(root.path()).unwrap();
        let found = garbage(&catalog, root.path(), Duration::ZERO).unwrap();
        let mut found: Vec<_> = found.runs.iter().map(|(e, why)| (e.record.name.as_str(), *why)).collect();
        found.sort();
        assert_eq!(found, [("bad", "failed"), ("hollow", "empty"), ("left", "interrupted")]);
        assert!(garbage(&catalog, root.path(), Duration::from_secs(60)).unwrap().runs.is_empty());
    }

    #[test]
    fn a_running_run_stops_the_removal_of_all() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "a", 1).finish(Status::Finished).unwrap();
        let _going_on = run(root.path(), "b", 1);
        let catalog = Catalog::read(root.path()).unwrap();
        let error = remove(&catalog.entries.iter().collect::<Vec<_>>()).unwrap_err().to_string();
        assert!(error.contains("still running") && error.contains("nothing was removed"), "{error}");
        assert_eq!(Catalog::read(root.path()).unwrap().entries.len(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_run_elsewhere_is_removed_as_a_link() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut far = run(elsewhere.path(), "far", 1);
        far.finish(Status::Finished).unwrap();
        std::os::unix::fs::symlink(far.folder(), root.path().join("link")).unwrap();
        let catalog = Catalog::read(root.path()).unwrap();
        assert_eq!(ids(&catalog), ["far"]);
        remove(&[&catalog.entries[0]]).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(far.folder().join(RECORD).exists());
    }

    #[test]
    fn what_killed_programs_left_is_found_once_it_is_old() {
        let root = tempfile::tempdir().unwrap();
        let mut whole = run(root.path(), "a", 1);
        whole.finish(Status::Finished).unwrap();
        let left = root.path().join(format!("{REMOVING}b"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join(RECORD), "{").unwrap();
        let temporary = whole.folder().join(".lft-abc.tmp");
        fs::write(&temporary, "").unwrap();

        let catalog = Catalog::read(root.path()).unwrap();
        assert_eq!((ids(&catalog), catalog.warnings.len()), (vec!["a"], 0));
        let leftovers = || garbage(&catalog, root.path(), Duration::ZERO).unwrap().leftovers;
        assert!(leftovers().is_empty(), "both may belong to a program at work");
        let old = SystemTime::now() - 2 * ABANDONED;
        fs::File::open(&left).unwrap().set_modified(old).unwrap();
        fs::File::open(&temporary).unwrap().set_modified(old).unwrap();
        assert_eq!(leftovers().len(), 2);
        remove_leftovers(&leftovers()).unwrap();
        assert!(leftovers().is_empty() && !left.exists());
    }
}
