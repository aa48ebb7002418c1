//! Reads stored runs into the report's plain structs. The only file of this room that knows `results`.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::input::{Cell, Report, RunRecord, Script, Table};
use super::number::count;
use crate::nearest::nearest;
use crate::results::{self, Catalog, Entry, Status, Value};

/// Columns of `results` and `training` that a report has no use for: whether a run is the newest of its name.
const LATEST: &str = "latest";

/// Everything about the chosen runs; see [`super::compile`] for what `wanted` may name.
///
/// # Errors
/// When there are no such runs or their tables cannot be read.
pub fn read(root: &Path, wanted: &[String], title: Option<&str>) -> Result<Report> {
    let catalog = Catalog::read_some(root)?;
    let entries = if wanted.is_empty() { newest_finished(&catalog, root)? } else { named(&catalog, wanted)? };
    report(root, &entries, title)
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

fn newest_finished<'a>(catalog: &'a Catalog, root: &Path) -> Result<Vec<&'a Entry>> {
    let finished: Vec<&Entry> =
        catalog.entries.iter().filter(|e| e.record.status == Status::Finished).collect();
    let newer = |at: usize| finished[at + 1..].iter().any(|e| e.record.name == finished[at].record.name);
    let chosen: Vec<&Entry> = (0..finished.len()).filter(|at| !newer(*at)).map(|at| finished[at]).collect();
    if chosen.is_empty() {
        bail!("no finished run in {}: name a run to report on it as it stands", root.display());
    }
    Ok(chosen)
}

/// The runs that the names or ids mean, each once, oldest first.
fn named<'a>(catalog: &'a Catalog, wanted: &[String]) -> Result<Vec<&'a Entry>> {
    let mut positions = Vec::new();
    for name in wanted {
        let position = position(catalog, name).with_context(|| unknown(catalog, name))?;
        if !positions.contains(&position) {
            positions.push(position);
        }
    }
    positions.sort_unstable();
    Ok(positions.into_iter().map(|at| &catalog.entries[at]).collect())
}

/// A run by its id, else the newest finished run of that name, else the newest of that name.
fn position(catalog: &Catalog, name: &str) -> Option<usize> {
    let last = |is: &dyn Fn(&Entry) -> bool| catalog.entries.iter().rposition(is);
    last(&|entry| entry.record.id == name)
        .or_else(|| last(&|entry| entry.record.name == name && entry.record.status == Status::Finished))
        .or_else(|| last(&|entry| entry.record.name == name))
}

fn unknown(catalog: &Catalog, name: &str) -> String {
    let known =
        catalog.entries.iter().flat_map(|entry| [entry.record.name.as_str(), entry.record.id.as_str()]);
    match nearest(name, known) {
        Some(near) => format!("no run is called `{name}` (did you mean `{near}`?)"),
        None if catalog.entries.is_empty() => format!("no run is called `{name}`; there are none"),
        None => format!("no run is called `{name}`; `lft runs` lists all"),
    }
}

fn report(root: &Path, entries: &[&Entry], title: Option<&str>) -> Result<Report> {
    let (results, mut notes) = table(root, "results", entries)?;
    let (training, training_notes) = table(root, "training", entries)?;
    notes.extend(training_notes);
    notes.dedup();
    Ok(Report {
        title: title.map_or_else(|| default_title(entries), str::to_string),
        runs: entries.iter().map(|entry| run_record(&entry.record)).collect(),
        results,
        training,
        notes,
    })
}

fn default_title(entries: &[&Entry]) -> String {
    match entries {
        [entry] => entry.record.name.clone(),
        [first, second] => format!("{} and {}", first.record.name, second.record.name),
        _ => format!("Results of {} runs", entries.len()),
    }
}

/// The rows of the chosen runs, and what was skipped of them.
fn table(root: &Path, name: &str, entries: &[&Entry]) -> Result<(Table, Vec<String>)> {
    let ids: Vec<String> = entries.iter().map(|e| format!("'{}'", e.record.id.replace('\'', "''"))).collect();
    let sql = format!("SELECT * FROM {name} WHERE run_id IN ({})", ids.join(", "));
    let answer = results::query(root, &sql).with_context(|| format!("cannot read the table `{name}`"))?;
    let ours = |note: &String| entries.iter().any(|entry| note.contains(&entry.record.id));
    let notes = answer.warnings.into_iter().filter(ours).collect();

    let columns = answer.frame.columns();
    let kept = |at: &usize| columns[*at] != LATEST;
    let positions: Vec<usize> = (0..columns.len()).filter(kept).collect();
    let row = |cells: Vec<Value>| positions.iter().map(|at| cell(&cells[*at])).collect();
    let table = Table {
        columns: positions.iter().map(|at| columns[*at].clone()).collect(),
        rows: answer.frame.rows().map(row).collect(),
    };
    Ok((table, notes))
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

/// `0.8 s`, `12 min 30 s`, `1,234 h 5 min`.
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as i64;
    match whole {
        ..10 => format!("{:.1} s", seconds.max(0.0)),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", count(whole / 3600), whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Row, Run, RunInfo};

    fn store(root: &Path, name: &str, kl: f64, end: Status) -> String {
        let info = RunInfo {
            name: name.into(),
            script: Some("a.lua".into()),
            script_text: Some("return 1".into()),
            options: serde_json::json!({"steps": 3, "init": "zero"}).as_object().cloned().unwrap_or_default(),
            seed: Some(7),
            device: "cpu".into(),
            ..RunInfo::default()
        };
        let row = |cells: &[(&str, Value)]| -> Row {
            cells.iter().map(|(n, v)| (n.to_string(), v.clone())).collect()
        };
        let mut run = Run::create(root, info).unwrap();
        run.log(row(&[("method", "fm".into()), ("k", 1i64.into()), ("kl", kl.into())])).unwrap();
        run.log_training(row(&[("step", 0i64.into()), ("loss", 0.5.into())])).unwrap();
        run.finish(end).unwrap();
        // Starts are told apart to the millisecond.
        std::thread::sleep(std::time::Duration::from_millis(2));
        run.record().id.clone()
    }

    fn names(report: &Report) -> Vec<&str> {
        report.runs.iter().map(|run| run.id.as_str()).collect()
    }

    #[test]
    fn without_names_the_newest_finished_run_of_each_name() {
        let root = tempfile::tempdir().unwrap();
        store(root.path(), "a", 0.3, Status::Finished);
        let newer = store(root.path(), "a", 0.2, Status::Finished);
        let other = store(root.path(), "b's", 0.1, Status::Finished);
        store(root.path(), "b's", 0.1, Status::Failed);
        let report = read(root.path(), &[], None).unwrap();
        assert_eq!(names(&report), [newer.as_str(), other.as_str()]);
        assert_eq!(report.title, "a and b's");
        let kl: Vec<_> = report.results.records().filter_map(|record| record.number("kl")).collect();
        assert_eq!(kl, [0.2, 0.1]);
        assert_eq!(report.training.rows.len(), 2);
        assert_eq!(report.results.column(LATEST), None);
    }

    #[test]
    fn names_ids_and_mistakes() {
        let root = tempfile::tempdir().unwrap();
        let old = store(root.path(), "steps", 0.3, Status::Finished);
        let new = store(root.path(), "steps", 0.2, Status::Failed);
        let by_name = read(root.path(), &["steps".into(), old.clone()], Some("Mine")).unwrap();
        assert_eq!((names(&by_name), by_name.title.as_str()), (vec![old.as_str()], "Mine"));
        assert_eq!(names(&read(root.path(), &[new.clone(), old.clone()], None).unwrap()), [old, new.clone()]);
        assert_eq!(names(&read_run(root.path(), &new).unwrap()), [new]);
        let error = format!("{:#}", read(root.path(), &["stepz".into()], None).unwrap_err());
        assert!(error.contains("`stepz` (did you mean `steps`?)"), "{error}");
        assert!(read_run(root.path(), "nothing").is_err());
    }

    #[test]
    fn provenance_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let id = store(root.path(), "a", 0.3, Status::Finished);
        let run = &read_run(root.path(), &id).unwrap().runs[0];
        assert_eq!(run.script, Some(Script { path: "a.lua".into(), source: "return 1".into() }));
        assert_eq!(run.options, [("steps".into(), "3".into()), ("init".into(), "zero".to_string())]);
        let fact =
            |name: &str| run.environment.iter().find(|fact| fact.0 == name).map(|fact| fact.1.as_str());
        assert_eq!((fact("seed"), fact("device")), (Some("7"), Some("cpu")));
        assert!(fact("versions").is_some_and(|versions| versions.contains("candle-core")));
    }

    #[test]
    fn durations() {
        let shown = [0.84, 42.4, 750.0, 4_442_700.0].map(duration);
        assert_eq!(shown, ["0.8 s", "42 s", "12 min 30 s", "1,234 h 5 min"]);
    }
}
