//! The list of runs that `lft runs` prints.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};

use super::RESULTS;
use super::best::{Metric, metrics, runs_with_method};
use super::catalog::Catalog;
use super::frame::Frame;
use super::query::Answer;
use super::record::RunRecord;
use super::select::Filter;
use super::table::Table;
use super::union::Union;
use super::value::{Row, Value};
use crate::nearest::nearest;

/// What to list and how.
#[derive(Clone, Debug)]
pub struct Listing {
    pub filter: Filter,
    /// A method of which the run must have logged rows.
    pub method: Option<String>,
    /// The column of `results` whose best and last values are listed.
    pub metric: String,
    /// Whether the largest value is the best; otherwise the smallest.
    pub largest: bool,
    /// Column to sort by; newest first without it.
    pub sort: Option<String>,
    /// Turns the order round.
    pub reverse: bool,
    /// At most so many runs.
    pub limit: Option<usize>,
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            method: None,
            metric: "kl".to_owned(),
            largest: false,
            sort: None,
            reverse: false,
            limit: None,
        }
    }
}

/// One row a run: `run`, `status`, `rows`, `start`, `seconds`, the best value of the metric with the row that
/// has it and the last value, `tags`, `run_id`. Rows of the method `skip` are baselines and never count as a
/// run's own best. A folder without runs gives no rows.
///
/// # Errors
/// When the runs folder cannot be listed, or the column to sort by is none of these.
pub fn list(root: &Path, listing: &Listing) -> Result<Answer> {
    let mut catalog = Catalog::read(root)?;
    let mut warnings = std::mem::take(&mut catalog.warnings);
    catalog.entries.retain(|entry| listing.filter.keeps(entry));
    let mut unions = [Union::open(&catalog, RESULTS, &mut warnings)];
    if let Some(method) = &listing.method {
        let with = runs_with_method(&mut unions, &mut warnings, method)?;
        catalog.entries.retain(|entry| with.contains(&entry.record.id));
        unions = [Union::open(&catalog, RESULTS, &mut vec![])];
    }
    let metrics = metrics(&mut unions, &mut warnings, &listing.metric, listing.largest)?;
    let mut rows: Vec<Row> =
        catalog.entries.iter().rev().map(|entry| row(&entry.record, &listing.metric, &metrics)).collect();
    if let Some(column) = &listing.sort {
        sort(&mut rows, column)?;
    }
    if listing.reverse {
        rows.reverse();
    }
    rows.truncate(listing.limit.unwrap_or(usize::MAX));
    let mut table = Table::default();
    for row in rows {
        table.push(row)?;
    }
    Ok(Answer { frame: Frame::new(table.to_polars(&[])?), warnings, files: unions[0].files() })
}

fn row(record: &RunRecord, metric: &str, metrics: &HashMap<String, Metric>) -> Row {
    let measured = metrics.get(&record.id).cloned().unwrap_or_default();
    let cells: [(&str, Value); 10] = [
        ("run", record.name.as_str().into()),
        ("status", record.status.as_str().into()),
        ("rows", record.results_rows.into()),
        ("start", record.start.as_str().into()),
        ("seconds", record.seconds().into()),
        (&format!("{metric}_best"), measured.best),
        ("best_row", measured.row),
        (&format!("{metric}_last"), measured.last),
        ("tags", record.tags.join(",").into()),
        ("run_id", record.id.as_str().into()),
    ];
    cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Sorts by a column: numbers, then texts, each ascending, and at last the rows without a value.
fn sort(rows: &mut [Row], column: &str) -> Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let Some(at) = first.iter().position(|(name, _)| name == column) else {
        let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
        let hint = nearest(column, names.iter().copied())
            .map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
        bail!("no column `{column}` to sort by{hint}; columns: {}", names.join(", "));
    };
    rows.sort_by(|a, b| order(&a[at].1, &b[at].1));
    Ok(())
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.is_null().cmp(&b.is_null()).then_with(|| a.to_string().cmp(&b.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Run, RunInfo, Status};

    fn run(root: &Path, name: &str, rows: Vec<Row>) {
        let info = RunInfo { name: name.to_owned(), ..RunInfo::default() };
        let mut run = Run::create(root, info).unwrap();
        for row in rows {
            run.log(row).unwrap();
        }
        run.finish(Status::Finished).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }

    fn kl(method: &str, k: i64, kl: f64) -> Row {
        vec![("method".into(), method.into()), ("k".into(), k.into()), ("kl".into(), kl.into())]
    }

    fn listed(root: &Path, listing: &Listing) -> Frame {
        list(root, listing).unwrap().frame
    }

    #[test]
    fn newest_first_with_best_and_last_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let rows = vec![
            kl("fm", 1, 0.5),
            kl("fw", 3, 0.2),
            kl("fw", 8, f64::NAN),
            kl("fm", 8, 0.3),
            kl("skip", 1, 0.1),
        ];
        run(root.path(), "first", rows);
        run(root.path(), "second", vec![kl("skip", 1, 0.1)]);
        let frame = listed(root.path(), &Listing::default());
        assert_eq!(frame.column("run").unwrap(), ["second".into(), Value::from("first")]);
        assert_eq!(frame.column("rows").unwrap(), [1i64.into(), Value::from(5i64)]);
        assert_eq!(frame.column("kl_best").unwrap(), [Value::Null, 0.2.into()]);
        assert_eq!(frame.column("best_row").unwrap(), [Value::Null, "fw k=3".into()]);
        assert_eq!(frame.column("kl_last").unwrap(), [Value::Null, 0.3.into()]);

        let largest = Listing { metric: "k".to_owned(), largest: true, ..Listing::default() };
        assert_eq!(listed(root.path(), &largest).column("k_best").unwrap(), [Value::Null, 8.0.into()]);
    }

    #[test]
    fn filtered_sorted_and_cut() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "a", vec![kl("fm", 1, 0.5)]);
        run(root.path(), "b", vec![kl("fw", 1, 0.1), kl("fm", 1, 0.7)]);
        run(root.path(), "c", vec![]);
        let names = |listing: &Listing| -> Vec<String> {
            let names = listed(root.path(), listing).column("run").unwrap_or_default();
            names.iter().map(Value::to_string).collect()
        };
        let by = |column: &str| Listing { sort: Some(column.to_owned()), ..Listing::default() };
        assert_eq!(names(&by("kl_best")), ["b", "a", "c"]);
        assert_eq!(names(&by("run")), ["a", "b", "c"]);
        assert_eq!(names(&Listing { reverse: true, limit: Some(2), ..Listing::default() }), ["a", "b"]);
        assert_eq!(names(&Listing { method: Some("fw".into()), ..Listing::default() }), ["b"]);
        assert_eq!(names(&Listing { method: Some("none".into()), ..Listing::default() }), [""; 0]);
        let error = list(root.path(), &by("kl_bst")).unwrap_err().to_string();
        assert!(error.starts_with("no column `kl_bst` to sort by (did you mean `kl_best`?)"), "{error}");
    }

    #[test]
    fn nothing_to_list_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(listed(root.path(), &Listing::default()).height(), 0);
        run(root.path(), "a", vec![]);
        assert_eq!(listed(root.path(), &Listing::default()).height(), 1);
    }
}
