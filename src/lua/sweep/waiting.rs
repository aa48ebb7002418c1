//! `Student:train` inside a sweep: it waits for the others.

use mlua::{Function, Lua, Table};

use crate::lua::error::guard;
use crate::lua::state::State;

/// A function that trains at once, or, when the coroutine of a sweep's point calls it, yields student and options.
///
/// # Errors
/// When Lua is out of memory.
pub fn joining(lua: &Lua, train: Function) -> mlua::Result<Function> {
    let joins = lua.create_function(|lua, ()| {
        let here = lua.current_thread().to_pointer() as usize;
        Ok(State::of(lua).is_ok_and(|state| state.sweeping() == Some(here)))
    })?;
    let fail = lua.create_function(|lua, message: String| {
        guard(lua, "Student:train", || -> anyhow::Result<()> { anyhow::bail!(message) })
    })?;
    let coroutine: Table = lua.globals().get("coroutine")?;
    let (r#yield, isyieldable): (Function, Function) =
        (coroutine.get("yield")?, coroutine.get("isyieldable")?);
    let chunk = lua.load(include_str!("train.lua")).set_name("=[string \"lft\"]");
    chunk.call((train, joins, r#yield, isyieldable, fail))
}
