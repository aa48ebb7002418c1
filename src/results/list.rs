//! The list of runs that `lft runs` prints.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use polars::prelude::*;

use super::RESULTS;
use super::catalog::Catalog;
use super::frame::Frame;
use super::query::Answer;
use super::table::Table;
use super::union::{self, Union};
use super::value::{Row, Value};

/// The metric whose best (smallest) and last values stand in the list.
const METRIC: &str = "kl";

/// One row a run, newest first: `run`, `status`, `rows`, `start`, `seconds`, the best and the last value
/// of `kl` where the run logged one, `tags`, `run_id`. A folder without runs gives no rows.
///
/// # Errors
/// When the runs folder cannot be listed.
pub fn list(root: &Path) -> Result<Answer> {
    let catalog = Catalog::read(root)?;
    let mut warnings = catalog.warnings.clone();
    let metric = best_and_last(&catalog, &mut warnings)?;
    let mut table = Table::default();
    for entry in catalog.entries.iter().rev() {
        let record = &entry.record;
        let (best, last) = metric.get(&record.id).cloned().unwrap_or_default();
        let row: [(&str, Value); 9] = [
            ("run", record.name.as_str().into()),
            ("status", record.status.as_str().into()),
            ("rows", record.results_rows.into()),
            ("start", record.start.as_str().into()),
            ("seconds", record.seconds().into()),
            ("kl_best", best),
            ("kl_last", last),
            ("tags", record.tags.join(",").into()),
            ("run_id", record.id.as_str().into()),
        ];
        table.push(row.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Row>())?;
    }
    Ok(Answer { frame: Frame::new(table.to_polars(&[])?), warnings })
}

fn best_and_last(catalog: &Catalog, warnings: &mut Vec<String>) -> Result<HashMap<String, (Value, Value)>> {
    let mut unions = [Union::open(catalog, RESULTS, warnings)];
    if !unions[0].schema().get(METRIC).is_some_and(DataType::is_primitive_numeric) {
        return Ok(HashMap::new());
    }
    let plan = |unions: &[Union]| {
        let metric = col(METRIC);
        unions[0]
            .table()?
            .filter(metric.clone().is_not_null())
            .group_by([col("run_id")])
            .agg([metric.clone().min().alias("best"), metric.last().alias("last")])
            .collect()
    };
    let frame = Frame::new(union::collect(&mut unions, warnings, plan)?);
    let row = |i| (frame.get(i, 0).to_string(), (frame.get(i, 1), frame.get(i, 2)));
    Ok((0..frame.height()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Run, RunInfo, Status};

    fn run(root: &Path, name: &str, kl: &[f64]) {
        let info = RunInfo { name: name.to_owned(), ..RunInfo::default() };
        let mut run = Run::create(root, info).unwrap();
        for &value in kl {
            run.log(vec![(METRIC.to_owned(), value.into())]).unwrap();
        }
        run.finish(Status::Finished).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }

    #[test]
    fn newest_first_with_best_and_last() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "first", &[0.5, 0.2, 0.3]);
        run(root.path(), "second", &[]);
        let frame = list(root.path()).unwrap().frame;
        assert_eq!(frame.column("run").unwrap(), ["second".into(), Value::from("first")]);
        assert_eq!(frame.column("rows").unwrap(), [0i64.into(), Value::from(3i64)]);
        assert_eq!(frame.column("kl_best").unwrap(), [Value::Null, 0.2.into()]);
        assert_eq!(frame.column("kl_last").unwrap(), [Value::Null, 0.3.into()]);
    }

    #[test]
    fn nothing_to_list_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(list(root.path()).unwrap().frame.height(), 0);
        run(root.path(), "a", &[]);
        assert_eq!(list(root.path()).unwrap().frame.height(), 1);
    }
}
