//! SQL over every run.

use std::io::Write;
use std::path::Path;

use anyhow::{Error, Result, bail};
use polars::prelude::{DataFrame, Engine, IntoLazy, LazyFrame, OptFlags, PolarsError, Schema};
use polars::sql::SQLContext;

use super::catalog::Catalog;
use super::encode::{Encoding, encode};
use super::explain::{Tables, explain};
use super::frame::Frame;
use super::union::{self, Union};
use super::{FILES, count, run_table};

/// The tables that a query may name.
pub(super) const TABLES: [&str; 4] = ["results", "training", "benchmarks", "runs"];

/// What a query found.
#[derive(Debug)]
pub struct Answer {
    pub frame: Frame,
    /// What was skipped and why, one line each; to be shown beside the answer.
    pub warnings: Vec<String>,
    /// How many files hold the tables that were asked.
    pub files: usize,
}

/// What a query wrote.
#[derive(Debug)]
pub struct Streamed {
    /// The number of rows, unless the reader had seen enough before the end.
    pub rows: Option<usize>,
    /// As in [`Answer`].
    pub warnings: Vec<String>,
    pub files: usize,
}

/// The rows of a plan. The streaming engine takes a tenth of the memory of the other for sums over many rows.
pub(super) fn collect(rows: LazyFrame) -> Result<DataFrame> {
    Ok(rows.collect_with_engine(Engine::Streaming)?.unwrap_single())
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
    let mut warnings = vec![];
    let (frame, files) = answer(root, sql, &mut warnings, collect)?;
    Ok(Answer { frame: Frame::new(frame), warnings, files })
}

/// Runs one SQL statement as [`query`] does and writes its rows as they are found, so that a result may be larger
/// than memory. `fill` is given a function that writes everything to the writer that it is handed; it may be called
/// again when a file turns out to be broken, and then starts anew.
///
/// # Errors
/// As [`query`], and when the rows cannot be written.
pub fn stream(
    root: &Path,
    sql: &str,
    encoding: Encoding,
    mut fill: impl FnMut(&mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()>,
) -> Result<Streamed> {
    let mut warnings = vec![];
    let (rows, files) = answer(root, sql, &mut warnings, |rows| {
        let mut count = None;
        fill(&mut |writer| {
            count = Some(encode(rows.clone(), encoding, writer)?);
            Ok(())
        })?;
        Ok(count)
    })?;
    Ok(Streamed { rows, warnings, files })
}

/// Makes the tables, hands the statement's rows to `take`, and says of errors what the user can do. Returns what that
/// made of them, and how many files hold the tables.
fn answer<T>(
    root: &Path,
    sql: &str,
    warnings: &mut Vec<String>,
    mut take: impl FnMut(LazyFrame) -> Result<T>,
) -> Result<(T, usize)> {
    refuse_changes(sql)?;
    let catalog = Catalog::read_some(root)?;
    warnings.extend(catalog.warnings.iter().cloned());
    // Tables that the statement cannot mean stay closed.
    let is_meant = |(table, _): &(&str, &str)| mentions(sql, table) || mentions(sql, "show");
    let files: Vec<(&'static str, &'static str)> = FILES.into_iter().filter(is_meant).collect();
    let mut unions: Vec<_> = files.iter().map(|(_, file)| Union::open(&catalog, file, warnings)).collect();
    let runs = match mentions(sql, "runs") || mentions(sql, "show") {
        true => run_table::frame(&catalog)?,
        false => DataFrame::empty(),
    };

    let counted = count::of_table(sql);
    let shield: fn(LazyFrame) -> LazyFrame = if counts(sql) { shield_from_counting } else { |table| table };
    let plan = |unions: &[Union]| {
        let table = |name: &str| files.iter().position(|(table, _)| *table == name).map(|at| &unions[at]);
        if let Some(rows) = counted.as_ref().and_then(|counted| counted.known(table(counted.table)?)) {
            return take(rows);
        }
        let mut context = SQLContext::new();
        context.register("runs", runs.clone().lazy());
        for ((table, _), union) in files.iter().zip(unions) {
            context.register(table, shield(union.table()?));
        }
        take(context.execute(sql)?)
    };
    let taken = union::collect(&mut unions, warnings, plan).map_err(|error| {
        let opened = files.iter().zip(&unions).map(|((table, _), union)| (*table, union.schema()));
        let tables: Tables = opened.chain(mentioned_runs(sql, &runs)).collect();
        told(error, &tables)
    })?;
    Ok((taken, unions.iter().map(Union::files).sum()))
}

/// Whether the statement counts rows. Polars plans a bare COUNT(*) over a concatenation as a sum in 128 bits, a type that
/// costs minutes of build time and is not compiled in.
fn counts(sql: &str) -> bool {
    let dense: String = sql.split_whitespace().collect();
    mentions(&dense, "count(")
}

/// A step that changes nothing and that Polars cannot see through, so that rows below it are counted as usual. Filters
/// and the choice of columns still go down to the files.
fn shield_from_counting(table: LazyFrame) -> LazyFrame {
    table.map(Ok, OptFlags::default() | OptFlags::STREAMING, None, Some("rows as they are"))
}

fn told(error: Error, tables: &Tables) -> Error {
    match error.downcast_ref::<PolarsError>() {
        Some(polars) => explain(polars, tables),
        None => error,
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
