//! `lft.plot`: figures of a script's own.

use anyhow::{Context, bail, ensure};
use mlua::{Lua, Table, Value};

use super::row;
use crate::lua::catalogue::{Class, Entry, OptionsTable, Param, join};
use crate::lua::options::Options;
use crate::lua::path::ScriptPath;
use crate::lua::register::{Registry, userdata};
use crate::report::plot::{Kind, Plot};
use crate::results::Row;

/// A figure in the hands of a script.
pub struct PlotObject(pub Plot);
userdata!(PlotObject);

const DATA: Param = (
    "data?",
    "table<string, any>[]",
    "the rows, as lft.query returns them; not needed where the columns are given as lists",
);
const WORDS: [Param; 4] = [
    ("title?", "string", "title; made of the columns' names when left out"),
    ("reading?", "string", "how to read it, the sentence under the figure"),
    ("x_label?", "string", "text at the horizontal axis"),
    ("y_label?", "string", "text at the vertical axis"),
];
const SCALES: [Param; 2] = [
    ("log_x?", "boolean", "logarithmic horizontal axis"),
    ("log_y?", "boolean", "logarithmic vertical axis"),
];
const GROUP: Param = ("group?", "string|any[]", "column whose values are series of their own");
const MARKS: OptionsTable = OptionsTable {
    class: "PlotOptions",
    fields: &{
        const AXES: [Param; 4] = [
            DATA,
            ("x?", "string|any[]", "column of the horizontal axis, or its values"),
            ("y", "string|any[]", "column of the vertical axis, or its values"),
            GROUP,
        ];
        const OWN: [Param; 8] = join(AXES, WORDS);
        const FIELDS: [Param; 10] = join(OWN, SCALES);
        FIELDS
    },
};
const HEATMAP: OptionsTable = OptionsTable {
    class: "HeatmapOptions",
    fields: &{
        const OWN: [Param; 4] = [
            DATA,
            ("x", "string|any[]", "column of the horizontal axis, or its values"),
            ("y", "string|any[]", "column of the vertical axis, or its values"),
            ("value", "string|any[]", "column of the colour, or its values"),
        ];
        const FIELDS: [Param; 8] = join(OWN, WORDS);
        FIELDS
    },
};
const PARALLEL: OptionsTable = OptionsTable {
    class: "ParallelOptions",
    fields: &[
        ("data", "table<string, any>[]", "the rows, as lft.query returns them"),
        ("columns", "string[]", "one axis each; the last one gives the colour"),
        WORDS[0],
        WORDS[1],
    ],
};

/// Registers `lft.plot` and the class `Plot`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.plot", "Figures of your own, for reports and as pages of their own.");
    for table in [&MARKS, &HEATMAP, &PARALLEL] {
        registry.options(table);
    }
    for (entry, table, kind) in [
        (LINE, &MARKS, Kind::Line),
        (SCATTER, &MARKS, Kind::Scatter),
        (BAR, &MARKS, Kind::Bar),
        (BOX, &MARKS, Kind::Box),
        (MAP, &HEATMAP, Kind::Heatmap),
        (LINES, &PARALLEL, Kind::Parallel),
    ] {
        registry.function(entry, move |lua, options: Table| {
            let options = Options::read(lua, Some(options), table)?;
            plot(&options, kind)
        })?;
    }
    registry.class(
        Class {
            name: "Plot",
            about: "A figure: goes into the sections of a report, or into a file of its own.",
            fields: &[("title", "string", "title")],
        },
        |class| {
            class.field("title", |_, plot: &PlotObject| Ok(plot.0.title.clone()));
            class.method(
                Entry {
                    name: "Plot:save",
                    about: "Writes the figure as a self-contained HTML page.",
                    params: &[("path", "string", "the file to write")],
                    returns: &[("string", "the path")],
                    example: "local path = os.tmpname()\nlft.plot.bar{x = {\"a\", \"b\"}, y = {1, 2}}:save(path)\nos.remove(path)",
                },
                |_: &Lua, plot: &PlotObject, path: ScriptPath| {
                    crate::report::write_plot(&plot.0, &path)?;
                    Ok(path.display().to_string())
                },
            );
        },
    )
}

fn plot(options: &Options, kind: Kind) -> anyhow::Result<PlotObject> {
    let mut rows: Vec<Row> = Vec::new();
    let given = options.get::<Vec<Table>>("data")?;
    for (at, table) in given.iter().flatten().enumerate() {
        rows.push(row::read(table).with_context(|| format!("option 'data', row {}", at + 1))?);
    }
    let mut column = |name: &str| -> anyhow::Result<Option<String>> {
        match options.get::<Value>(name)? {
            Some(Value::Table(values)) => {
                ensure!(given.is_none(), "option '{name}' is a list, so 'data' has to be left out");
                fill(&mut rows, name, &values)?;
                Ok(Some(name.to_owned()))
            }
            Some(text) => Ok(Some(text.to_string()?)),
            None => Ok(None),
        }
    };
    let (y, x, group) = match kind {
        Kind::Parallel => (None, None, None),
        Kind::Heatmap => (column("y")?, column("x")?, None),
        _ => (column("y")?, column("x")?, column("group")?),
    };
    let value = if kind == Kind::Heatmap { column("value")? } else { None };
    let text = |name: &str| options.or(name, String::new());
    let flag = |name: &str| options.or(name, false);
    let plot = Plot {
        x,
        y,
        value,
        group,
        columns: options.or("columns", Vec::new())?,
        title: text("title")?,
        reading: text("reading")?,
        x_label: text("x_label")?,
        y_label: text("y_label")?,
        log_x: flag("log_x")?,
        log_y: flag("log_y")?,
        ..Plot::new(kind, crate::report::from_rows(rows))
    };
    // Drawn once here, so that a mistake shows at the script's own line.
    plot.chart("own-0")?;
    Ok(PlotObject(plot))
}

/// Adds a column that was given as a list.
fn fill(rows: &mut Vec<Row>, name: &str, values: &Table) -> anyhow::Result<()> {
    let values = values.sequence_values::<Value>().collect::<mlua::Result<Vec<Value>>>()?;
    if rows.is_empty() {
        rows.resize(values.len(), Row::new());
    }
    if rows.len() != values.len() {
        bail!("option '{name}' has {} values, the list before it {}", values.len(), rows.len());
    }
    for (row, value) in rows.iter_mut().zip(&values) {
        row.push((name.to_owned(), row::cell(value).with_context(|| format!("option '{name}'"))?));
    }
    Ok(())
}

const LINE: Entry = Entry {
    name: "lft.plot.line",
    about: "A line of means over rows of equal x, with a band over repetitions.",
    params: &[("options", "PlotOptions", "the rows and their columns")],
    returns: &[("Plot", "the figure")],
    example: "local rows = {{k = 1, kl = 0.5, method = \"fm\"}, {k = 2, kl = 0.4, method = \"fm\"}}\nlocal plot = lft.plot.line{data = rows, x = \"k\", y = \"kl\", group = \"method\", log_y = true}\nassert(tostring(plot):match(\"Plot\"))",
};
const SCATTER: Entry = Entry {
    name: "lft.plot.scatter",
    about: "One point a row; hovering shows the whole row.",
    params: &[("options", "PlotOptions", "the rows and their columns")],
    returns: &[("Plot", "the figure")],
    example: "lft.plot.scatter{x = {1, 2, 3}, y = {0.5, 0.4, 0.3}, x_label = \"seconds\", y_label = \"KL\"}",
};
const BAR: Entry = Entry {
    name: "lft.plot.bar",
    about: "Means as bars, with the interval of each where rows repeat.",
    params: &[("options", "PlotOptions", "the rows and their columns")],
    returns: &[("Plot", "the figure")],
    example: "lft.plot.bar{x = {\"fm\", \"fw\", \"fw\"}, y = {0.5, 0.4, 0.44}}",
};
const BOX: Entry = Entry {
    name: "lft.plot.box",
    about: "The distribution of y for every x, or of all rows.",
    params: &[("options", "PlotOptions", "the rows and their columns")],
    returns: &[("Plot", "the figure")],
    example: "lft.plot.box{y = {0.1, 0.2, 0.2, 0.9}, x = {\"a\", \"a\", \"a\", \"b\"}}",
};
const MAP: Entry = Entry {
    name: "lft.plot.heatmap",
    about: "Means of a value as colours over x and y.",
    params: &[("options", "HeatmapOptions", "the rows and their columns")],
    returns: &[("Plot", "the figure")],
    example: "lft.plot.heatmap{x = {1, 2, 1, 2}, y = {1, 1, 2, 2}, value = {0.1, 0.2, 0.3, 0.4}}",
};
const LINES: Entry = Entry {
    name: "lft.plot.parallel",
    about: "One line a row across several axes, to see which settings lead to which results.",
    params: &[("options", "ParallelOptions", "the rows and their columns")],
    returns: &[("Plot", "the figure")],
    example: "local rows = {{lr = 1e-3, steps = 100, kl = 0.5}, {lr = 2e-3, steps = 200, kl = 0.4}}\nlft.plot.parallel{data = rows, columns = {\"lr\", \"steps\", \"kl\"}}",
};
