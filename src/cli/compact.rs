//! `lft compact`: merge small Parquet files.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Global;
use crate::console;
use crate::results;

/// Merge the many small Parquet files of finished runs into few large ones.
///
/// Queries over many runs read those faster. Queries, reports and `lft runs` find every row as before, also while
/// this runs and when it is killed. The rows move from the run folders to `compacted/` in the runs folder, so a run's
/// folder copied elsewhere afterwards has its record and its weights, but not its rows.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lft compact")]
pub(super) struct Arguments {}

pub(super) fn execute(global: &Global) -> Result<()> {
    let root = global.runs_dir();
    for (table, file) in results::FILES {
        let bar = bar(table, global.quiet)?;
        let done = results::compact(&root, file, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (before, after) = (mib(done.bytes_before), mib(done.bytes_after));
        console::print(&match done.merged {
            0 => format!("{table}: nothing to merge\n"),
            files => {
                format!("{table}: {files} files, {before:.1} MiB -> {} files, {after:.1} MiB\n", done.parts)
            }
        })?;
    }
    Ok(())
}

fn bar(table: &str, quiet: bool) -> Result<ProgressBar> {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = "{prefix} [{bar:24}] {pos}/{len} files  {per_sec}  {eta} left";
    let bar = ProgressBar::with_draw_target(Some(0), target).with_style(ProgressStyle::with_template(style)?);
    bar.set_prefix(table.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    Ok(bar)
}
