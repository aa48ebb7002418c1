//! `run.json`: everything about a run but its tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::environment::{self, Git, Host, Process};
use crate::atomic;

/// Version of the layout of a run folder; readers refuse a newer one.
pub const SCHEMA: u32 = 1;

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Running,
    /// Reached its end.
    Finished,
    /// Ended by an error.
    Failed,
    /// Ended from outside: dropped half-way or its process was killed.
    Interrupted,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What the caller says about a run when it creates one.
#[derive(Clone, Debug, Default)]
pub struct RunInfo {
    /// Any text; queries filter by it (`run = 'ablate_steps'`), and several runs may share it.
    pub name: String,
    pub tags: Vec<String>,
    /// Path of the script as the user gave it.
    pub script: Option<String>,
    /// The script's source as it was run.
    pub script_text: Option<String>,
    /// Arguments that the script received.
    pub arguments: Vec<String>,
    /// Options as a JSON object.
    pub options: serde_json::Map<String, serde_json::Value>,
    pub seed: Option<u64>,
    /// Device in the spelling of `--device`: `cpu`, `cuda:0`, `metal`.
    pub device: String,
    /// Whether a stranger's script has the working folder in hand. Then git is not asked for the revision: what
    /// is in a work tree can make git start other programs.
    pub confined: bool,
}

/// The contents of `run.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    pub schema: u32,
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub status: Status,
    /// Why the run failed or was interrupted.
    #[serde(default)]
    pub error: Option<String>,
    /// RFC 3339, UTC.
    pub start: String,
    /// RFC 3339, UTC; absent while the run goes on.
    #[serde(default)]
    pub end: Option<String>,
    /// Rows in `results.parquet`.
    #[serde(default)]
    pub results_rows: usize,
    /// Rows in `training.parquet`.
    #[serde(default)]
    pub training_rows: usize,
    /// Rows in `benchmarks.parquet`.
    #[serde(default)]
    pub benchmarks_rows: usize,
    #[serde(default)]
    pub script: Option<String>,
    #[serde(default)]
    pub arguments: Vec<String>,
    #[serde(default)]
    pub options: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub device: String,
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    #[serde(default)]
    pub git: Option<Git>,
    #[serde(default)]
    pub host: Host,
    #[serde(default)]
    pub process: Option<Process>,
    #[serde(default)]
    pub script_text: Option<String>,
}

impl RunRecord {
    /// The record of a run that starts now in this process.
    pub(super) fn begin(id: String, start: DateTime<Utc>, info: RunInfo) -> Self {
        Self {
            schema: SCHEMA,
            id,
            name: info.name,
            tags: info.tags,
            status: Status::Running,
            error: None,
            start: timestamp(start),
            end: None,
            results_rows: 0,
            training_rows: 0,
            benchmarks_rows: 0,
            script: info.script,
            arguments: info.arguments,
            options: info.options,
            seed: info.seed,
            device: info.device,
            versions: environment::versions(),
            git: if info.confined { None } else { environment::git() },
            host: environment::host(),
            process: Some(environment::process()),
            script_text: info.script_text,
        }
    }

    /// Reads a `run.json`. A run that says it is running but whose process on this machine is gone is
    /// reported as interrupted, since a killed process cannot say so itself.
    ///
    /// # Errors
    /// When the file cannot be read, is not a run record, or was written by a newer `lft`.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut record: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is broken", path.display()))?;
        ensure!(
            record.schema <= SCHEMA,
            "{} has layout {} and this lft reads up to {SCHEMA}: update lft",
            path.display(),
            record.schema,
        );
        if record.status == Status::Running && record.process_is_gone() {
            record.status = Status::Interrupted;
        }
        Ok(record)
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        atomic::write(path, |w| {
            serde_json::to_writer_pretty(&mut *w, self)?;
            Ok(writeln!(w)?)
        })
    }

    pub(super) fn end(&mut self, status: Status, error: Option<String>) {
        self.status = status;
        self.error = error;
        self.end = Some(timestamp(Utc::now()));
    }

    /// Seconds from start to end, or to now while the run goes on; `None` when the end is unknown.
    pub fn seconds(&self) -> Option<f64> {
        let start = DateTime::parse_from_rfc3339(&self.start).ok()?.to_utc();
        let end = match &self.end {
            Some(end) => DateTime::parse_from_rfc3339(end).ok()?.to_utc(),
            None if self.status == Status::Running => Utc::now(),
            None => return None,
        };
        Some((end - start).num_milliseconds() as f64 / 1e3)
    }

    fn process_is_gone(&self) -> bool {
        let here = sysinfo::System::host_name().unwrap_or_default() == self.host.hostname;
        here && self.process.is_some_and(|process| !environment::is_alive(process))
    }
}

/// RFC 3339 in UTC to the millisecond, so that texts sort by time.
fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RunRecord {
        let info = RunInfo { name: "<script>".into(), seed: Some(u64::MAX), ..RunInfo::default() };
        RunRecord::begin("id".into(), DateTime::from_timestamp(1_700_000_000, 0).unwrap(), info)
    }

    #[test]
    fn record_survives_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        record().save(&path).unwrap();
        let read = RunRecord::load(&path).unwrap();
        assert_eq!((read.name.as_str(), read.seed), ("<script>", Some(u64::MAX)));
        assert_eq!(read.status, Status::Running);
        assert_eq!(read.start, "2023-11-14T22:13:20.000Z");
        assert!(read.seconds().unwrap() > 0.0);
    }

    #[test]
    fn killed_process_reads_as_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let mut killed = record();
        killed.process.as_mut().unwrap().started += 1;
        killed.save(&path).unwrap();
        let read = RunRecord::load(&path).unwrap();
        assert_eq!(read.status, Status::Interrupted);
        assert_eq!(read.seconds(), None);
    }

    #[test]
    fn broken_and_newer_records_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        fs::write(&path, "{\"schema\": 1, \"id\"").unwrap();
        let error = RunRecord::load(&path).unwrap_err().to_string();
        assert!(error.contains("run.json is broken"), "{error}");

        RunRecord { schema: 99, ..record() }.save(&path).unwrap();
        let error = RunRecord::load(&path).unwrap_err().to_string();
        assert!(error.contains("layout 99"), "{error}");
    }
}
