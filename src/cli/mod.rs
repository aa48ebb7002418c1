//! The command line: one file a subcommand.
//!
//! Tables and other results go to standard output; progress, notes, warnings and errors to standard error.

mod ask;
mod bench;
mod compact;
mod data;
mod export;
mod failure;
mod info;
mod limits;
mod output;
mod query;
mod repl;
mod report;
mod run;
mod runs;
mod types;
mod watch;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::console;
use crate::device::DeviceChoice;

pub use failure::{catch, report_panics_in_one_line};

const VERSION: &str = if cfg!(feature = "cuda") {
    concat!(env!("CARGO_PKG_VERSION"), " (cuda)")
} else if cfg!(feature = "metal") {
    concat!(env!("CARGO_PKG_VERSION"), " (metal)")
} else {
    concat!(env!("CARGO_PKG_VERSION"), " (cpu only)")
};

const EXAMPLES: &str = "\
Examples:
  lft run scripts/ablate_steps.lua
  lft run scripts/ablate_steps.lua --seed 7 --device cpu -- --steps 500
  lft query \"SELECT method, k, kl FROM results WHERE run = 'ablate_steps' ORDER BY kl LIMIT 5\"
  lft runs --sort kl_best
  lft report --runs ablate_steps --output report.html
  lft watch
  lft info data/teacher
  lft bench roofline
  lft types .
  lft data prepare corpus.txt --tokenizer data/teacher --output tokens

Exit codes: 0 success, 1 error, 2 wrong usage, 3 a benchmark became slower than its baseline,\n70 internal error, 124 time limit, 125 memory limit, 130 interrupted; a script may set its own with os.exit.";

/// A laboratory for the Latent Flow Transformer: replace a block of a language model's layers by one
/// learned flow, scripted in Lua.
#[derive(Debug, Parser)]
#[command(name = "lft", version = VERSION, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every subcommand takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where tensors live: auto, cpu, cuda, cuda:N or metal.
    #[arg(long, global = true, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// Seed of everything random.
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// No progress and no notes; errors and warnings still show.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Folder with the runs [default: $LFT_RUNS, else `runs`].
    #[arg(long, global = true, value_name = "DIR")]
    runs_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Repl(repl::Arguments),
    Query(query::Arguments),
    Report(report::Arguments),
    Runs(runs::Arguments),
    Compact(compact::Arguments),
    Export(export::Arguments),
    Info(info::Arguments),
    Bench(bench::Arguments),
    Types(types::Arguments),
    Data(data::Arguments),
    Watch(watch::Arguments),
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// Whatever the subcommand reports, to be shown to the user.
    pub fn execute(self) -> Result<()> {
        let global = &self.global;
        match self.command {
            Command::Run(arguments) => run::execute(global, arguments),
            Command::Repl(_) => repl::execute(global),
            Command::Query(arguments) => query::execute(global, arguments),
            Command::Report(arguments) => report::execute(global, arguments),
            Command::Runs(arguments) => runs::execute(global, arguments),
            Command::Compact(_) => compact::execute(global),
            Command::Export(arguments) => export::execute(global, &arguments),
            Command::Info(arguments) => info::execute(global, arguments),
            Command::Bench(arguments) => bench::execute(global, arguments),
            Command::Types(arguments) => types::execute(global, arguments),
            Command::Data(arguments) => data::execute(global, arguments),
            Command::Watch(arguments) => watch::execute(global, arguments),
        }
    }
}

impl Global {
    fn runs_dir(&self) -> PathBuf {
        let from_environment = || std::env::var_os("LFT_RUNS").filter(|v| !v.is_empty()).map(PathBuf::from);
        self.runs_dir.clone().or_else(from_environment).unwrap_or_else(|| PathBuf::from("runs"))
    }

    fn note(&self, line: &str) {
        if !self.quiet {
            console::note(line);
        }
    }

    /// What a script runs under.
    fn host_options(&self, args: Vec<String>) -> Result<crate::lua::HostOptions> {
        Ok(crate::lua::HostOptions {
            device: self.device.open(|line| self.note(line))?,
            seed: self.seed,
            quiet: self.quiet,
            runs_dir: self.runs_dir(),
            args,
            ..crate::lua::HostOptions::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn script_arguments_follow_two_dashes() {
        let cli = Cli::try_parse_from(["lft", "run", "a.lua", "--seed", "7", "--", "--steps", "5"]).unwrap();
        assert_eq!(cli.global.seed, 7);
        let Command::Run(run) = cli.command else { panic!("run expected") };
        assert_eq!(run.arguments, ["--steps", "5"]);
        assert!(Cli::try_parse_from(["lft", "run", "a.lua", "--steps", "5"]).is_err());
    }
}
