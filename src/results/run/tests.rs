use super::*;
use crate::results::Value;

fn info(name: &str) -> RunInfo {
    RunInfo { name: name.to_owned(), ..RunInfo::default() }
}

fn row(name: &str, value: impl Into<Value>) -> Row {
    vec![(name.to_owned(), value.into())]
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_run_leaves_whole_files_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::create(root.path(), info("<script>")).unwrap();
    for step in 0..3i64 {
        run.log(row("k", step)).unwrap();
        run.log_training(row("step", step)).unwrap();
        run.log_benchmark(row("median", step)).unwrap();
        run.flush().unwrap();
    }
    run.finish(Status::Finished).unwrap();
    assert_eq!(
        files(run.folder()),
        ["benchmarks.parquet", "results.parquet", "run.json", "training.parquet"]
    );

    let record = RunRecord::load(&run.folder().join(RECORD)).unwrap();
    assert_eq!((record.name.as_str(), record.status), ("<script>", Status::Finished));
    assert_eq!((record.results_rows, record.training_rows, record.benchmarks_rows), (3, 3, 3));
    assert!(record.id.starts_with("_script_-") && record.end.is_some());
}

#[test]
fn names_never_lead_out_of_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let runs = root.path().join("runs");
    let run = Run::create(&runs, info("../../x")).unwrap();
    assert_eq!(run.folder().parent().unwrap(), runs);
    assert_eq!(run.path_for("../../etc/passwd").unwrap().parent().unwrap(), run.folder());
    assert!(run.path_for("results.parquet").unwrap_err().to_string().contains("another name"));
    assert_eq!(files(root.path()), ["runs"]);
}

#[test]
fn runs_of_one_name_get_folders_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let runs: Vec<_> = (0..20).map(|_| Run::create(root.path(), info("a")).unwrap()).collect();
    assert_eq!(files(root.path()).len(), runs.len());
}

#[test]
fn reserved_columns_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::create(root.path(), info("a")).unwrap();
    let error = run.log(row("run", "b")).unwrap_err().to_string();
    assert!(error.contains("`run` is set by lft itself") && error.contains("run_id"), "{error}");
    assert!(run.log_training(row("latest", true)).is_err());
}

#[test]
fn a_finished_run_takes_no_rows_and_keeps_its_status() {
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::create(root.path(), info("a")).unwrap();
    run.fail("it diverged").unwrap();
    run.finish(Status::Finished).unwrap();
    assert_eq!(run.record().status, Status::Failed);
    assert_eq!(run.record().error.as_deref(), Some("it diverged"));
    assert!(run.log(row("k", 1i64)).unwrap_err().to_string().contains("`a` is failed"));
}

#[test]
fn a_dropped_run_keeps_its_rows_and_says_that_it_was_interrupted() {
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::create(root.path(), info("a")).unwrap();
    run.log(row("k", 1i64)).unwrap();
    let folder = run.folder().to_owned();
    drop(run);
    let record = RunRecord::load(&folder.join(RECORD)).unwrap();
    assert_eq!((record.status, record.results_rows), (Status::Interrupted, 1));
    assert!(folder.join(RESULTS).exists());
}

#[test]
fn an_impossible_folder_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = format!("{:#}", Run::create(&file.join("runs"), info("a")).unwrap_err());
    assert!(error.contains("file/runs") && error.contains("--runs-dir"), "{error}");
}

#[test]
fn rows_survive_a_failed_write() {
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::create(root.path(), info("a")).unwrap();
    run.log(row("k", 1i64)).unwrap();
    let (folder, aside) = (run.folder().to_owned(), root.path().join("aside"));
    fs::rename(&folder, &aside).unwrap();
    assert!(format!("{:#}", run.flush().unwrap_err()).contains(RESULTS));
    fs::rename(&aside, &folder).unwrap();
    run.finish(Status::Finished).unwrap();
    assert_eq!(RunRecord::load(&folder.join(RECORD)).unwrap().results_rows, 1);
    assert!(folder.join(RESULTS).exists());
}
