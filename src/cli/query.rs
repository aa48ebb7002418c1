//! `lft query`: SQL over every run.

use anyhow::Result;

use super::{Global, output};

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
    if arguments.output.query(&global.runs_dir(), &arguments.sql, format)? == Some(0) {
        global.note("no rows");
    }
    Ok(())
}
