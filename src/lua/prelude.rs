//! Lua's standard library as scripts find it: errors are strings, endings are final, `debug.traceback` is there.

use std::ops::Not;

use mlua::{Function, Lua, Value};

use super::error::{self, Ended, ScriptError};
use super::limits;
use super::show::show;

/// Adapts the standard library; the function that comes back runs a script.
///
/// # Errors
/// When Lua is out of memory.
pub fn load(lua: &Lua) -> mlua::Result<Function> {
    let plain = lua.create_function(|lua, error: Value| match error {
        Value::Error(error) => lua.create_string(ScriptError::new(&error).message).map(Value::String),
        other => Ok(other),
    })?;
    let ending = lua.create_function(|_, error: Value| {
        let ended = match &error {
            Value::Error(error) => Ended::of(error),
            Value::String(message) => limits::out_of_memory(&message.to_string_lossy()),
            _ => None,
        };
        Ok(ended.map(mlua::Error::external))
    })?;
    let exit = lua.create_function(|_, code: Value| -> mlua::Result<()> {
        let code = match code {
            Value::Nil | Value::Boolean(true) => 0,
            Value::Integer(code) => u8::try_from(code).unwrap_or(1),
            _ => 1,
        };
        Err(mlua::Error::external(Ended::Exit(code)))
    })?;
    let traced = lua.create_function(|lua, error: Value| {
        let message = match &error {
            // Errors of bindings carry their traceback with them.
            Value::Error(_) => return Ok(error),
            Value::String(message) => message.to_string_lossy(),
            Value::Integer(_) | Value::Number(_) => show(&error),
            object => format!("error object {}", show(object)),
        };
        lua.traceback(Some(&message), 1).map(Value::String)
    })?;
    let chunk = lua.load(include_str!("prelude.lua")).set_name("=[string \"lft\"]");
    chunk.call((plain, ending, exit, traced, traceback(lua)?))
}

/// `debug.traceback`, which is all that scripts have of that library: the rest of it undoes what Lua promises.
fn traceback(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, (message, level): (Value, Option<usize>)| match message {
        Value::Nil | Value::String(_) | Value::Integer(_) | Value::Number(_) => {
            let frames = error::frames(&lua.traceback(None, level.unwrap_or(1))?.to_string_lossy());
            let message = message.is_nil().not().then(|| message.to_string()).transpose()?;
            let text = message.map_or(frames.clone(), |message| format!("{message}\n{frames}"));
            lua.create_string(text).map(Value::String)
        }
        other => Ok(other),
    })
}
