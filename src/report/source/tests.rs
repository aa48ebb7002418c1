use super::*;
use crate::results::{Run, RunInfo, Status};

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
    let row =
        |cells: &[(&str, Value)]| -> Row { cells.iter().map(|(n, v)| (n.to_string(), v.clone())).collect() };
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
    let asked =
        |runs: &[&str]| Request { runs: runs.iter().map(|r| r.to_string()).collect(), ..Request::default() };
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
    let begun = Request { runs: vec![newest[..newest.len() - 1].into()], ..Request::default() };
    assert_eq!(names(&read(root.path(), &begun).unwrap()), [newest.as_str()], "by the beginning of its id");
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
    let fact = |name: &str| run.environment.iter().find(|fact| fact.0 == name).map(|fact| fact.1.as_str());
    assert_eq!((fact("seed"), fact("device")), (Some("7"), Some("cpu")));
    assert!(fact("versions").is_some_and(|versions| versions.contains("candle-core")));
}

#[test]
fn long_training_is_thinned_curve_by_curve() {
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::create(root.path(), RunInfo::default()).unwrap();
    for step in 0..10i64 {
        for method in ["fm", "fw"] {
            let cells = [("method", method.into()), ("step", step.into()), ("loss", 1.0.into())];
            run.log_training(cells.into_iter().map(|(n, v): (&str, Value)| (n.into(), v)).collect()).unwrap();
        }
    }
    run.finish(Status::Finished).unwrap();
    let catalog = Catalog::read(root.path()).unwrap();
    let (thinned, _) = table(root.path(), "training", &[&catalog.entries[0]], 4).unwrap();
    let steps: Vec<_> =
        thinned.records().map(|r| (r.text("method").unwrap(), r.whole("step").unwrap())).collect();
    assert_eq!(steps, [("fm", 0), ("fw", 0), ("fm", 4), ("fw", 4), ("fm", 8), ("fw", 8)]);
}
