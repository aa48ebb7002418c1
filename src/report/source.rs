//! Reads stored runs into the report's plain structs. The only file of this room that knows `results`.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Request;
use super::input::{Cell, Report, RunRecord, Script, Table};
use super::number::duration;
use crate::nearest::nearest;
use crate::results::{self, Catalog, Entry, Row, Status, Value};

/// Columns of `results` and `training` that a report has no use for: whether a run is the newest of its name.
const LATEST: &str = "latest";

/// Everything about the chosen runs; see [`Request`] for what it may name.
///
/// # Errors
/// When there are no such runs or their tables cannot be read.
pub fn read(root: &Path, request: &Request) -> Result<Report> {
    let catalog = Catalog::read_some(root)?;
    let chosen = if request.runs.is_empty() {
        newest_finished(&catalog, request.all, root)?
    } else {
        named(&catalog, &request.runs, request.all)?
    };
    let entries = if request.all { chosen } else { with_repetitions(&catalog, chosen, &request.runs) };
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

/// The newest finished run of every name, or all that finished.
fn newest_finished<'a>(catalog: &'a Catalog, all: bool, root: &Path) -> Result<Vec<&'a Entry>> {
    let finished: Vec<&Entry> =
        catalog.entries.iter().filter(|e| e.record.status == Status::Finished).collect();
    let newest: HashMap<&str, usize> =
        finished.iter().enumerate().map(|(at, e)| (e.record.name.as_str(), at)).collect();
    let chosen: Vec<&Entry> = (0..finished.len())
        .filter(|at| all || newest[finished[*at].record.name.as_str()] == *at)
        .map(|at| finished[at])
        .collect();
    if chosen.is_empty() {
        bail!("no finished run in {}: name a run to report on it as it stands", root.display());
    }
    Ok(chosen)
}

/// The runs that the names, patterns or ids mean, each once, oldest first.
fn named<'a>(catalog: &'a Catalog, wanted: &[String], all: bool) -> Result<Vec<&'a Entry>> {
    let mut positions = BTreeSet::new();
    for name in wanted {
        let names = names(catalog, name)?;
        for name in names {
            if all {
                let same =
                    |entry: &Entry| entry.record.name == name && entry.record.status == Status::Finished;
                positions.extend((0..catalog.entries.len()).filter(|at| same(&catalog.entries[*at])));
            }
            positions.insert(position(catalog, name).with_context(|| unknown(catalog, name))?);
        }
    }
    Ok(positions.into_iter().map(|at| &catalog.entries[at]).collect())
}

/// The names that a pattern with `*` fits; the name itself where it is none.
fn names<'a>(catalog: &'a Catalog, wanted: &'a str) -> Result<BTreeSet<&'a str>> {
    if !wanted.contains('*') || catalog.entries.iter().any(|entry| entry.record.name == wanted) {
        return Ok(BTreeSet::from([wanted]));
    }
    // Of the characters that a pattern knows, only `*` is one here: names may hold the others.
    let escaped: Vec<String> = wanted.split('*').map(glob::Pattern::escape).collect();
    let pattern = glob::Pattern::new(&escaped.join("*")).with_context(|| format!("pattern `{wanted}`"))?;
    let names = catalog.entries.iter().map(|entry| entry.record.name.as_str());
    let fitting: BTreeSet<&str> = names.filter(|name| pattern.matches(name)).collect();
    if fitting.is_empty() {
        bail!("no run fits the pattern `{wanted}`; `lft runs` lists all");
    }
    Ok(fitting)
}

/// The chosen runs and their repetitions: the newest finished run of every other seed with the same name, script and
/// options. A run that was asked for by its id stays alone. Oldest first.
fn with_repetitions<'a>(catalog: &'a Catalog, chosen: Vec<&'a Entry>, ids: &[String]) -> Vec<&'a Entry> {
    let mut seeds: HashMap<String, BTreeSet<Option<u64>>> = HashMap::new();
    for entry in chosen.iter().filter(|entry| !ids.contains(&entry.record.id)) {
        seeds.entry(settings(entry)).or_default().insert(entry.record.seed);
    }
    let mut repetitions: Vec<&Entry> = Vec::new();
    for entry in catalog.entries.iter().rev().filter(|entry| entry.record.status == Status::Finished) {
        let Some(known) = seeds.get_mut(&settings(entry)) else { continue };
        if entry.record.seed.is_some() && known.insert(entry.record.seed) {
            repetitions.push(entry);
        }
    }
    let kept =
        |entry: &&Entry| chosen.iter().chain(&repetitions).any(|other| other.record.id == entry.record.id);
    catalog.entries.iter().filter(kept).collect()
}

/// All that repetitions have in common. Where the report goes and the seed itself make no difference.
fn settings(entry: &Entry) -> String {
    let record = &entry.record;
    let decides = |(name, _): &(&String, &serde_json::Value)| !["seed", "report"].contains(&name.as_str());
    let options: Vec<_> = record.options.iter().filter(decides).collect();
    serde_json::json!([record.name, record.script_text, options]).to_string()
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
    let (mut results, mut notes) = table(root, "results", entries)?;
    add_seeds(&mut results, entries);
    let (training, training_notes) = table(root, "training", entries)?;
    notes.extend(training_notes);
    notes.dedup();
    Ok(Report {
        title: title.map_or_else(|| default_title(entries), str::to_string),
        runs: entries.iter().map(|entry| run_record(&entry.record)).collect(),
        results,
        training,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Run, RunInfo};

    fn store(root: &Path, name: &str, kl: f64, end: Status) -> String {
        store_seed(root, name, kl, end, 7)
    }

    fn store_seed(root: &Path, name: &str, kl: f64, end: Status, seed: u64) -> String {
        let info = RunInfo {
            name: name.into(),
            script: Some("a.lua".into()),
            script_text: Some("return 1".into()),
            options: serde_json::json!({"steps": 3, "init": "zero"}).as_object().cloned().unwrap_or_default(),
            seed: Some(seed),
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
        let report = read(root.path(), &Request::default()).unwrap();
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
        let asked = |runs: &[&str]| Request {
            runs: runs.iter().map(|r| r.to_string()).collect(),
            ..Request::default()
        };
        let mine = Request { title: Some("Mine".into()), ..asked(&["steps", &old]) };
        let by_name = read(root.path(), &mine).unwrap();
        assert_eq!((names(&by_name), by_name.title.as_str()), (vec![old.as_str()], "Mine"));
        assert_eq!(names(&read(root.path(), &asked(&[&new, &old])).unwrap()), [old, new.clone()]);
        assert_eq!(names(&read_run(root.path(), &new).unwrap()), [new]);
        let error = format!("{:#}", read(root.path(), &asked(&["stepz"])).unwrap_err());
        assert!(error.contains("`stepz` (did you mean `steps`?)"), "{error}");
        assert!(read_run(root.path(), "nothing").is_err());
    }

    #[test]
    fn repetitions_come_along_and_say_their_seed() {
        let root = tempfile::tempdir().unwrap();
        let first = store_seed(root.path(), "a", 0.3, Status::Finished, 1);
        store_seed(root.path(), "a", 0.4, Status::Finished, 2);
        let newer = store_seed(root.path(), "a", 0.5, Status::Finished, 2);
        store_seed(root.path(), "a", 0.6, Status::Failed, 3);
        let newest = store_seed(root.path(), "a", 0.7, Status::Finished, 4);
        let report = read(root.path(), &Request::default()).unwrap();
        assert_eq!(names(&report), [first.as_str(), newer.as_str(), newest.as_str()]);
        let seeds: Vec<_> = report.results.records().filter_map(|record| record.whole("seed")).collect();
        assert_eq!(seeds, [1, 2, 4]);
        assert_eq!(report.title, "a");
        let alone = Request { runs: vec![newest.clone()], ..Request::default() };
        assert_eq!(names(&read(root.path(), &alone).unwrap()), [newest.as_str()]);
        let all = Request { all: true, ..Request::default() };
        assert_eq!(read(root.path(), &all).unwrap().runs.len(), 4, "all that finished");
    }

    #[test]
    fn patterns_fit_names() {
        let root = tempfile::tempdir().unwrap();
        for name in ["lr [1]", "lr [2]", "other"] {
            store(root.path(), name, 0.3, Status::Finished);
        }
        let found = |pattern: &str| {
            let request = Request { runs: vec![pattern.into()], ..Request::default() };
            read(root.path(), &request).map(|report| report.runs.len()).map_err(|error| error.to_string())
        };
        assert_eq!((found("lr [*"), found("*")), (Ok(2), Ok(3)));
        assert_eq!(found("x*"), Err("no run fits the pattern `x*`; `lft runs` lists all".into()));
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
}
