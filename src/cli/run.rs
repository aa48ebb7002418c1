//! `lft run`: run a Lua script.

use std::path::PathBuf;

use anyhow::Result;

use super::Global;

/// Run a Lua script.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lft run scripts/ablate_steps.lua --seed 7 -- --steps 500")]
pub(super) struct Arguments {
    /// The script.
    script: PathBuf,
    /// Arguments for the script, after `--`.
    #[arg(last = true, value_name = "ARGS")]
    pub(super) arguments: Vec<String>,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    crate::lua::run_script(&arguments.script, &global.host_options(arguments.arguments)?)
}
