//! A run in progress: its folder, and the rows that are logged to it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use chrono::Utc;

use super::parquet;
use super::record::{RunInfo, RunRecord, Status};
use super::table::Table;
use super::value::Row;
use super::{BENCHMARKS, RECORD, RESERVED, RESULTS, SWEEP, TRAINING, name};

/// Rows wait in memory at most about this long before they are written ...
const FLUSH_EVERY: Duration = Duration::from_secs(3);
/// ... or this many times the duration of the last write, so that long curves do not spend the run writing.
const FLUSH_SHARE: u32 = 20;

/// A run in progress. Rows are kept in memory and each file is rewritten whole every few seconds, so
/// an interrupted program loses little and a reader never sees half a file.
///
/// Dropping a run that was not finished marks it as interrupted, or as failed during a panic.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    record: RunRecord,
    results: Table,
    training: Table,
    benchmarks: Table,
    flushed: Instant,
    pause: Duration,
}

impl Run {
    /// Makes the folder `root/<id>/` and its `run.json`.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn create(root: &Path, info: RunInfo) -> Result<Self> {
        let start = Utc::now();
        let (id, folder) = make_folder(root, &info.name, start).with_context(|| {
            format!(
                "cannot make a run folder in {}: choose a folder that can be written with --runs-dir",
                root.display()
            )
        })?;
        let record = RunRecord::begin(id, start, info);
        record.save(&folder.join(RECORD))?;
        Ok(Self {
            folder,
            record,
            results: Table::default(),
            training: Table::default(),
            benchmarks: Table::default(),
            flushed: Instant::now(),
            pause: FLUSH_EVERY,
        })
    }

    /// Adds a row to the table `results`.
    ///
    /// # Errors
    /// When the run is finished, a column name is empty, doubled or reserved, or the row's turn to be
    /// written fails; in the last case the row is kept and written with the next flush.
    pub fn log(&mut self, row: Row) -> Result<()> {
        self.check(&row)?;
        self.results.push(row)?;
        self.flush_if_due()
    }

    /// Adds a row to the table `training`: one point of each curve.
    ///
    /// # Errors
    /// As [`Run::log`].
    pub fn log_training(&mut self, row: Row) -> Result<()> {
        self.check(&row)?;
        self.training.push(row)?;
        self.flush_if_due()
    }

    /// Adds a row to the table `benchmarks`: one timed piece of work.
    ///
    /// # Errors
    /// As [`Run::log`].
    pub fn log_benchmark(&mut self, row: Row) -> Result<()> {
        self.check(&row)?;
        self.benchmarks.push(row)?;
        self.flush_if_due()
    }

    /// Writes everything logged so far.
    ///
    /// # Errors
    /// When a file cannot be written; the older file stays, and the rows are kept for the next flush.
    pub fn flush(&mut self) -> Result<()> {
        let began = Instant::now();
        let written = self.write_new_rows();
        self.flushed = Instant::now();
        self.pause = FLUSH_EVERY.max(began.elapsed() * FLUSH_SHARE);
        written
    }

    /// Writes everything and ends the run with a status. Finishing again changes nothing.
    ///
    /// # Errors
    /// As [`Run::flush`].
    pub fn finish(&mut self, status: Status) -> Result<()> {
        self.end(status, None)
    }

    /// Ends the run as failed, keeping the reason.
    ///
    /// # Errors
    /// As [`Run::flush`].
    pub fn fail(&mut self, reason: &str) -> Result<()> {
        self.end(Status::Failed, Some(reason.to_owned()))
    }

    /// Writes everything and ends the run with a status and, where it ended badly, the reason. Ending again
    /// changes nothing.
    ///
    /// # Errors
    /// As [`Run::flush`].
    pub fn end(&mut self, status: Status, error: Option<String>) -> Result<()> {
        if self.record.status != Status::Running {
            return Ok(());
        }
        self.record.end(status, error);
        let tables = self.write_new_rows();
        // The status is worth recording even when a table could not be written.
        tables.and(self.record.save(&self.folder.join(RECORD)))
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path in the run's folder for something the script saves under `name`; the name is made
    /// harmless, so it never leads out of the folder.
    ///
    /// # Errors
    /// When the name is that of one of the run's own files.
    pub fn path_for(&self, name: &str) -> Result<PathBuf> {
        let safe = name::sanitise(name);
        ensure!(
            ![RECORD, RESULTS, TRAINING, BENCHMARKS, SWEEP].contains(&safe.as_str()),
            "`{name}` is a file that lft itself writes in a run folder: choose another name"
        );
        Ok(self.folder.join(safe))
    }

    /// What `run.json` holds.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    fn check(&self, row: &Row) -> Result<()> {
        if self.record.status != Status::Running {
            bail!(
                "run `{}` is {}: nothing more can be logged",
                self.record.name,
                self.record.status.as_str()
            );
        }
        match row.iter().find(|(name, _)| RESERVED.contains(&name.as_str())) {
            Some((name, _)) => bail!(
                "column `{name}` is set by lft itself (reserved: {}): log it under another name",
                RESERVED.join(", ")
            ),
            None => Ok(()),
        }
    }

    fn flush_if_due(&mut self) -> Result<()> {
        if self.flushed.elapsed() < self.pause { Ok(()) } else { self.flush() }
    }

    fn write_new_rows(&mut self) -> Result<()> {
        let new_results = self.results.height() > self.record.results_rows;
        let new_training = self.training.height() > self.record.training_rows;
        let new_benchmarks = self.benchmarks.height() > self.record.benchmarks_rows;
        if new_results {
            self.write_table(&self.results, RESULTS)?;
            self.record.results_rows = self.results.height();
        }
        if new_training {
            self.write_table(&self.training, TRAINING)?;
            self.record.training_rows = self.training.height();
        }
        if new_benchmarks {
            self.write_table(&self.benchmarks, BENCHMARKS)?;
            self.record.benchmarks_rows = self.benchmarks.height();
        }
        if new_results || new_training || new_benchmarks {
            self.record.save(&self.folder.join(RECORD))?;
        }
        Ok(())
    }

    fn write_table(&self, table: &Table, file: &str) -> Result<()> {
        let constants = [("run", self.record.name.as_str()), ("run_id", self.record.id.as_str())];
        parquet::write(&self.folder.join(file), &mut table.to_polars(&constants)?)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let status = if std::thread::panicking() { Status::Failed } else { Status::Interrupted };
        let reason = "the program left the run before it was finished".to_owned();
        // Nobody is left to take an error here, and the files on disk are whole in any case.
        let _ = self.end(status, Some(reason));
    }
}

fn make_folder(root: &Path, name: &str, start: chrono::DateTime<Utc>) -> io::Result<(String, PathBuf)> {
    fs::create_dir_all(root)?;
    loop {
        let id = name::run_id(name, start);
        let folder = root.join(&id);
        match fs::create_dir(&folder) {
            Ok(()) => return Ok((id, folder)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests;
