//! `lft.report` and `run:report`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use mlua::{Lua, Table, Value};

use super::Run;
use super::plot::PlotObject;
use crate::lua::catalogue::{Entry, OptionsTable, Param, join};
use crate::lua::options::Options;
use crate::lua::register::Registry;
use crate::lua::state::State;
use crate::lua::types::describe;
use crate::report::Request;
use crate::report::input::Section;

const SHARED: [Param; 3] = [
    ("title?", "string", "title of the page"),
    ("sections?", "(string|Plot)[]", "Markdown and figures of your own, in reading order"),
    ("template?", "string", "file with a template in Jinja's language in place of the page's own"),
];
const REPORT: OptionsTable = OptionsTable {
    class: "ReportOptions",
    fields: &{
        const OWN: [Param; 3] = [
            (
                "runs?",
                "(string|Run)[]",
                "names, patterns with *, ids or runs; the newest finished run of every name when left out",
            ),
            ("all?", "boolean", "every finished run of the names, not only the newest with its repetitions"),
            ("output?", "string", "the file to write, reports/report.html when left out"),
        ];
        const FIELDS: [Param; 6] = join(OWN, SHARED);
        FIELDS
    },
};
const RUN_REPORT: OptionsTable = OptionsTable {
    class: "RunReportOptions",
    fields: &{
        const FIELDS: [Param; 4] = join([("path", "string", "the file to write")], SHARED);
        FIELDS
    },
};

/// Describes [`of_run`].
pub const OF_RUN: Entry = Entry {
    name: "Run:report",
    about: "Writes a self-contained HTML page about the run as it stands, with text and figures of your own where given.",
    params: &[(
        "target",
        "string|RunReportOptions",
        "the file to write, or the file with what else goes on the page",
    )],
    returns: &[("string", "the path")],
    example: "local run, path = lft.run{name = \"example\"}, os.tmpname()\nrun:log{k = 1, kl = 0.5}\nrun:report(path)\nlocal plot = lft.plot.line{x = {1, 2, 3}, y = {1, 4, 9}, title = \"Squares\"}\nassert(run:report{path = path, sections = {\"## Why\\n\\nTo see *squares*.\", plot}} == path)\nos.remove(path)",
};

/// Registers `lft.report`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&REPORT);
    registry.options(&RUN_REPORT);
    registry.function(
        Entry {
            name: "lft.report",
            about: "Writes one self-contained HTML page about several runs. Runs of the same name, script and options that \
                    differ in their seed are repetitions: the page shows their mean and spread.",
            params: &[("options?", "ReportOptions", "which runs, and where to")],
            returns: &[("string", "path of the page")],
            example: "local run = lft.run{name = \"example\"}\nrun:log{kl = 0.5}\nrun:finish()\nlocal path = os.tmpname()\nassert(lft.report{runs = {run}, output = path, sections = {\"One row.\"}} == path)\nos.remove(path)",
        },
        |lua, options: Option<Table>| of_runs(lua, options),
    )
}

/// One page about one run.
///
/// # Errors
/// Unknown options, figures that cannot be drawn, and files that cannot be written.
pub fn of_run(lua: &Lua, run: &Run, target: Value) -> anyhow::Result<String> {
    run.flush()?;
    let (path, request) = match target {
        Value::Table(options) => {
            let options = Options::read(lua, Some(options), &RUN_REPORT)?;
            (options.required::<String>("path")?, request(&options)?)
        }
        path => (path.to_string()?, Request::default()),
    };
    crate::report::write_run(&State::of(lua)?.runs_dir, &run.id(), request, Path::new(&path))?;
    Ok(path)
}

fn of_runs(lua: &Lua, options: Option<Table>) -> anyhow::Result<String> {
    let options = Options::read(lua, options, &REPORT)?;
    let state = State::of(lua)?;
    state.flush_runs()?;
    let runs = options.or("runs", Vec::<Value>::new())?;
    let name = |run: &Value| match run.as_userdata().and_then(|data| data.borrow::<Run>().ok()) {
        Some(run) => Ok(run.id()),
        None => run.to_string(),
    };
    let request = Request {
        runs: runs.iter().map(name).collect::<mlua::Result<_>>()?,
        all: options.or("all", false)?,
        ..request(&options)?
    };
    let output = PathBuf::from(options.or("output", "reports/report.html".to_owned())?);
    crate::report::compile(&state.runs_dir, request, &output)?;
    Ok(output.display().to_string())
}

/// What both kinds of report take.
fn request(options: &Options) -> anyhow::Result<Request> {
    let sections = options.or("sections", Vec::<Value>::new())?;
    Ok(Request {
        title: options.get("title")?,
        sections: sections.iter().map(section).collect::<anyhow::Result<_>>()?,
        template: options.get::<String>("template")?.map(PathBuf::from),
        ..Request::default()
    })
}

fn section(value: &Value) -> anyhow::Result<Section> {
    match value {
        Value::String(text) => Ok(Section::Text(text.to_string_lossy())),
        Value::UserData(data) if data.is::<PlotObject>() => {
            Ok(Section::Plot(Box::new(data.borrow::<PlotObject>()?.0.clone())))
        }
        other => bail!("option 'sections': expected Markdown or a Plot, found {}", describe(other)),
    }
}
