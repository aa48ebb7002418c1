//! SQL over every run.

use std::path::Path;

use anyhow::{Result, bail};
use polars::prelude::{DataFrame, IntoLazy, PolarsResult, Schema};
use polars::sql::SQLContext;

use super::catalog::Catalog;
use super::explain::{Tables, explain};
use super::frame::Frame;
use super::union::{self, Union};
use super::{BENCHMARKS, RESULTS, TRAINING, run_table};

/// The tables that a query may name.
pub(super) const TABLES: [&str; 4] = ["results", "training", "benchmarks", "runs"];

/// What a query found.
#[derive(Debug)]
pub struct Answer {
    pub frame: Frame,
    /// What was skipped and why, one line each; to be shown beside the answer.
    pub warnings: Vec<String>,
}

/// Runs one SQL statement (Polars' dialect) over the runs in `root`.
///
/// Tables: `results`, `training` and `benchmarks` hold what the runs logged, `runs` one row a run. Each has the columns
/// `run` (the name), `run_id`, and `latest`, which is true for the newest run of that name that has rows in
/// that table. Files are read lazily: only the columns and row groups that the query needs. A broken
/// Parquet file or `run.json` is named in the warnings, skipped, and the rest is queried.
///
/// # Errors
/// When there are no runs, or the statement is wrong; an unknown table or column is named with the known ones.
pub fn query(root: &Path, sql: &str) -> Result<Answer> {
    refuse_changes(sql)?;
    let catalog = Catalog::read_some(root)?;
    let mut warnings = catalog.warnings.clone();
    let mut files: Vec<(&'static str, &str)> =
        vec![("results", RESULTS), ("training", TRAINING), ("benchmarks", BENCHMARKS)];
    // Opening a table costs one footer a run, so those that the statement cannot mean stay closed.
    files.retain(|(table, _)| mentions(sql, table) || mentions(sql, "show"));
    let mut unions: Vec<_> =
        files.iter().map(|(_, file)| Union::open(&catalog, file, &mut warnings)).collect();
    let runs = run_table::frame(&catalog)?;

    let plan = |unions: &[Union]| {
        let mut context = SQLContext::new();
        context.register("runs", runs.clone().lazy());
        for ((table, _), union) in files.iter().zip(unions) {
            context.register(table, union.table()?);
        }
        run(&mut context, sql)
    };
    let frame = union::collect(&mut unions, &mut warnings, plan).map_err(|error| {
        let opened = files.iter().zip(&unions).map(|((table, _), union)| (*table, union.schema()));
        let tables: Tables = opened.chain(mentioned_runs(sql, &runs)).collect();
        explain(&error, &tables)
    })?;
    Ok(Answer { frame: Frame::new(frame), warnings })
}

fn run(context: &mut SQLContext, sql: &str) -> PolarsResult<DataFrame> {
    match context.execute(sql)?.collect() {
        // A bare COUNT(*) over a concatenation is planned by Polars as a sum in 128 bits, a type that costs
        // minutes of build time and is not compiled in. Without pushing projections down it counts as usual.
        Err(error) if error.to_string().contains("UInt128") => {
            context.execute(sql)?.with_projection_pushdown(false).collect()
        }
        result => result,
    }
}

/// Polars would accept these and change its view of the files, which looks as if the files had changed.
fn refuse_changes(sql: &str) -> Result<()> {
    let first = sql.split_whitespace().next().unwrap_or_default().to_uppercase();
    if ["ALTER", "CREATE", "DELETE", "DROP", "INSERT", "TRUNCATE", "UPDATE"].contains(&first.as_str()) {
        bail!("a query only reads: {first} is refused, and nothing was changed");
    }
    Ok(())
}

fn mentions(sql: &str, word: &str) -> bool {
    sql.to_lowercase().contains(word)
}

fn mentioned_runs(sql: &str, runs: &DataFrame) -> Option<(&'static str, Schema)> {
    mentions(sql, "runs").then(|| ("runs", runs.schema().as_ref().clone()))
}

#[cfg(test)]
mod tests;
