//! Runs, queries and reports.

mod compare;
mod plot;
mod report;
pub mod row;
mod run;

use anyhow::{Context, bail};
use mlua::{AnyUserData, Function, Lua, LuaSerdeExt, ObjectLike, Table, Value};

pub use run::{Ending, Run};

use super::catalogue::{Class, Entry, OptionsTable};
use super::device;
use super::options::Options;
use super::register::{Members, Registry};
use super::show::show;
use super::state::State;
use super::tensor::{self, Handle};
use super::types::describe;
use crate::results::RunInfo;
use crate::{atomic, console};

const RUN: OptionsTable = OptionsTable {
    class: "RunOptions",
    fields: &[
        ("name?", "string", "what queries call it; the script's file name without its ending when left out"),
        ("tags?", "string[]", "words to find it by"),
        ("options?", "table<string, any>", "recorded with the run, beside the values of lft.options"),
    ],
};

/// Registers `lft.run`, `lft.query`, `lft.report`, `lft.plot` and the classes `Run` and `Plot`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&RUN);
    registry.function(
        Entry {
            name: "lft.run",
            about: "Starts a run: a folder that keeps the script, its options, the rows that it logs and what it saves. \
                    A run that is still open when the script ends is finished then, or marked as failed with the error.",
            params: &[("options?", "RunOptions", "name, tags and what to record")],
            returns: &[("Run", "the run")],
            example: "local run = lft.run{name = \"example\", tags = {\"doc\"}}\nrun:log{k = 1, kl = 0.5}\nrun:finish()",
        },
        |lua, options: Option<Table>| start(lua, options),
    )?;
    registry.function(
        Entry {
            name: "lft.query",
            about: "Runs one SQL statement over every run; the tables are results, training, benchmarks and runs. \
                    Files that cannot be read are named on standard error and left out.",
            params: &[("sql", "string", "the statement, in Polars' dialect")],
            returns: &[("table<string, any>[]", "one table a row, column name to value; null is nil")],
            example: "lft.run{name = \"example\"}:log{kl = 0.5}\nlocal rows = lft.query(\"SELECT kl FROM results WHERE run = 'example' AND latest\")\nassert(rows[1].kl == 0.5)",
        },
        |lua, sql: String| {
            let state = State::of(lua)?;
            state.flush_runs()?;
            let answer = crate::results::query(&state.runs_dir, &sql)?;
            for warning in &answer.warnings {
                console::note(&format!("warning: {warning}"));
            }
            Ok(row::tables(lua, &answer.frame)?)
        },
    )?;
    compare::register(registry)?;
    plot::register(registry)?;
    report::register(registry)?;
    registry.class(
        Class {
            name: "Run",
            about: "A run in progress. `local run <close> = lft.run{…}` ends it with its block.",
            fields: &[
                ("name", "string", "name as it was given"),
                ("id", "string", "id, which is also the name of the folder"),
                ("folder", "string", "the run's folder"),
            ],
        },
        members,
    )
}

fn members(class: &mut Members<'_, Run>) {
    class.field("name", |_, run| Ok(run.name()));
    class.field("id", |_, run| Ok(run.id()));
    class.field("folder", |_, run| Ok(run.folder().display().to_string()));
    class.method(
        Entry {
            name: "Run:log",
            about: "Adds a row to the table results. Rows may have different columns.",
            params: &[("row", "table<string, any>", "column name to number, string or boolean")],
            returns: &[("nil", "nothing")],
            example: "lft.run{name = \"example\"}:log{method = \"fm\", k = 4, kl = 0.4}",
        },
        |_, run: &Run, row: Table| run.log(row::read(&row)?),
    );
    class.method(
        Entry {
            name: "Run:log_training",
            about: "Adds a row to the table training: one point of each curve.",
            params: &[("row", "table<string, any>", "column name to number, string or boolean")],
            returns: &[("nil", "nothing")],
            example: "lft.run{name = \"example\"}:log_training{step = 1, loss = 2.5}",
        },
        |_, run: &Run, row: Table| run.log_training(row::read(&row)?),
    );
    class.method(
        Entry {
            name: "Run:save",
            about: "Saves something in the run's folder: tensors as a safetensors file, and anything that has a \
                    method save in its own form.",
            params: &[
                ("name", "string", "name of the file or folder"),
                ("object", "any", "a tensor, a table of tensors, a student, a velocity field, …"),
            ],
            returns: &[("string", "path of what was written")],
            example: "local path = lft.run{name = \"example\"}:save(\"weights\", {w = lft.ones({2})})\nassert(lft.safetensors.load(path).w:sum():item() == 2)",
        },
        |_, run: &Run, (name, object): (String, Value)| save(run, &name, &object),
    );
    class.method(report::OF_RUN, report::of_run);
    class.method(
        Entry {
            name: "Run:finish",
            about: "Writes everything and ends the run. Finishing again changes nothing.",
            params: &[],
            returns: &[("nil", "nothing")],
            example: "lft.run{name = \"example\"}:finish()",
        },
        |_, run: &Run, ()| run.end(&Ending::WELL),
    );
    class.hidden("Run.__close", |_, run: &Run, error: Value| {
        run.end(&match &error {
            Value::Nil => Ending::WELL,
            Value::Error(error) => Ending::by(error),
            error => Ending::by(&mlua::Error::RuntimeError(show(error))),
        })
    });
}

/// The newest open run of the script, or a new one where it has none.
///
/// # Errors
/// When the new run's folder cannot be made.
pub fn current(lua: &Lua) -> anyhow::Result<Run> {
    State::of(lua)?.open_run().map_or_else(|| start(lua, None), Ok)
}

fn start(lua: &Lua, options: Option<Table>) -> anyhow::Result<Run> {
    let options = Options::read(lua, options, &RUN)?;
    let name = options.or("name", State::of(lua)?.script_name())?;
    let recorded = match options.get::<Value>("options")? {
        Some(table) => named_values(lua, table).context("option 'options'")?,
        None => serde_json::Map::new(),
    };
    open(lua, name, options.or("tags", Vec::new())?, recorded)
}

/// Starts a run that the host ends if nobody else does; `options` are recorded beside the script's flags.
///
/// # Errors
/// When its folder cannot be made.
pub fn open(
    lua: &Lua,
    name: String,
    tags: Vec<String>,
    options: serde_json::Map<String, serde_json::Value>,
) -> anyhow::Result<Run> {
    let state = State::of(lua)?;
    let mut recorded: serde_json::Map<_, _> = state.flags().into_iter().collect();
    recorded.extend(options);
    let info = RunInfo {
        name,
        tags,
        script: Some(state.script.display().to_string()),
        script_text: Some(state.source.clone()),
        arguments: state.args.clone(),
        options: recorded,
        seed: Some(state.seed),
        device: device::name(&state.device),
    };
    let run = Run::create(&state.runs_dir, info)?;
    if !state.quiet {
        console::note(&format!("run {}: {}", run.name(), run.folder().display()));
    }
    state.add_run(run.clone());
    Ok(run)
}

/// A Lua table as the JSON object that stands in `run.json`, in the order of its names.
fn named_values(lua: &Lua, table: Value) -> anyhow::Result<serde_json::Map<String, serde_json::Value>> {
    let mut json: serde_json::Value = lua.from_value(table)?;
    json.sort_all_objects();
    match json {
        serde_json::Value::Object(named) => Ok(named),
        serde_json::Value::Array(items) if items.is_empty() => Ok(serde_json::Map::new()),
        _ => bail!("options have names: write {{name = value}}"),
    }
}

fn save(run: &Run, name: &str, object: &Value) -> anyhow::Result<String> {
    let saver = match object {
        Value::UserData(data) if data.is::<Handle>() => None,
        Value::UserData(data) => member(data),
        Value::Table(table) => table.get::<Option<Function>>("save").ok().flatten(),
        _ => None,
    };
    if let Some(saver) = saver {
        let path = run.path_for(name)?.display().to_string();
        saver.call::<()>((object, path.as_str()))?;
        return Ok(path);
    }
    let file = format!("{}.safetensors", name.strip_suffix(".safetensors").unwrap_or(name));
    let path = run.path_for(&file)?;
    match object {
        Value::Table(table) => atomic::write_tensors(&path, tensor::named(table)?, None)?,
        Value::UserData(data) if data.is::<Handle>() => {
            let tensor = data.borrow::<Handle>()?.get()?;
            atomic::write_tensors(&path, [(name.to_owned(), tensor)], None)?;
        }
        other => bail!(
            "cannot save {}: expected a tensor, a table of tensors, or something with a method save",
            describe(other)
        ),
    }
    Ok(path.display().to_string())
}

fn member(data: &AnyUserData) -> Option<Function> {
    data.get::<Option<Function>>("save").ok().flatten()
}
