//! `lft repl`: Lua line by line.

use anyhow::Result;

use super::Global;

/// Try Lua line by line, with `lft` loaded.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn execute(global: &Global) -> Result<()> {
    crate::lua::repl(&global.host_options(vec![])?)
}
