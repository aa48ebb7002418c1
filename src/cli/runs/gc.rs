//! `lft runs gc`: remove what is of no use any more.

use std::time::Duration;

use anyhow::{Result, bail};

use super::Global;
use crate::cli::{ask, output};
use crate::console;
use crate::results::{self, Catalog, Entry};

/// Remove runs that ended badly or hold nothing, after showing them and asking.
///
/// Candidates are failed and interrupted runs, and finished ones without rows or files, that began before the
/// given time; temporary files that killed programs left more than an hour ago; and remembered rows of files that have gone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lft runs gc\n  lft runs gc --older-than 7d --yes")]
pub(super) struct Arguments {
    /// Only runs that began longer ago than this, such as 90m, 12h, 7d or 2w.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = age)]
    older_than: Duration,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn execute(global: &Global, arguments: &Arguments) -> Result<()> {
    let root = global.runs_dir();
    let catalog = Catalog::read(&root)?;
    output::warn(&catalog.warnings);
    let garbage = results::garbage(&catalog, &root, arguments.older_than)?;
    if garbage.runs.is_empty() && garbage.leftovers.is_empty() {
        global.note("nothing to remove");
        return Ok(());
    }
    let mut bytes = 0;
    for (entry, why) in &garbage.runs {
        let size = results::size(&entry.folder)?;
        bytes += size;
        console::print(&format!("{}  {why}  {} KiB\n", entry.record.id, size.div_ceil(1024)))?;
    }
    for (path, why) in &garbage.leftovers {
        console::print(&format!("{}  {why}\n", path.display()))?;
    }
    let runs = super::count(garbage.runs.len());
    let what =
        format!("{runs} ({} KiB) and {} leftover files", bytes.div_ceil(1024), garbage.leftovers.len());
    if ask::agrees(arguments.yes, &format!("Remove {what} for good?"))? {
        let entries: Vec<&Entry> = garbage.runs.iter().map(|(entry, _)| *entry).collect();
        results::remove(&entries)?;
        results::remove_leftovers(&garbage.leftovers)?;
        global.note(&format!("removed {what}"));
    } else {
        global.note("nothing was removed");
    }
    Ok(())
}

fn age(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => bail!("write a number and one of s, m, h, d, w, such as 12h or 7d"),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => bail!("write a number and one of s, m, h, d, w, such as 12h or 7d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_a_number_and_a_unit() {
        assert_eq!(age("90m").unwrap(), Duration::from_secs(5400));
        assert_eq!(age("2w").unwrap(), Duration::from_secs(14 * 86_400));
        assert_eq!(age("0s").unwrap(), Duration::ZERO);
        for wrong in ["", "7", "d", "7y", "-1d", "1.5h", "99999999999999999999d"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
