//! A Lua function as timed work.

use mlua::{Function, Lua};

use crate::bench::Work;

/// Calls a Lua function; garbage of earlier samples is collected outside the clock.
pub struct Scripted {
    lua: Lua,
    function: Function,
}

impl Scripted {
    /// The work of calling `function` without arguments.
    pub fn new(lua: &Lua, function: Function) -> Self {
        Self { lua: lua.clone(), function }
    }
}

impl Work for Scripted {
    fn prepare(&mut self) -> anyhow::Result<()> {
        Ok(self.lua.gc_collect()?)
    }

    fn run(&mut self) -> anyhow::Result<()> {
        Ok(self.function.call::<()>(())?)
    }
}
