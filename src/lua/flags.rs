//! `lft.options`: the script's own command-line flags, typed by their defaults.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use mlua::{Lua, Table, Value};
use serde_json::Value as Json;

use super::catalogue::Entry;
use super::error::Ended;
use super::register::Registry;
use super::state::State;
use super::types::describe;
use crate::console;
use crate::nearest::nearest;

/// One flag: its value so far and what it is for.
struct Flag {
    value: Json,
    about: String,
}

type Flags = BTreeMap<String, Flag>;

/// Registers `lft.options`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.function(
        Entry {
            name: "lft.options",
            about: "Declares the script's flags and reads them from the command line: `lft run script.lua -- --steps 500`. \
                    The default gives the type; `--help` lists them and ends the script; the values are recorded with the run.",
            params: &[(
                "flags",
                "table<string, any>",
                "name to default, or to {default, \"description\"}; numbers, strings, booleans and lists of numbers or strings",
            )],
            returns: &[("table<string|integer, any>", "name to value; arguments without a flag stand at 1, 2, …")],
            example: "local o = lft.options{steps = {300, \"training steps\"}, fast = false}\nassert(o.steps == 300 and not o.fast)",
        },
        |lua, declared: Table| {
            let state = State::of(lua)?;
            let mut flags = declare(&declared)?;
            if state.args.iter().any(|arg| arg == "--help" || arg == "-h") {
                console::print(&usage(&state, &flags))?;
                return Err(Ended::Exit(0).into());
            }
            let positional = parse(&state.args, &mut flags)?;
            state.set_flags(flags.iter().map(|(name, flag)| (name.clone(), flag.value.clone())).collect());
            result(lua, &flags, &positional)
        },
    )
}

fn declare(declared: &Table) -> anyhow::Result<Flags> {
    let mut flags = Flags::new();
    for pair in declared.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let Some(name) = key.as_string().map(|name| name.to_string_lossy()) else {
            bail!(
                "flags have names: write {{name = {{default, \"description\"}}}}, found {}",
                describe(&value)
            );
        };
        let (default, about) = match &value {
            Value::Table(pair) => match (pair.get::<Value>(1)?, pair.get::<Value>(2)?) {
                (default, Value::String(about)) if pair.raw_len() == 2 && !default.is_string() => {
                    (default, about.to_string_lossy())
                }
                (Value::String(default), Value::String(about)) if pair.raw_len() == 2 => {
                    (Value::String(default), about.to_string_lossy())
                }
                _ => (value.clone(), String::new()),
            },
            _ => (value.clone(), String::new()),
        };
        let value = json(&default).with_context(|| format!("flag '{name}'"))?;
        flags.insert(name, Flag { value, about });
    }
    Ok(flags)
}

fn json(value: &Value) -> anyhow::Result<Json> {
    Ok(match value {
        Value::Boolean(flag) => Json::from(*flag),
        Value::Integer(number) => Json::from(*number),
        Value::Number(number) => Json::from(*number),
        Value::String(text) => Json::from(text.to_string_lossy()),
        Value::Table(list) => {
            let items: Vec<Value> = list.sequence_values().collect::<mlua::Result<_>>()?;
            Json::Array(items.iter().map(json).collect::<anyhow::Result<_>>()?)
        }
        other => bail!("the default must be a number, string, boolean or list, found {}", describe(other)),
    })
}

/// Sets the flags that `args` names and returns the arguments that belong to none.
fn parse(args: &[String], flags: &mut Flags) -> anyhow::Result<Vec<String>> {
    let mut positional = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let Some(body) = arg.strip_prefix("--").filter(|body| !body.is_empty()) else {
            if arg != "--" {
                positional.push(arg.clone());
            }
            continue;
        };
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name.replace('-', "_"), Some(value.to_owned())),
            None => (body.replace('-', "_"), None),
        };
        let negated =
            name.strip_prefix("no_").filter(|bare| flags.get(*bare).is_some_and(|f| f.value.is_boolean()));
        if let Some(flag) = negated.and_then(|bare| flags.get_mut(bare)) {
            flag.value = Json::from(false);
            continue;
        }
        let Some(flag) = flags.get(&name) else { bail!("{}", unknown(&name, flags)) };
        let value = match (inline, flag.value.is_boolean()) {
            (Some(text), _) => text,
            (None, true) => "true".into(),
            (None, false) => rest.next().with_context(|| format!("flag --{body} needs a value"))?.clone(),
        };
        let value = convert(&value, &flag.value).with_context(|| format!("flag --{name} '{value}'"))?;
        if let Some(flag) = flags.get_mut(&name) {
            flag.value = value;
        }
    }
    Ok(positional)
}

fn unknown(name: &str, flags: &Flags) -> String {
    match nearest(name, flags.keys().map(String::as_str)) {
        Some(near) => format!("unknown flag --{name} (did you mean --{near}?)"),
        None => format!("unknown flag --{name}; --help lists the known ones"),
    }
}

/// Reads `text` as the type of `like`.
fn convert(text: &str, like: &Json) -> anyhow::Result<Json> {
    Ok(match like {
        Json::Bool(_) => Json::from(text.parse::<bool>().ok().context("expected true or false")?),
        Json::Number(number) if number.is_i64() => {
            Json::from(text.parse::<i64>().ok().context("expected a whole number")?)
        }
        Json::Number(_) => {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            Json::from(number.context("expected a number")?)
        }
        Json::Array(items) => {
            let like = items.first().cloned().unwrap_or(Json::from(""));
            let parts = text.split(',').filter(|part| !part.is_empty());
            Json::Array(parts.map(|part| convert(part.trim(), &like)).collect::<anyhow::Result<_>>()?)
        }
        _ => Json::from(text),
    })
}

fn usage(state: &State, flags: &Flags) -> String {
    let mut text = String::new();
    let comments = state.source.lines().skip_while(|line| line.starts_with("--#!"));
    for line in comments.map_while(|line| line.strip_prefix("--")) {
        text.push_str(line.trim_start_matches('-').trim());
        text.push('\n');
    }
    text.push_str(&format!("\nUsage: lft run {} -- [FLAGS]\n\nFlags:\n", state.script.display()));
    let width = flags.keys().map(|name| name.len()).max().unwrap_or(0).max(4);
    for (name, flag) in flags {
        text.push_str(&format!("  --{name:width$}  {} [default: {}]\n", flag.about, flag.value));
    }
    text + &format!("  --{:width$}  prints this help\n", "help")
}

fn result(lua: &Lua, flags: &Flags, positional: &[String]) -> anyhow::Result<Table> {
    let table = lua.create_table()?;
    for (name, flag) in flags {
        table.set(name.as_str(), value(lua, &flag.value)?)?;
    }
    for arg in positional {
        table.push(arg.as_str())?;
    }
    Ok(table)
}

fn value(lua: &Lua, json: &Json) -> mlua::Result<Value> {
    Ok(match json {
        Json::Bool(flag) => Value::Boolean(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Integer(whole),
            None => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(items) => {
            let items = items.iter().map(|item| value(lua, item)).collect::<mlua::Result<Vec<_>>>()?;
            Value::Table(lua.create_sequence_from(items)?)
        }
        _ => Value::Nil,
    })
}
