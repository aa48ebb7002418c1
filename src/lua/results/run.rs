//! The run that a script holds: a handle on one that the host will end if the script does not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlua::{FromLua, Lua, Value};

use crate::lua::error::{Ended, ScriptError};
use crate::lua::object::Object;
use crate::lua::register::userdata;
use crate::results::{self, Row, RunInfo, Status};

/// A run in the hands of a script, of a training loop, and of the host that ends it: clones are one run.
#[derive(Clone, Debug)]
pub struct Run(Arc<Mutex<results::Run>>);
userdata!(Run);

impl Run {
    /// Makes the run's folder in `root`.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn create(root: &Path, info: RunInfo) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(results::Run::create(root, info)?))))
    }

    /// Adds a row to the table `results`.
    ///
    /// # Errors
    /// As [`results::Run::log`].
    pub fn log(&self, row: Row) -> anyhow::Result<()> {
        self.lock().log(row)
    }

    /// Adds a row to the table `training`: one point of each curve.
    ///
    /// # Errors
    /// As [`results::Run::log_training`].
    pub fn log_training(&self, row: Row) -> anyhow::Result<()> {
        self.lock().log_training(row)
    }

    /// Adds a row to the table `benchmarks`: one timed piece of work.
    ///
    /// # Errors
    /// As [`results::Run::log_benchmark`].
    pub fn log_benchmark(&self, row: Row) -> anyhow::Result<()> {
        self.lock().log_benchmark(row)
    }

    /// Writes what was logged so far.
    ///
    /// # Errors
    /// As [`results::Run::flush`].
    pub fn flush(&self) -> anyhow::Result<()> {
        self.lock().flush()
    }

    /// Whether it has not ended yet.
    pub fn is_open(&self) -> bool {
        self.lock().record().status == Status::Running
    }

    /// Ends the run, unless it has ended before.
    ///
    /// # Errors
    /// As [`results::Run::end`].
    pub fn end(&self, ending: &Ending) -> anyhow::Result<()> {
        self.lock().end(ending.status, ending.reason.clone())
    }

    /// Name as the script gave it.
    pub fn name(&self) -> String {
        self.lock().record().name.clone()
    }

    /// Id, which is the folder's name.
    pub fn id(&self) -> String {
        self.lock().record().id.clone()
    }

    /// The run's folder.
    pub fn folder(&self) -> PathBuf {
        self.lock().folder().to_owned()
    }

    /// Where something saved under `name` belongs.
    ///
    /// # Errors
    /// As [`results::Run::path_for`].
    pub fn path_for(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.lock().path_for(name)
    }

    fn lock(&self) -> MutexGuard<'_, results::Run> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    status: Status,
    reason: Option<String>,
}

impl Ending {
    /// The work was done.
    pub const WELL: Self = Self { status: Status::Finished, reason: None };

    /// As an error ends it; [`Ended`] is no failure of the script.
    pub fn by(error: &mlua::Error) -> Self {
        let status = match Ended::of(error) {
            Some(Ended::Exit(0)) => return Self::WELL,
            Some(Ended::Interrupted) => Status::Interrupted,
            Some(Ended::Exit(_) | Ended::Memory(_) | Ended::Time(_)) | None => Status::Failed,
        };
        Self { status, reason: Some(ScriptError::new(error).message) }
    }
}

impl FromLua for Run {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        Ok(Object::from_lua(value, lua)?.0)
    }
}
