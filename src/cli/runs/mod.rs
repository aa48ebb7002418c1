//! `lft runs`: the list of runs, and what is done with them.

mod diff;
mod gc;
mod list;
mod rm;

use anyhow::Result;
use clap::ValueEnum;

use super::Global;
use crate::results::{Filter, Status};

/// List the runs, newest first; compare and remove them.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  lft runs
  lft runs --name ablate --status finished --sort kl_best
  lft runs --metric nmse --format json
  lft runs diff ablate_steps my-pythia
  lft runs rm ablate_steps-20260101-120000-1a2b
  lft runs gc --older-than 7d"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: list::Arguments,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Diff(diff::Arguments),
    Rm(rm::Arguments),
    Gc(gc::Arguments),
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    match arguments.action {
        None => list::execute(global, arguments.list),
        Some(Action::Diff(arguments)) => diff::execute(global, &arguments),
        Some(Action::Rm(arguments)) => rm::execute(global, &arguments),
        Some(Action::Gc(arguments)) => gc::execute(global, &arguments),
    }
}

/// Which runs.
#[derive(Debug, clap::Args)]
struct Which {
    /// Part of the name.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// A tag that the run has; given several times, all of them.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// How the run stands; given several times, any of them.
    #[arg(long = "status", value_enum, value_name = "STATUS")]
    statuses: Vec<Standing>,
}

/// [`Status`] as a word of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Standing {
    Running,
    Finished,
    Failed,
    Interrupted,
}

impl Which {
    fn filter(&self) -> Filter {
        let status = |standing: &Standing| match standing {
            Standing::Running => Status::Running,
            Standing::Finished => Status::Finished,
            Standing::Failed => Status::Failed,
            Standing::Interrupted => Status::Interrupted,
        };
        Filter {
            name: self.name.clone(),
            tags: self.tags.clone(),
            statuses: self.statuses.iter().map(status).collect(),
        }
    }
}

fn count(runs: usize) -> String {
    if runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") }
}
