//! `lft runs rm`: remove runs.

use anyhow::{Result, bail};

use super::{Global, Which};
use crate::cli::ask;
use crate::cli::failure::UsageError;
use crate::console;
use crate::results::{self, Catalog, Entry};

/// Remove runs for good, after asking.
///
/// With filters only what fits all of them is removed. A run that is still running is never removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lft runs rm ablate_steps-20260101-120000-1a2b
  lft runs rm my-pythia
  lft runs rm --tag scratch --status failed --yes")]
pub(super) struct Arguments {
    /// Ids of runs, or names, which mean every run of that name.
    runs: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn execute(global: &Global, arguments: &Arguments) -> Result<()> {
    let filter = arguments.which.filter();
    if arguments.runs.is_empty() && filter.is_empty() {
        bail!(UsageError("which runs? Name them, or give --name, --tag or --status"));
    }
    let catalog = Catalog::read_some(&global.runs_dir())?;
    let mut chosen: Vec<&Entry> = match arguments.runs.is_empty() {
        true => catalog.entries.iter().collect(),
        false => {
            let found: Vec<_> =
                arguments.runs.iter().map(|name| catalog.all_of(name)).collect::<Result<_>>()?;
            found.into_iter().flatten().collect()
        }
    };
    chosen.retain(|entry| filter.keeps(entry));
    chosen.sort_by(|a, b| a.folder.cmp(&b.folder));
    chosen.dedup_by(|a, b| a.folder == b.folder);
    if chosen.is_empty() {
        global.note("no such runs");
        return Ok(());
    }
    for entry in &chosen {
        console::print(&format!("{}  {}\n", entry.record.id, entry.record.status.as_str()))?;
    }
    let count = super::count(chosen.len());
    if ask::agrees(arguments.yes, &format!("Remove {count} for good?"))? {
        results::remove(&chosen)?;
        global.note(&format!("removed {count}"));
    } else {
        global.note("nothing was removed");
    }
    Ok(())
}
