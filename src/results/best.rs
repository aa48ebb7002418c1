//! The best and last values that each run logged of a metric.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use polars::prelude::*;

use super::frame::Frame;
use super::union::{self, Union};
use super::value::Value;

/// The method of rows that measure a baseline, the teacher with layers left out, and not the run's own work.
const BASELINE: &str = "skip";

/// Columns that say which row of a run it is, with what stands before their values.
const LABEL: [(&str, &str); 3] = [("method", ""), ("solver", ""), ("k", "k=")];

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
        Ok(rows.group_by([col("run_id")]).agg([len().alias("rows")]).collect()?)
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
        let metric = col(metric).cast(DataType::Float64);
        let best = if largest { metric.clone().arg_max() } else { metric.clone().arg_min() };
        let mut found =
            vec![metric.clone().get(best.clone(), true).alias("best"), metric.clone().last().alias("last")];
        found.extend(
            labels.iter().map(|(name, _)| col(*name).get(best.clone(), true).alias(format!("label {name}"))),
        );
        let measured = rows.filter(metric.clone().is_not_null().and(metric.is_not_nan()));
        Ok(measured.group_by([col("run_id")]).agg(found).collect()?)
    };
    let frame = Frame::new(union::collect(unions, warnings, plan)?);
    let metric = |at: usize| {
        let label = labels.iter().enumerate().filter_map(|(i, (_, before))| match frame.get(at, 3 + i) {
            Value::Null => None,
            value => Some(format!("{before}{value}")),
        });
        let label = label.collect::<Vec<_>>().join(" ");
        let row = if label.is_empty() { Value::Null } else { label.into() };
        Metric { best: frame.get(at, 1), row, last: frame.get(at, 2) }
    };
    Ok((0..frame.height()).map(|at| (frame.get(at, 0).to_string(), metric(at))).collect())
}
