//! Options tables are read strictly: a misspelt name or a wrong type is an error that says what was meant.

use anyhow::{Context, bail};
use mlua::{FromLua, Lua, Table, Value};

use super::catalogue::OptionsTable;
use super::signature::expect;
use super::types::{Type, describe};
use crate::nearest::nearest;

/// An options table whose names and types were checked against its description.
pub struct Options {
    lua: Lua,
    table: Option<Table>,
}

impl Options {
    /// Checks `table` (or nothing, when no option is required) against `known`.
    ///
    /// # Errors
    /// Unknown names (with the nearest known one), wrong types and required options left out.
    pub fn read(lua: &Lua, table: Option<Table>, known: &OptionsTable) -> anyhow::Result<Self> {
        if let Some(table) = &table {
            for pair in table.pairs::<Value, Value>() {
                let (key, value) = pair?;
                let Some(name) = key.as_string().map(|name| name.to_string_lossy()) else {
                    bail!("options have names, but {} was given without one", describe(&value));
                };
                check(&name, &value, known)?;
            }
        }
        for (name, kind, about) in known.fields.iter().filter(|field| !field.0.ends_with('?')) {
            let given = table.as_ref().map_or(Ok(Value::Nil), |table| table.raw_get::<Value>(*name))?;
            if given.is_nil() {
                bail!("option '{name}' is missing: {kind}, {about}");
            }
        }
        Ok(Self { lua: lua.clone(), table })
    }

    /// The value of an option, `None` when it was left out.
    ///
    /// # Errors
    /// When the value cannot be converted to `T`.
    pub fn get<T: FromLua>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(table) = &self.table else { return Ok(None) };
        match table.raw_get::<Value>(name)? {
            Value::Nil => Ok(None),
            value => {
                let shown = describe(&value);
                let converted = T::from_lua(value, &self.lua);
                converted
                    .map(Some)
                    .map_err(anyhow::Error::new)
                    .with_context(|| format!("option '{name}' = {shown}"))
            }
        }
    }

    /// The value of an option or `default`.
    ///
    /// # Errors
    /// As [`Options::get`].
    pub fn or<T: FromLua>(&self, name: &str, default: T) -> anyhow::Result<T> {
        Ok(self.get(name)?.unwrap_or(default))
    }

    /// The value of a required option.
    ///
    /// # Errors
    /// As [`Options::get`], and when it was left out.
    pub fn required<T: FromLua>(&self, name: &str) -> anyhow::Result<T> {
        self.get(name)?.with_context(|| format!("option '{name}' is missing"))
    }

    /// A whole number of at least `least`, or `default`.
    ///
    /// # Errors
    /// When the number given is smaller.
    pub fn count(&self, name: &str, default: usize, least: usize) -> anyhow::Result<usize> {
        match self.get::<i64>(name)? {
            None => Ok(default),
            Some(number) if number >= 0 && number as usize >= least => Ok(number as usize),
            Some(number) => bail!("option '{name}' must be at least {least}, found {number}"),
        }
    }
}

fn check(name: &str, value: &Value, known: &OptionsTable) -> anyhow::Result<()> {
    let names = || known.fields.iter().map(|field| field.0.trim_end_matches('?'));
    match known.fields.iter().find(|field| field.0.trim_end_matches('?') == name) {
        Some(&(_, text, _)) => expect(&Type::parse(text), text, value, || format!("option '{name}'")),
        None => match nearest(name, names()) {
            Some(near) => bail!("unknown option '{name}' (did you mean '{near}'?)"),
            None => bail!("unknown option '{name}'; known are {}", names().collect::<Vec<_>>().join(", ")),
        },
    }
}
