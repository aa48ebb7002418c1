use std::fs;
use std::path::PathBuf;

use super::*;
use crate::results::{RESULTS, Row, Run, RunInfo, Status, Value};

/// Makes a finished run with these result rows and returns its folder.
fn run(root: &Path, name: &str, rows: Vec<Row>) -> PathBuf {
    let mut options = serde_json::Map::new();
    options.insert("steps".to_owned(), 300.into());
    let tags = vec!["seed".to_owned(), "cpu".to_owned()];
    let info = RunInfo { name: name.to_owned(), tags, options, ..RunInfo::default() };
    let mut run = Run::create(root, info).unwrap();
    for row in rows {
        run.log(row).unwrap();
    }
    run.log_training(vec![("step".to_owned(), 1i64.into()), ("loss".to_owned(), 0.5.into())]).unwrap();
    run.finish(Status::Finished).unwrap();
    // Starts are told apart to the millisecond.
    std::thread::sleep(std::time::Duration::from_millis(2));
    run.folder().to_owned()
}

fn measured(method: &str, k: i64, kl: f64) -> Row {
    let cells: [(&str, Value); 3] = [("method", method.into()), ("k", k.into()), ("kl", kl.into())];
    cells.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
}

fn ask(root: &Path, sql: &str) -> Frame {
    let answer = query(root, sql).unwrap();
    assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    answer.frame
}

fn refused(root: &Path, sql: &str) -> String {
    format!("{:#}", query(root, sql).unwrap_err())
}

#[test]
fn what_was_logged_is_found() {
    let root = tempfile::tempdir().unwrap();
    let rows = vec![measured("fw", 3, 0.41), measured("fm", 1, f64::NAN), measured("fm", 2, 0.3)];
    run(root.path(), "ablate_steps", rows);
    run(root.path(), "other", vec![measured("fm", 1, 0.01)]);

    let sql = "SELECT method, k, kl FROM results WHERE run = 'ablate_steps' ORDER BY kl LIMIT 5";
    let found = ask(root.path(), sql);
    assert_eq!(found.columns(), ["method", "k", "kl"]);
    assert_eq!(found.column("method").unwrap(), ["fm".into(), "fw".into(), Value::from("fm")]);
    assert_eq!(found.get(0, 2), Value::Float(0.3));
    assert!(found.get(2, 2).as_f64().unwrap().is_nan());

    let best = ask(root.path(), "SELECT run, min(kl) AS best FROM results GROUP BY run ORDER BY run");
    assert_eq!(best.column("best").unwrap(), [0.3.into(), Value::from(0.01)]);
}

#[test]
fn files_with_different_columns_and_types_concatenate() {
    let root = tempfile::tempdir().unwrap();
    let row = |cells: &[(&str, Value)]| cells.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
    run(root.path(), "a", vec![row(&[("kl", 1i64.into()), ("k", 1i64.into())])]);
    run(root.path(), "b", vec![row(&[("kl", f64::INFINITY.into()), ("k", "auto".into())])]);
    run(root.path(), "c", vec![row(&[("only_c", true.into()), ("k", Value::Null)])]);
    let all = ask(root.path(), "SELECT * FROM results ORDER BY run");
    assert_eq!(all.columns(), ["run", "run_id", "latest", "kl", "k", "only_c"]);
    assert_eq!(all.column("kl").unwrap(), [1.0.into(), f64::INFINITY.into(), Value::Null]);
    assert_eq!(all.column("k").unwrap(), ["1".into(), "auto".into(), Value::Null]);
    assert_eq!(all.column("only_c").unwrap(), [Value::Null, Value::Null, true.into()]);
}

#[test]
fn latest_marks_the_newest_run_that_has_rows() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "a", vec![measured("fm", 1, 0.9)]);
    run(root.path(), "a", vec![measured("fm", 1, 0.4)]);
    run(root.path(), "b", vec![measured("fm", 1, 0.1)]);
    run(root.path(), "a", vec![]);
    let newest = ask(root.path(), "SELECT kl FROM results WHERE latest AND run = 'a'");
    assert_eq!(newest.column("kl").unwrap(), [Value::from(0.4)]);
    let runs = ask(root.path(), "SELECT results_rows FROM runs WHERE latest ORDER BY run");
    assert_eq!(runs.column("results_rows").unwrap(), [0i64.into(), Value::from(1i64)]);
}

#[test]
fn the_three_tables_join() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "a", vec![measured("fm", 1, 0.9)]);
    let sql = "SELECT r.kl, t.loss, u.option_steps, u.tags, u.status FROM results r \
               JOIN training t ON r.run_id = t.run_id JOIN runs u ON r.run_id = u.run_id \
               WHERE u.tags LIKE '%seed%'";
    let expected: Vec<Value> =
        vec![0.9.into(), 0.5.into(), 300i64.into(), "seed,cpu".into(), "finished".into()];
    assert_eq!(ask(root.path(), sql).rows().collect::<Vec<_>>(), [expected]);
}

#[test]
fn rows_of_several_runs_are_counted() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "a", vec![measured("fm", 1, 0.9), measured("fm", 2, 0.8)]);
    run(root.path(), "b", vec![measured("fm", 1, 0.7)]);
    let count = |sql: &str| ask(root.path(), sql).get(0, 0);
    assert_eq!(count("SELECT COUNT(*) AS n FROM results"), Value::Int(3));
    assert_eq!(count("SELECT COUNT(*) AS n FROM results WHERE kl > 0.75"), Value::Int(2));
    assert_eq!(count("SELECT COUNT(*) AS n FROM results WHERE run = 'a'"), Value::Int(2));
    assert_eq!(
        count("SELECT COUNT(*) AS n FROM results r JOIN training t ON r.run_id = t.run_id"),
        Value::Int(3)
    );
    run(root.path(), "b", vec![measured("fw", 1, 0.6)]);
    let latest = ask(root.path(), "SELECT latest FROM results");
    let latest: Vec<_> =
        latest.column("latest").unwrap().iter().map(|cell| cell.as_bool().unwrap()).collect();
    assert_eq!(latest.iter().filter(|latest| **latest).count(), 3);
    assert_eq!(latest.len(), 4);
}

#[test]
fn rows_stand_in_the_order_of_their_runs() {
    let root = tempfile::tempdir().unwrap();
    for (at, name) in ["a", "b", "a", "c", "b", "d"].into_iter().enumerate() {
        run(root.path(), name, vec![measured("fm", at as i64, 0.5)]);
    }
    let order: Vec<Value> = (0..6).map(Value::Int).collect();
    assert_eq!(ask(root.path(), "SELECT k FROM results").column("k").unwrap(), order);
}

#[test]
fn hostile_names_are_plain_data() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "../../x", vec![measured("fm", 1, 0.9)]);
    run(root.path(), "<script>", vec![measured("fm", 1, 0.8)]);
    let found = ask(root.path(), "SELECT run FROM results WHERE kl > 0.85");
    assert_eq!(found.column("run").unwrap(), [Value::from("../../x")]);
}

#[test]
fn broken_files_are_named_and_the_rest_is_queried() {
    let root = tempfile::tempdir().unwrap();
    let mut bad = vec![];
    for i in 0..4 {
        bad.push(run(root.path(), &format!("bad{i}"), vec![measured("fm", i, 0.1)]));
    }
    run(root.path(), "good", (0..5000).map(|k| measured("fm", k, 0.5)).collect());
    let broken = |i: usize| bad[i].join(RESULTS);
    let bytes = fs::read(broken(0)).unwrap();
    fs::write(broken(0), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(broken(1), "").unwrap();
    // The footer stays whole and the pages do not.
    let mut bytes = fs::read(broken(2)).unwrap();
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize;
    let pages = 4..bytes.len() - 8 - footer;
    bytes[pages].fill(0xff);
    fs::write(broken(2), bytes).unwrap();
    fs::write(bad[3].join("run.json"), "{").unwrap();

    let answer = query(root.path(), "SELECT count(kl) AS n FROM results WHERE method = 'fm'").unwrap();
    assert_eq!(answer.frame.get(0, 0), Value::Int(5000));
    for i in 0..4 {
        let named = answer.warnings.iter().filter(|w| w.contains(&format!("bad{i}-"))).count();
        assert_eq!(named, 1, "{:?}", answer.warnings);
    }
}

#[test]
fn cut_anywhere_a_file_is_an_error_and_no_panic() {
    let root = tempfile::tempdir().unwrap();
    let folder = run(root.path(), "a", (0..50).map(|k| measured("fm", k, 0.5)).collect());
    let whole = fs::read(folder.join(RESULTS)).unwrap();
    for length in (0..whole.len()).step_by(97) {
        fs::write(folder.join(RESULTS), &whole[..length]).unwrap();
        let answer = query(root.path(), "SELECT * FROM results").unwrap();
        assert_eq!((answer.frame.height(), answer.warnings.len()), (0, 1));
    }
}

#[test]
fn mistakes_are_told_with_what_there_is() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "a", vec![measured("fm", 1, 0.9)]);
    let error = refused(root.path(), "SELECT kl FROM result");
    assert_eq!(
        error,
        "no table `result` (did you mean `results`?); tables: results, training, benchmarks, runs"
    );
    let columns = "columns of results: run, run_id, latest, method, k, kl";
    for sql in [
        "SELECT methud FROM results",
        "SELECT r.methud FROM results r",
        "SELECT k FROM results WHERE methud = 'a'",
        "SELECT k FROM results ORDER BY methud",
    ] {
        let error = refused(root.path(), sql);
        assert_eq!(error, format!("no column `methud` (did you mean `method`?); {columns}"), "{sql}");
    }
    let error = refused(root.path(), "SELEC kl FROM results");
    assert!(error.contains("SELEC") && !error.contains('\n'), "{error}");
    assert!(refused(root.path(), "delete FROM results").contains("only reads"));
    assert!(refused(root.path(), "").contains("one (and only one) statement"));
}

#[test]
fn tables_are_listed() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "a", vec![]);
    let expected: Vec<Value> = ["benchmarks", "results", "runs", "training"].map(Value::from).into();
    assert_eq!(ask(root.path(), "SHOW TABLES").column("name").unwrap(), expected);
}

#[test]
fn no_runs_is_told_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    for folder in [root.path().to_owned(), root.path().join("absent")] {
        let error = refused(&folder, "SELECT * FROM results");
        assert!(error.contains("no runs in") && error.contains("lft run"), "{error}");
    }
}

#[test]
fn a_run_without_rows_leaves_an_empty_table() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "a", vec![]);
    let empty = ask(root.path(), "SELECT * FROM results");
    assert_eq!((empty.height(), empty.columns()), (0, vec!["run".into(), "run_id".into(), "latest".into()]));
}
