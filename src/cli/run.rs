//! `lft run`: run a Lua script.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::Global;
use super::limits;

/// Run a Lua script.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lft run scripts/ablate_steps.lua --seed 7 -- --steps 500
  lft run --sandbox stranger.lua
  lft run --sandbox --memory-limit 2GiB --time-limit 10m stranger.lua")]
pub(super) struct Arguments {
    /// The script.
    script: PathBuf,
    /// Keep the script within the working folder and the folder of the runs: no other programs, no network, no
    /// compiled code.
    #[arg(long)]
    sandbox: bool,
    /// End the script when its memory exceeds this, for example 512MiB or 4GB [default: none; in the sandbox half
    /// of the machine's].
    #[arg(long, value_name = "SIZE", value_parser = limits::size)]
    memory_limit: Option<usize>,
    /// End the script after this long, for example 90s, 10m or 2h [default: none; in the sandbox 1h].
    #[arg(long, value_name = "DURATION", value_parser = limits::duration)]
    time_limit: Option<Duration>,
    /// Arguments for the script, after `--`.
    #[arg(last = true, value_name = "ARGS")]
    pub(super) arguments: Vec<String>,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let Arguments { script, sandbox, memory_limit, time_limit, arguments } = arguments;
    let mut options = global.host_options(arguments)?;
    options.sandbox = sandbox;
    options.limits = limits::of(sandbox, memory_limit, time_limit);
    crate::lua::run_script(&script, &options)
}
