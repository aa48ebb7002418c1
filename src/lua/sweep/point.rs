//! One point of a sweep: its coroutine, its run and what came of it.

use anyhow::Context;
use mlua::{Function, Lua, LuaSerdeExt, MultiValue, Table, Thread, Value};

use crate::lua::error::ScriptError;
use crate::lua::results::{self, Ending, Run, row};
use crate::results::{Row, Value as Cell};
use crate::sweep::{self, Config, Finished};

/// A point that is being run.
pub struct Point {
    /// Where it stands among the configurations.
    pub place: usize,
    pub config: Config,
    /// Runs the script's function.
    pub thread: Thread,
    sweep: String,
    run: Run,
}

/// What came of a point.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub result: Row,
    pub error: Option<String>,
    run_id: String,
    kept: bool,
}

impl Outcome {
    /// A point that an earlier sweep finished.
    pub fn kept(point: &Finished) -> Self {
        Self { result: point.result.clone(), error: None, run_id: point.run_id.clone(), kept: true }
    }
}

impl Point {
    /// Makes the run and the coroutine.
    ///
    /// # Errors
    /// When the run's folder cannot be made.
    pub fn start(
        lua: &Lua,
        sweep: &str,
        place: usize,
        config: &Config,
        function: &Function,
    ) -> anyhow::Result<Self> {
        let run =
            results::open(lua, sweep::run_name(sweep, config), vec!["sweep".to_owned()], config.clone())?;
        let thread = lua.create_thread(function.clone())?;
        Ok(Self { place, config: config.clone(), thread, sweep: sweep.to_owned(), run })
    }

    /// What the script's function is called with.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn arguments(&self, lua: &Lua) -> anyhow::Result<MultiValue> {
        let config = lua.to_value(&self.config)?;
        Ok([config, lua.create_any_userdata(self.run.clone()).map(Value::UserData)?].into_iter().collect())
    }

    /// Logs what the function returned and keeps the point as finished.
    ///
    /// # Errors
    /// A value that is no row, and files that cannot be written.
    pub fn finish(&self, returned: &Value) -> anyhow::Result<Outcome> {
        let returned = match returned {
            Value::Nil => None,
            Value::Table(table) => Some(row::read(table).context("the row that the function returned")?),
            other => anyhow::bail!(
                "the function must return a row or nothing, found {}",
                crate::lua::types::describe(other)
            ),
        };
        if let Some(row) = &returned {
            self.run.log(self.with_config(row.clone()))?;
        }
        self.run.flush()?;
        let result = returned.unwrap_or_default();
        sweep::keep(&self.run.folder(), &self.sweep, &self.config, &result)?;
        self.run.end(&Ending::WELL)?;
        Ok(Outcome { result, error: None, run_id: self.run.id(), kept: false })
    }

    /// Ends the point's run as failed.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn fail(&self, error: &mlua::Error) -> anyhow::Result<Outcome> {
        self.run.end(&Ending::by(error))?;
        let message = ScriptError::new(error).message;
        Ok(Outcome { result: Row::new(), error: Some(message), run_id: self.run.id(), kept: false })
    }

    /// The configuration in front of a row; a column of the row's own goes before one of the configuration.
    fn with_config(&self, row: Row) -> Row {
        let own = |name: &str| row.iter().any(|(column, _)| column == name);
        let config = self.config.iter().filter(|(name, _)| !own(name));
        let mut all: Row = config.map(|(name, value)| (name.clone(), Cell::from(value))).collect();
        all.extend(row);
        all
    }
}

/// The table that a script receives.
///
/// # Errors
/// When Lua is out of memory.
pub fn tables(
    lua: &Lua,
    configs: &[Config],
    outcomes: impl Iterator<Item = Outcome>,
    passes: usize,
) -> anyhow::Result<Table> {
    let points = lua.create_table()?;
    let mut failed = 0;
    for (config, outcome) in configs.iter().zip(outcomes) {
        failed += usize::from(outcome.error.is_some());
        let point = lua.create_table()?;
        point.set("config", lua.to_value(config)?)?;
        point.set("status", if outcome.error.is_some() { "failed" } else { "finished" })?;
        point.set("kept", outcome.kept)?;
        point.set(
            "result",
            row::table(lua, outcome.result.iter().map(|(name, cell)| (name.as_str(), cell.clone())))?,
        )?;
        point.set("error", outcome.error)?;
        point.set("run_id", outcome.run_id)?;
        points.raw_push(point)?;
    }
    points.set("failed", failed)?;
    points.set("teacher_passes", passes)?;
    Ok(points)
}
