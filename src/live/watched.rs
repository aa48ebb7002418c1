//! Which run is looked at, and how it stands.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::report::number::{count, duration, plural};
use crate::results::{Catalog, Entry, Prefer, RunRecord, Status, environment};

/// How a run is chosen, anew each time it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest that is running, else the newest.
    Newest,
    /// By id, else the newest of that name, else by the beginning of its id.
    Named(String),
    /// The newest that this process started.
    OwnProcess,
}

/// A place where runs are kept, and one of them.
#[derive(Debug, Clone)]
pub struct Watched {
    pub root: PathBuf,
    pub which: Which,
}

impl Watched {
    /// The run's record; `None` while it has not begun.
    ///
    /// # Errors
    /// When the runs cannot be listed, or none has the name (the nearest known one is given).
    pub fn record(&self) -> Result<Option<RunRecord>> {
        let catalog = Catalog::read(&self.root)?;
        let newest = |is: &dyn Fn(&Entry) -> bool| catalog.entries.iter().rfind(|entry| is(entry));
        let found = match &self.which {
            Which::Newest => newest(&|entry| entry.record.status == Status::Running).or(newest(&|_| true)),
            Which::OwnProcess => {
                let own = environment::process();
                newest(&|entry| entry.record.process == Some(own))
            }
            Which::Named(name) => Some(catalog.find(name, Prefer::Newest)?),
        };
        Ok(found.map(|entry| entry.record.clone()))
    }
}

/// Changes whenever there is something new to see.
pub fn version(record: &RunRecord) -> String {
    format!("{}/{}/{}/{}", record.id, record.status.as_str(), record.results_rows, record.training_rows)
}

/// How the run stands, in a line: `running for 3 min 12 s · 40 rows, 1,200 of training`.
pub fn words(record: &RunRecord) -> String {
    let time = record.seconds().map(duration);
    let status = match (record.status, time) {
        (Status::Running, Some(time)) => format!("running for {time}"),
        (status, Some(time)) => format!("{} after {time}", status.as_str()),
        (status, None) => status.as_str().to_owned(),
    };
    format!(
        "{status} · {}, {} of training",
        plural(record.results_rows, "row"),
        count(record.training_rows as i64)
    )
}

/// Waits for nothing: the record, or an error that says that no run is there.
///
/// # Errors
/// As [`Watched::record`], and when there is no run.
pub fn there(watched: &Watched) -> Result<RunRecord> {
    match watched.record()? {
        Some(record) => Ok(record),
        None => bail!("no run in {}: `lft run SCRIPT` makes one", watched.root.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::results::{Run, RunInfo};

    fn start(root: &Path, name: &str) -> Run {
        let run = Run::create(root, RunInfo { name: name.into(), ..RunInfo::default() }).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        run
    }

    #[test]
    fn the_running_one_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let watched = |which| Watched { root: root.path().to_owned(), which };
        assert!(watched(Which::Newest).record().unwrap().is_none());
        let running = start(root.path(), "<script>");
        let mut ended = start(root.path(), "ended");
        ended.finish(Status::Finished).unwrap();
        let found = |which| watched(which).record().unwrap().unwrap().id;
        assert_eq!(found(Which::Newest), running.record().id);
        assert_eq!(found(Which::OwnProcess), ended.record().id);
        assert_eq!(found(Which::Named("<script>".into())), running.record().id);
        let error = watched(Which::Named("endet".into())).record().unwrap_err().to_string();
        assert_eq!(error, "no run is called `endet` (did you mean `ended`?)");
    }

    #[test]
    fn rows_and_status_change_the_version() {
        let root = tempfile::tempdir().unwrap();
        let mut run = start(root.path(), "a");
        let first = version(run.record());
        run.log_training(vec![("loss".into(), 0.5.into())]).unwrap();
        run.flush().unwrap();
        let second = version(run.record());
        run.finish(Status::Finished).unwrap();
        let third = version(run.record());
        assert!(first != second && second != third);
        assert!(words(run.record()).ends_with("· 0 rows, 1 of training"), "{}", words(run.record()));
    }
}
