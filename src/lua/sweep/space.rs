//! The configurations that a script's tables mean.

use anyhow::{Context, anyhow, bail};
use mlua::{Lua, Table, Value};

use super::json;
use crate::lua::catalogue::OptionsTable;
use crate::lua::options::Options;
use crate::lua::types::describe;
use crate::sweep::{Config, Dimension, Space};

/// A range of random values.
pub const RANGE: OptionsTable = OptionsTable {
    class: "SweepRangeOptions",
    fields: &[
        ("min", "number", "smallest value"),
        ("max", "number", "largest value"),
        ("log?", "boolean", "uniform in the logarithm, false when left out"),
    ],
};

/// All combinations.
///
/// # Errors
/// Values that are no lists, and those of [`Space::grid`].
pub fn grid(lua: &Lua, table: &Table) -> anyhow::Result<Vec<Config>> {
    Space::new(dimensions(table, |list| choice(lua, list))?)?.grid()
}

/// Random draws.
///
/// # Errors
/// Values that are neither lists nor ranges, and those of [`Space::new`].
pub fn random(lua: &Lua, table: &Table, samples: usize, seed: u64) -> anyhow::Result<Vec<Config>> {
    let space = Space::new(dimensions(table, |values| match values.raw_len() {
        0 => range(lua, values),
        _ => choice(lua, values),
    })?)?;
    Ok(space.random(samples, seed))
}

fn dimensions(
    table: &Table,
    read: impl Fn(&Table) -> anyhow::Result<Dimension>,
) -> anyhow::Result<Vec<(String, Dimension)>> {
    let mut dimensions = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let Some(name) = key.as_string().map(|name| name.to_string_lossy()) else {
            bail!("what varies has a name: write {{name = {{…}}}}, found {}", describe(&value));
        };
        let Some(values) = value.as_table() else {
            bail!("'{name}' must be a list of values, found {}", describe(&value));
        };
        dimensions.push((name.clone(), read(values).with_context(|| format!("'{name}'"))?));
    }
    Ok(dimensions)
}

fn choice(lua: &Lua, list: &Table) -> anyhow::Result<Dimension> {
    let values = list.sequence_values::<Value>().map(|value| {
        let value = value?;
        let shown = describe(&value);
        // Only what could not be kept is of interest, and not how that was found out.
        json(lua, value).map_err(|_| anyhow!("{shown} cannot be kept with a point"))
    });
    Ok(Dimension::Choice(values.collect::<anyhow::Result<_>>()?))
}

fn range(lua: &Lua, table: &Table) -> anyhow::Result<Dimension> {
    let options = Options::read(lua, Some(table.clone()), &RANGE)?;
    let whole =
        ["min", "max"].iter().all(|name| table.raw_get::<Value>(*name).is_ok_and(|end| end.is_integer()));
    let (low, high) = (options.required("min")?, options.required("max")?);
    Ok(Dimension::Range { low, high, log: options.or("log", false)?, whole })
}
