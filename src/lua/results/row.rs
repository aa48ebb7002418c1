//! Rows of results tables: from the tables that scripts log, and back to Lua.

use anyhow::{Context, bail};
use mlua::{IntoLua, Lua, Table};

use crate::lua::types::describe;
use crate::results::{Frame, Row, Value};

/// Reads a flat table of names to numbers, strings and booleans; Lua's integers stay integers.
///
/// Lua tables have no order, and their traversal differs from process to process. So that equal runs write
/// equal files, columns are ordered here: texts, booleans, integers and floats, each by name. What was tried
/// then stands before what came of it.
///
/// # Errors
/// Names the column whose value no results table can hold.
pub fn read(table: &Table) -> anyhow::Result<Row> {
    let mut row = Row::new();
    for pair in table.pairs::<mlua::Value, mlua::Value>() {
        let (key, value) = pair?;
        let Some(name) = key.as_string().map(|name| name.to_string_lossy()) else {
            bail!("columns have names: write {{name = value}}, found {} without one", describe(&value));
        };
        let value = cell(&value).with_context(|| format!("column '{name}'"))?;
        row.push((name, value));
    }
    row.sort_by(|a, b| (rank(&a.1), &a.0).cmp(&(rank(&b.1), &b.0)));
    Ok(row)
}

pub fn cell(value: &mlua::Value) -> anyhow::Result<Value> {
    Ok(match value {
        mlua::Value::Boolean(flag) => Value::Bool(*flag),
        mlua::Value::Integer(number) => Value::Int(*number),
        mlua::Value::Number(number) => Value::Float(*number),
        mlua::Value::String(text) => Value::String(text.to_string_lossy()),
        mlua::Value::UserData(_) => bail!(
            "expected a number, string or boolean, found {}; t:item() is the number in a tensor of one element",
            describe(value)
        ),
        _ => bail!("expected a number, string or boolean, found {}", describe(value)),
    })
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Int(_) => 3,
        Value::Float(_) => 4,
    }
}

/// An array with one table a row; null cells are absent.
///
/// # Errors
/// When Lua is out of memory.
pub fn tables(lua: &Lua, frame: &Frame) -> mlua::Result<Table> {
    let columns = frame.columns();
    let rows = lua.create_table_with_capacity(frame.height(), 0)?;
    for cells in frame.rows() {
        rows.raw_push(table(lua, columns.iter().map(String::as_str).zip(cells))?)?;
    }
    Ok(rows)
}

/// A row as a table; null cells are absent.
///
/// # Errors
/// When Lua is out of memory.
pub fn table<'a>(lua: &Lua, row: impl Iterator<Item = (&'a str, Value)>) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, row.size_hint().0)?;
    for (name, cell) in row {
        table.raw_set(name, scalar(lua, cell)?)?;
    }
    Ok(table)
}

fn scalar(lua: &Lua, value: Value) -> mlua::Result<mlua::Value> {
    match value {
        Value::Null => Ok(mlua::Value::Nil),
        Value::Bool(flag) => Ok(mlua::Value::Boolean(flag)),
        Value::Int(number) => Ok(mlua::Value::Integer(number)),
        Value::Float(number) => Ok(mlua::Value::Number(number)),
        Value::String(text) => text.into_lua(lua),
    }
}
