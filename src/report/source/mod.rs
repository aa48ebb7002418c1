//! Reads stored runs into the report's plain structs. The only place of this room that knows `results`.

mod choice;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Request;
use super::input::{Cell, Report, RunRecord, Script, Table};
use super::number::{count, duration};
use crate::results::{self, Catalog, Entry, Row, Value};
use choice::choose;

/// Columns of `results` and `training` that a report has no use for: whether a run is the newest of its name.
const LATEST: &str = "latest";

/// Rows of training held in memory at most, about.
const TRAINING_ROWS: usize = 1_000_000;

/// Columns that tell one training curve from another.
const CURVE: [&str; 3] = ["run_id", "method", "block"];

/// Everything about the chosen runs; see [`Request`] for what it may name.
///
/// # Errors
/// When there are no such runs or their tables cannot be read.
pub fn read(root: &Path, request: &Request) -> Result<Report> {
    let catalog = Catalog::read_some(root)?;
    let entries = choose(&catalog, request, root)?;
    report(root, &entries, request.title.as_deref())
}

/// Everything about one run, finished or not.
///
/// # Errors
/// When there is no such run or its tables cannot be read.
pub fn read_run(root: &Path, run_id: &str) -> Result<Report> {
    let catalog = Catalog::read_some(root)?;
    match catalog.entries.iter().find(|entry| entry.record.id == run_id) {
        Some(entry) => report(root, &[entry], None),
        None => bail!("no run {run_id} in {}", root.display()),
    }
}

fn report(root: &Path, entries: &[&Entry], title: Option<&str>) -> Result<Report> {
    let (mut results, mut notes) = table(root, "results", entries, 1)?;
    add_seeds(&mut results, entries);
    let logged: usize = entries.iter().map(|entry| entry.record.training_rows).sum();
    let stride = logged.div_ceil(TRAINING_ROWS).max(1);
    let (training, training_notes) = table(root, "training", entries, stride)?;
    let (benchmarks, benchmark_notes) = table(root, "benchmarks", entries, 1)?;
    notes.extend(training_notes);
    notes.extend(benchmark_notes);
    notes.dedup();
    if stride > 1 {
        let logged = count(logged as i64);
        notes.push(format!("Of {logged} rows of training, every {stride}th of each curve was read."));
    }
    Ok(Report {
        title: title.map_or_else(|| default_title(entries), str::to_string),
        runs: entries.iter().map(|entry| run_record(&entry.record)).collect(),
        results,
        training,
        benchmarks,
        notes,
        sections: Vec::new(),
    })
}

/// Rows that do not say their seed get that of their run, which tells repetitions from other equal rows.
fn add_seeds(results: &mut Table, entries: &[&Entry]) {
    let Some(run_id) = results.column("run_id") else { return };
    let seeds: HashMap<&str, Cell> = entries
        .iter()
        .filter_map(|entry| {
            Some((entry.record.id.as_str(), Cell::Int(i64::try_from(entry.record.seed?).ok()?)))
        })
        .collect();
    let at = results.column("seed").unwrap_or_else(|| {
        results.columns.push("seed".into());
        results.columns.len() - 1
    });
    for row in &mut results.rows {
        let seed = row[run_id].text().and_then(|id| seeds.get(id)).cloned().unwrap_or(Cell::Null);
        row.resize(row.len().max(at + 1), Cell::Null);
        if row[at].is_null() {
            row[at] = seed;
        }
    }
}

fn default_title(entries: &[&Entry]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for entry in entries {
        if !names.contains(&entry.record.name.as_str()) {
            names.push(&entry.record.name);
        }
    }
    match names.as_slice() {
        [name] => (*name).to_string(),
        [first, second] => format!("{first} and {second}"),
        _ => format!("Results of {} runs", entries.len()),
    }
}

/// The rows of the chosen runs, every `stride`-th of each run, method and block; and what was skipped of them.
fn table(root: &Path, name: &str, entries: &[&Entry], stride: usize) -> Result<(Table, Vec<String>)> {
    let ids: Vec<String> = entries.iter().map(|e| format!("'{}'", e.record.id.replace('\'', "''"))).collect();
    let sql = format!("SELECT * FROM {name} WHERE run_id IN ({})", ids.join(", "));
    let answer = results::query(root, &sql).with_context(|| format!("cannot read the table `{name}`"))?;
    let ours = |note: &String| entries.iter().any(|entry| note.contains(&entry.record.id));
    let notes = answer.warnings.into_iter().filter(ours).collect();

    let columns = answer.frame.columns();
    let kept = |at: &usize| columns[*at] != LATEST;
    let positions: Vec<usize> = (0..columns.len()).filter(kept).collect();
    let curve: Vec<usize> = (0..columns.len()).filter(|at| CURVE.contains(&columns[*at].as_str())).collect();
    let mut seen: HashMap<Vec<String>, usize> = HashMap::new();
    let due = |cells: &Vec<Value>| {
        if stride == 1 {
            return true;
        }
        let key = curve.iter().map(|at| cells[*at].to_string()).collect();
        let number = seen.entry(key).or_default();
        *number += 1;
        (*number - 1).is_multiple_of(stride)
    };
    let row = |cells: Vec<Value>| positions.iter().map(|at| cell(&cells[*at])).collect();
    let table = Table {
        columns: positions.iter().map(|at| columns[*at].clone()).collect(),
        rows: answer.frame.rows().filter(due).map(row).collect(),
    };
    Ok((table, notes))
}

/// Rows with columns of their own as one table; what a row lacks is null.
pub fn from_rows(rows: Vec<Row>) -> Table {
    let mut table = Table::default();
    let mut places: HashMap<String, usize> = HashMap::new();
    for row in rows {
        let mut cells = vec![Cell::Null; table.columns.len()];
        for (name, value) in row {
            let at = *places.entry(name.clone()).or_insert(table.columns.len());
            if at == table.columns.len() {
                table.columns.push(name);
                cells.push(Cell::Null);
            }
            cells[at] = cell(&value);
        }
        table.rows.push(cells);
    }
    let width = table.columns.len();
    for row in &mut table.rows {
        row.resize(width, Cell::Null);
    }
    table
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(value) => Cell::Bool(*value),
        Value::Int(value) => Cell::Int(*value),
        Value::Float(value) => Cell::Number(*value),
        Value::String(value) => Cell::Text(value.clone()),
    }
}

fn run_record(record: &results::RunRecord) -> RunRecord {
    let script = record.script_text.as_ref().map(|source| Script {
        path: record.script.clone().unwrap_or_else(|| "without a file".into()),
        source: source.clone(),
    });
    RunRecord {
        id: record.id.clone(),
        name: record.name.clone(),
        status: record.status.as_str().to_string(),
        seed: record.seed,
        script,
        options: record.options.iter().map(|(name, value)| (name.clone(), option(value))).collect(),
        arguments: record.arguments.clone(),
        environment: environment(record),
    }
}

fn option(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

fn environment(record: &results::RunRecord) -> Vec<(String, String)> {
    let host = &record.host;
    let versions: Vec<String> =
        record.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let git = record.git.as_ref().map(|git| {
        let changes = if git.dirty { " with uncommitted changes" } else { "" };
        format!("{}{changes}", git.revision)
    });
    let gib = host.memory_bytes as f64 / f64::from(1u32 << 30);
    let facts = [
        ("started", record.start.clone()),
        ("duration", record.seconds().map(duration).unwrap_or_default()),
        ("ended by", record.error.clone().unwrap_or_default()),
        ("tags", record.tags.join(", ")),
        ("seed", record.seed.map(|seed| seed.to_string()).unwrap_or_default()),
        ("device", record.device.clone()),
        (
            "processor",
            if host.cores > 0 { format!("{} ({} cores)", host.cpu, host.cores) } else { String::new() },
        ),
        ("memory", if host.memory_bytes > 0 { format!("{gib:.1} GiB") } else { String::new() }),
        ("system", host.os.clone()),
        ("git revision", git.unwrap_or_default()),
        ("versions", versions.join(", ")),
    ];
    let known = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
    known.map(|(name, fact)| (name.to_string(), fact)).collect()
}
