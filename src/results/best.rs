//! The best and last values that each run logged of a metric.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use polars::prelude::*;

use super::frame::Frame;
use super::query::collect;
use super::union::{self, Union};
use super::value::Value;

/// The method of rows that measure a baseline, the teacher with layers left out, and not the run's own work.
const BASELINE: &str = "skip";

/// Columns that say which row of a run it is, with what stands before their values.
const LABEL: [(&str, &str); 3] = [("method", ""), ("solver", ""), ("k", "k=")];

/// The metric among the columns that are looked at, whatever its name is.
const VALUE: &str = "the metric";

/// What a run logged of the metric, rows of skip baselines left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Metric {
    pub best: Value,
    /// Which row the best value stands in, such as `fm dopri5 k=8`.
    pub row: Value,
    pub last: Value,
}

/// Ids of the runs that logged rows of a method.
pub(super) fn runs_with_method(
    unions: &mut [Union],
    warnings: &mut Vec<String>,
    method: &str,
) -> Result<HashSet<String>> {
    if unions[0].schema().get("method") != Some(&DataType::String) {
        return Ok(HashSet::new());
    }
    let plan = |unions: &[Union]| {
        let rows = unions[0].table()?.filter(col("method").eq(lit(method)));
        collect(rows.group_by([col("run_id")]).agg([len().alias("rows")]))
    };
    let frame = Frame::new(union::collect(unions, warnings, plan)?);
    Ok((0..frame.height()).map(|at| frame.get(at, 0).to_string()).collect())
}

/// The metric of every run that logged it in a row of its own, by the run's id. The best value is the smallest or the
/// `largest` one.
pub(super) fn metrics(
    unions: &mut [Union],
    warnings: &mut Vec<String>,
    metric: &str,
    largest: bool,
) -> Result<HashMap<String, Metric>> {
    let schema = unions[0].schema();
    if !schema.get(metric).is_some_and(DataType::is_primitive_numeric) {
        return Ok(HashMap::new());
    }
    let text = |name: &str| schema.get(name) == Some(&DataType::String);
    let labels: Vec<_> = LABEL.into_iter().filter(|(name, _)| schema.contains(name)).collect();
    let plan = |unions: &[Union]| {
        let mut rows = unions[0].table()?;
        if text("method") {
            let method = col("method");
            rows = rows.filter(method.clone().is_null().or(method.neq(lit(BASELINE))));
        }
        let mut columns = vec![col("run_id"), col(metric).cast(DataType::Float64).alias(VALUE)];
        columns.extend(labels.iter().map(|(name, _)| col(*name).alias(format!("label {name}"))));
        let measured = col(VALUE).is_not_null().and(col(VALUE).is_not_nan());
        collect(rows.select(columns).filter(measured))
    };
    let frame = Frame::new(union::collect(unions, warnings, plan)?);
    let better = |new: f64, old: f64| if largest { new > old } else { new < old };
    let mut found: HashMap<String, Found> = HashMap::new();
    for at in 0..frame.height() {
        let value = frame.get(at, 1).as_f64().unwrap_or(f64::NAN);
        let run = found.entry(frame.get(at, 0).to_string()).or_insert(Found { best: value, at, last: value });
        run.last = value;
        if better(value, run.best) {
            (run.best, run.at) = (value, at);
        }
    }
    let label = |at: usize| -> Value {
        let cells = labels.iter().enumerate().filter_map(|(i, (_, before))| match frame.get(at, 2 + i) {
            Value::Null => None,
            value => Some(format!("{before}{value}")),
        });
        let label = cells.collect::<Vec<_>>().join(" ");
        if label.is_empty() { Value::Null } else { label.into() }
    };
    let metric =
        |found: Found| Metric { best: found.best.into(), row: label(found.at), last: found.last.into() };
    Ok(found.into_iter().map(|(run, found)| (run, metric(found))).collect())
}

/// What was met so far of one run.
struct Found {
    best: f64,
    /// The row of the best value.
    at: usize,
    last: f64,
}
