//! What two runs differ in: options, environment, script, measured values.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use similar::TextDiff;

use super::catalog::{Catalog, Entry};
use super::frame::Frame;
use super::record::RunRecord;
use super::select::Prefer;
use super::table::Table;
use super::union::{self, Union};
use super::value::{Row, Value};
use super::{RESERVED, RESULTS};
use crate::nearest::nearest;

/// Lines around each change of a script.
const CONTEXT: usize = 3;
/// Metrics that are compared unless others are named, those of them that both runs have.
const METRICS: [&str; 3] = ["kl", "nmse", "ppl"];
/// Integers that say what was tried; other integers, such as `nfe`, are outcomes.
const TRIED: [&str; 2] = ["k", "seed"];

/// Two runs side by side. Tables hold what differs only, with the columns `a` and `b`.
#[derive(Debug)]
pub struct Diff {
    pub a: RunRecord,
    pub b: RunRecord,
    /// Options, arguments and seed that differ: `option`, `a`, `b`.
    pub options: Frame,
    /// Versions, revision, device and machine that differ: `environment`, `a`, `b`.
    pub environment: Frame,
    /// The change from the script of `a` to that of `b` as a unified diff; empty when they are equal.
    pub code: String,
    /// For each way that both runs measured (equal texts, booleans and `k`), each metric `m` as `m a`, `m b` and
    /// `m b/a`; means where a run measured it several times.
    pub metrics: Frame,
    /// Ways that only one of the runs measured.
    pub unmatched: (usize, usize),
    pub warnings: Vec<String>,
}

/// Compares two runs, each named as in [`Catalog::find`]. `metrics` are columns of `results`; without any,
/// those of `kl`, `nmse` and `ppl` that both runs have.
///
/// # Errors
/// When a run is unknown, its rows cannot be read, or a metric is no number that both runs logged.
pub fn diff(root: &Path, a: &str, b: &str, metrics: &[String]) -> Result<Diff> {
    let catalog = Catalog::read_some(root)?;
    let (a, b) = (catalog.find(a, Prefer::Finished)?.clone(), catalog.find(b, Prefer::Finished)?.clone());
    let mut warnings = vec![];
    let (rows_a, rows_b) = (rows(root, &a, &mut warnings)?, rows(root, &b, &mut warnings)?);
    let metrics = chosen(&rows_a, &rows_b, metrics)?;
    let (compared, unmatched) = compare(&rows_a, &rows_b, &metrics)?;
    Ok(Diff {
        options: changes("option", &options(&a.record), &options(&b.record))?,
        environment: changes("environment", &environment(&a.record), &environment(&b.record))?,
        code: code(&a.record, &b.record),
        metrics: compared,
        unmatched,
        warnings,
        a: a.record,
        b: b.record,
    })
}

fn rows(root: &Path, entry: &Entry, warnings: &mut Vec<String>) -> Result<Frame> {
    let catalog = Catalog { root: root.to_owned(), entries: vec![entry.clone()], warnings: vec![] };
    let mut unions = [Union::open(&catalog, RESULTS, warnings)];
    let frame = union::collect(&mut unions, warnings, |unions| Ok(unions[0].table()?.collect()?))?;
    Ok(Frame::new(frame))
}

fn options(record: &RunRecord) -> BTreeMap<String, Value> {
    let mut options: BTreeMap<String, Value> =
        record.options.iter().map(|(name, value)| (name.clone(), value.into())).collect();
    options.insert("--seed".to_owned(), record.seed.into());
    options.insert("arguments".to_owned(), record.arguments.join(" ").into());
    options.insert("script".to_owned(), record.script.as_deref().into());
    options.insert("tags".to_owned(), record.tags.join(",").into());
    options
}

fn environment(record: &RunRecord) -> BTreeMap<String, Value> {
    let mut environment: BTreeMap<String, Value> =
        record.versions.iter().map(|(name, version)| (name.clone(), version.as_str().into())).collect();
    let host = &record.host;
    let facts: [(&str, Value); 8] = [
        ("device", record.device.as_str().into()),
        ("revision", record.git.as_ref().map(|git| git.revision.as_str()).into()),
        ("dirty", record.git.as_ref().map(|git| git.dirty).into()),
        ("hostname", host.hostname.as_str().into()),
        ("os", host.os.as_str().into()),
        ("cpu", host.cpu.as_str().into()),
        ("cores", host.cores.into()),
        ("memory_bytes", host.memory_bytes.into()),
    ];
    environment.extend(facts.map(|(name, value)| (name.to_owned(), value)));
    environment
}

/// The names whose values differ.
fn changes(title: &str, a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) -> Result<Frame> {
    let mut table = Table::default();
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for name in names {
        let (a, b) = (a.get(name), b.get(name));
        if a != b {
            let text = |value: Option<&Value>| value.map_or(Value::Null, |value| value.to_string().into());
            table.push(cells([(title, name.as_str().into()), ("a", text(a)), ("b", text(b))]))?;
        }
    }
    Ok(Frame::new(table.to_polars(&[])?))
}

fn code(a: &RunRecord, b: &RunRecord) -> String {
    let text = |record: &RunRecord| record.script_text.clone().unwrap_or_default();
    let (old, new) = (text(a), text(b));
    let diff = TextDiff::from_lines(&old, &new);
    let header =
        |record: &RunRecord| format!("{} {}", record.id, record.script.as_deref().unwrap_or_default());
    diff.unified_diff().context_radius(CONTEXT).header(&header(a), &header(b)).to_string()
}

/// The metrics to compare.
fn chosen(a: &Frame, b: &Frame, wanted: &[String]) -> Result<Vec<String>> {
    let numbers = |frame: &Frame| -> Vec<String> {
        let number = |name: &String| {
            let cells = frame.column(name).unwrap_or_default();
            cells.iter().any(|c| c.as_f64().is_some()) && !RESERVED.contains(&name.as_str())
        };
        frame.columns().into_iter().filter(number).collect()
    };
    let (of_a, of_b) = (numbers(a), numbers(b));
    let known: Vec<&str> = of_a.iter().filter(|name| of_b.contains(name)).map(String::as_str).collect();
    if wanted.is_empty() {
        return Ok(METRICS
            .iter()
            .filter(|name| known.contains(name))
            .map(|name| (*name).to_owned())
            .collect());
    }
    if let Some(name) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        let hint = nearest(name, known.iter().copied())
            .map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
        bail!("`{name}` is no number that both runs logged{hint}; there are: {}", known.join(", "));
    }
    Ok(wanted.to_vec())
}

/// The metrics by the way they were measured, in the order of `a`.
fn compare(a: &Frame, b: &Frame, metrics: &[String]) -> Result<(Frame, (usize, usize))> {
    let keys: Vec<String> = a.columns().into_iter().filter(|name| is_key(a, b, name, metrics)).collect();
    let (of_a, of_b) = (means(a, &keys, metrics), means(b, &keys, metrics));
    let mut table = Table::default();
    let mut matched = 0;
    for (key, values) in &of_a {
        let Some((_, others)) = of_b.iter().find(|(other, _)| other == key) else { continue };
        matched += 1;
        let mut row: Row = keys.iter().cloned().zip(key.iter().cloned()).collect();
        for ((metric, a), b) in metrics.iter().zip(values).zip(others) {
            let ratio = a.zip(*b).map(|(a, b)| b / a);
            row.extend(cells([
                (&format!("{metric} a"), (*a).into()),
                (&format!("{metric} b"), (*b).into()),
                (&format!("{metric} b/a"), ratio.into()),
            ]));
        }
        table.push(row)?;
    }
    Ok((Frame::new(table.to_polars(&[])?), (of_a.len() - matched, of_b.len() - matched)))
}

/// Whether a column says what was tried: both runs have it, as texts, booleans or one of [`TRIED`].
fn is_key(a: &Frame, b: &Frame, name: &str, metrics: &[String]) -> bool {
    if RESERVED.contains(&name) || metrics.iter().any(|metric| metric == name) {
        return false;
    }
    let says = |frame: &Frame| {
        frame.column(name).is_some_and(|cells| {
            cells.iter().all(|cell| match cell {
                Value::Null | Value::Bool(_) | Value::String(_) => true,
                Value::Int(_) => TRIED.contains(&name),
                Value::Float(_) => false,
            })
        })
    };
    says(a) && says(b)
}

type Means = Vec<(Vec<Value>, Vec<Option<f64>>)>;

/// Mean of each metric over the rows of each key, in the order of their first rows.
fn means(frame: &Frame, keys: &[String], metrics: &[String]) -> Means {
    let columns = |names: &[String]| -> Vec<Vec<Value>> {
        names.iter().map(|name| frame.column(name).unwrap_or_default()).collect()
    };
    let (key_columns, metric_columns) = (columns(keys), columns(metrics));
    let mut groups: Vec<(Vec<Value>, Vec<usize>)> = vec![];
    for at in 0..frame.height() {
        let key: Vec<Value> = key_columns.iter().map(|column| column[at].clone()).collect();
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, rows)) => rows.push(at),
            None => groups.push((key, vec![at])),
        }
    }
    let mean = |column: &Vec<Value>, rows: &[usize]| {
        let values: Vec<f64> = rows.iter().filter_map(|&at| column[at].as_f64()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let of = |rows: &[usize]| metric_columns.iter().map(|column| mean(column, rows)).collect();
    groups.into_iter().map(|(key, rows)| (key, of(&rows))).collect()
}

fn cells<const N: usize>(cells: [(&str, Value); N]) -> Row {
    cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Run, RunInfo, Status};

    fn run(root: &Path, name: &str, steps: i64, script: &str, rows: Vec<Row>) {
        let mut options = serde_json::Map::new();
        options.insert("steps".to_owned(), steps.into());
        options.insert("lr".to_owned(), 0.001.into());
        let info = RunInfo {
            name: name.to_owned(),
            options,
            script_text: Some(script.to_owned()),
            seed: Some(0),
            ..RunInfo::default()
        };
        let mut run = Run::create(root, info).unwrap();
        rows.into_iter().for_each(|row| run.log(row).unwrap());
        run.finish(Status::Finished).unwrap();
    }

    fn measured(method: &str, k: i64, nfe: i64, kl: f64) -> Row {
        cells([("method", method.into()), ("k", k.into()), ("nfe", nfe.into()), ("kl", kl.into())])
    }

    #[test]
    fn what_differs_is_told_and_what_is_equal_is_not() {
        let root = tempfile::tempdir().unwrap();
        let rows = vec![measured("fm", 1, 6, 0.5), measured("fm", 1, 6, 0.7), measured("fw", 1, 6, 0.4)];
        run(root.path(), "first", 300, "a\nb\nc\n", rows);
        run(
            root.path(),
            "second",
            600,
            "a\nB\nc\n",
            vec![measured("fm", 1, 9, 0.3), measured("fm", 2, 9, 0.1)],
        );
        let diff = diff(root.path(), "first", "second", &[]).unwrap();
        assert_eq!(
            diff.options.rows().collect::<Vec<_>>(),
            [[Value::from("steps"), "300".into(), "600".into()]]
        );
        assert_eq!(diff.environment.height(), 0);
        assert!(diff.code.contains("-b\n+B\n") && diff.code.contains("--- first-"), "{}", diff.code);
        assert_eq!(diff.metrics.columns(), ["method", "k", "kl a", "kl b", "kl b/a"]);
        let row = diff.metrics.rows().next().unwrap();
        assert_eq!(row[..2], ["fm".into(), 1i64.into()]);
        assert_eq!(row[2..], [0.6.into(), 0.3.into(), Value::from(0.5)]);
        assert_eq!((diff.metrics.height(), diff.unmatched), (1, (1, 1)));
    }

    #[test]
    fn equal_runs_differ_in_nothing_and_metrics_are_checked() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "a", 1, "x", vec![measured("fm", 1, 6, 0.5)]);
        run(root.path(), "b", 1, "x", vec![measured("fm", 1, 6, 0.5)]);
        let found = diff(root.path(), "a", "b", &["nfe".to_owned()]).unwrap();
        assert_eq!((found.options.height(), found.code.as_str()), (0, ""));
        assert_eq!(found.metrics.columns(), ["method", "k", "nfe a", "nfe b", "nfe b/a"]);
        let error = diff(root.path(), "a", "b", &["nef".to_owned()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "`nef` is no number that both runs logged (did you mean `nfe`?); there are: k, nfe, kl"
        );
        assert!(diff(root.path(), "a", "c", &[]).is_err());
    }
}
