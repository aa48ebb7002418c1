//! `lft run`: run a Lua script.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::Global;
use super::limits;
use super::watch;
use crate::bench::Baselines;

/// Run a Lua script.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lft run scripts/ablate_steps.lua --seed 7 -- --steps 500
  lft run scripts/ablate_steps.lua --watch
  lft run scripts/bench_solvers.lua --save-baseline main
  lft run scripts/bench_solvers.lua --baseline main --tolerance 10
  lft run --sandbox stranger.lua
  lft run --sandbox --memory-limit 2GiB --time-limit 10m stranger.lua")]
pub(super) struct Arguments {
    /// The script.
    script: PathBuf,
    /// Serve a page on 127.0.0.1 that shows the run while it goes on.
    #[arg(long)]
    watch: bool,
    /// Hold the script's benchmarks against this saved baseline; slower ones end the program with exit code 3.
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Save the script's benchmarks as this baseline.
    #[arg(long, value_name = "NAME")]
    save_baseline: Option<String>,
    /// How much slower than the baseline a benchmark may be, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, requires = "baseline", value_parser = percent)]
    tolerance: f64,
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
    let Arguments {
        script,
        watch,
        baseline,
        save_baseline,
        tolerance,
        sandbox,
        memory_limit,
        time_limit,
        arguments,
    } = arguments;
    let mut options = global.host_options(arguments)?;
    options.baselines = Baselines { against: baseline, save: save_baseline, tolerance: tolerance / 100.0 };
    options.sandbox = sandbox;
    options.limits = limits::of(sandbox, memory_limit, time_limit);
    watch::during(global, watch, || crate::lua::run_script(&script, &options))
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent >= 0.0 && percent.is_finite() => Ok(percent),
        _ => Err("not a number of at least 0".to_owned()),
    }
}
