//! `lft query`: SQL over every run.

use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::HumanCount;

use super::{Global, output};

/// From when on a query is slow, and how many files are a reason for that.
const SLOW: Duration = Duration::from_secs(2);
const MANY: usize = 1000;

/// Query the results of every run with SQL.
///
/// Tables: `results` (rows that scripts logged), `training` (their curves), `benchmarks` (their timings),
/// `runs` (one row a run). Each has the columns `run` (its name), `run_id`, and `latest` (true for the newest
/// run of that name).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lft query \"SELECT method, k, kl FROM results WHERE run = 'ablate_steps' AND latest ORDER BY kl\"
  lft query \"SELECT method, min(kl) AS kl FROM results GROUP BY method\" --format markdown
  lft query \"SELECT * FROM training\" --output curves.parquet
  lft query \"SELECT run, status, option_steps FROM runs WHERE tags LIKE '%seed%'\"")]
pub(super) struct Arguments {
    /// The statement, in Polars' dialect of SQL.
    sql: String,
    #[command(flatten)]
    output: output::Arguments,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let format = arguments.output.check()?;
    let begun = Instant::now();
    let done = arguments.output.query(&global.runs_dir(), &arguments.sql, format, global.quiet)?;
    if done.rows == Some(0) {
        global.note("no rows");
    }
    if begun.elapsed() >= SLOW && done.files >= MANY {
        let files = HumanCount(done.files as u64);
        global.note(&format!(
            "these tables lie in {files} files: `lft compact` merges them, which makes this faster"
        ));
    }
    Ok(())
}
