//! What is done with many runs, end to end: listing, comparing, removing, compacting, exporting.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use lft::results::{self, Row, Run, RunInfo, Status, Value};
use program::{lft, output};

fn row(cells: &[(&str, Value)]) -> Row {
    cells.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// A run with `rows` rows in `results` and in `training`, ended with this status.
fn run(root: &Path, name: &str, tags: &[&str], rows: i64, status: Status) -> PathBuf {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let script_text = Some(format!("-- {name}\nlocal lft = require(\"lft\")\n"));
    let info = RunInfo { name: name.to_owned(), tags, script_text, ..RunInfo::default() };
    let mut run = Run::create(root, info).unwrap();
    for k in 0..rows {
        let kl = 1.0 / (k + 1) as f64;
        run.log(row(&[("method", "fm".into()), ("k", k.into()), ("kl", kl.into())])).unwrap();
        run.log_training(row(&[("method", "fm".into()), ("step", k.into()), ("loss", kl.into())])).unwrap();
    }
    run.finish(status).unwrap();
    run.folder().to_owned()
}

fn succeeds(root: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = output(&mut lft(root), arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

fn count(root: &Path, table: &str) -> Value {
    results::query(root, &format!("SELECT COUNT(*) AS n FROM {table}")).unwrap().frame.get(0, 0)
}

#[test]
fn runs_are_filtered_and_sorted() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "short", &["cpu"], 2, Status::Finished);
    run(root.path(), "long", &["cpu", "seed"], 4, Status::Finished);
    run(root.path(), "broken", &["cpu"], 1, Status::Failed);
    let names = |arguments: &[&str]| -> Vec<String> {
        let stdout = succeeds(root.path(), &[&["runs", "--format", "csv"], arguments].concat());
        stdout.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["--sort", "kl_best"]), ["long", "short", "broken"]);
    assert_eq!(names(&["--sort", "kl_best", "--reverse", "-n", "1"]), ["broken"]);
    assert_eq!(names(&["--status", "failed"]), ["broken"]);
    assert_eq!(names(&["--tag", "cpu", "--tag", "seed"]), ["long"]);
    assert_eq!(names(&["--name", "HORT"]), ["short"]);
    assert_eq!(names(&["--method", "fw"]), [""; 0]);
    let (code, _, stderr) = output(&mut lft(root.path()), &["runs", "--sort", "kl"]);
    assert!(code == 1 && stderr.starts_with("error: no column `kl` to sort by"), "{stderr}");
}

#[test]
fn two_runs_are_compared() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "first", &["x"], 2, Status::Finished);
    run(root.path(), "second", &["y"], 3, Status::Finished);
    let stdout = succeeds(root.path(), &["runs", "diff", "first", "second"]);
    for part in [
        "\nOptions\n",
        " tags    x  y\n",
        "\nEnvironment\nequal\n",
        " fm      0     1     1       1\n",
        "-- first\n",
        "+-- second\n",
    ] {
        assert!(stdout.contains(part), "{part:?} is not in\n{stdout}");
    }
    assert!(stdout.contains("rows without a counterpart: 0 of a, 1 of b"), "{stdout}");
    let (code, _, stderr) = output(&mut lft(root.path()), &["runs", "diff", "first", "secund"]);
    assert_eq!((code, stderr.as_str()), (1, "error: no run is called `secund` (did you mean `second`?)\n"));
}

#[test]
fn runs_are_removed_only_when_that_is_meant() {
    let root = tempfile::tempdir().unwrap();
    let outside = root.path().join("outside");
    let runs = root.path().join("runs");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("run.json"), "{}").unwrap();
    let kept = run(&runs, "kept", &[], 1, Status::Finished);
    let gone = run(&runs, "../../gone", &["scratch"], 1, Status::Failed);

    for wrong in [&["../outside"][..], &["kep"], &["../../gone", "nobody"]] {
        let (code, _, stderr) = output(&mut lft(&runs), &[&["runs", "rm", "--yes"], wrong].concat());
        assert!(code == 1 && stderr.contains("no run is called"), "{wrong:?}: {stderr}");
    }
    let (code, stdout, stderr) = output(lft(&runs).stdin(Stdio::null()), &["runs", "rm", "kept"]);
    assert!(code == 2 && stdout.contains("kept-") && stderr.contains("--yes"), "{stderr}");
    assert_eq!(output(&mut lft(&runs), &["runs", "rm"]).0, 2);
    assert!(kept.exists() && gone.exists() && outside.join("run.json").exists());

    succeeds(&runs, &["runs", "rm", "--tag", "scratch", "--yes"]);
    assert!(kept.exists() && !gone.exists() && outside.exists());
    assert_eq!(fs::read_dir(&runs).unwrap().count(), 1);
}

#[test]
fn garbage_is_shown_before_it_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let good = run(root.path(), "good", &[], 1, Status::Finished);
    let bad = run(root.path(), "bad", &[], 1, Status::Interrupted);
    let gc = |arguments: &[&str]| {
        output(lft(root.path()).stdin(Stdio::null()), &[&["runs", "gc"], arguments].concat())
    };
    let (code, _, stderr) = gc(&[]);
    assert_eq!((code, stderr.as_str()), (0, "nothing to remove\n"), "it is younger than a day");
    let (code, stdout, _) = gc(&["--older-than", "0s"]);
    assert!(code == 2 && stdout.contains("bad-") && stdout.contains("interrupted"), "{stdout}");
    assert!(bad.exists());
    assert_eq!(gc(&["--older-than", "0s", "--yes"]).0, 0);
    assert!(good.exists() && !bad.exists());
    assert_eq!(gc(&["--older-than", "soon"]).0, 2);
}

/// Makes files look older, as those of finished runs are.
fn settle(root: &Path) {
    let hour = SystemTime::now() - Duration::from_secs(3600);
    for folder in fs::read_dir(root).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let file = fs::File::options().write(true).open(file.unwrap().path()).unwrap();
            file.set_modified(hour).unwrap();
        }
    }
}

#[test]
fn compacted_runs_answer_as_before() {
    let root = tempfile::tempdir().unwrap();
    let folders: Vec<_> =
        (0..12).map(|i| run(root.path(), &format!("run{}", i % 5), &[], i, Status::Finished)).collect();
    let mut going_on =
        Run::create(root.path(), RunInfo { name: "now".to_owned(), ..RunInfo::default() }).unwrap();
    going_on.log(row(&[("kl", 9.0.into())])).unwrap();
    going_on.flush().unwrap();
    let questions = [
        "SELECT run_id, k, kl, latest FROM results ORDER BY run_id, k",
        "SELECT run_id, count(loss) AS n, sum(loss) AS s FROM training GROUP BY run_id ORDER BY run_id",
        "SELECT count(kl) AS n FROM results WHERE latest",
        "SELECT kl FROM results WHERE run = 'run3' ORDER BY kl",
        "SELECT COUNT(*) AS n FROM training",
    ];
    let answers = |root: &Path| questions.map(|sql| results::query(root, sql).unwrap().frame.to_csv());
    let listed = |root: &Path| succeeds(root, &["runs", "--format", "csv", "--status", "finished"]);
    let (before, list) = (answers(root.path()), listed(root.path()));

    let stdout = succeeds(root.path(), &["compact", "--quiet"]);
    assert!(stdout.starts_with("results: 11 files"), "{stdout}");
    assert!(folders.iter().all(|folder| !folder.join("results.parquet").exists()));
    assert!(going_on.folder().join("results.parquet").exists());
    assert_eq!(answers(root.path()), before);
    let counted = succeeds(root.path(), &["query", "SELECT COUNT(*) AS n FROM results", "--format", "csv"]);
    assert_eq!(counted, "n\n67\n", "66 rows of finished runs and one of the other, streamed");
    assert_eq!(listed(root.path()), list);

    // A second time there is nothing to do; new runs join, and removed ones are shed.
    assert!(succeeds(root.path(), &["compact", "--quiet"]).starts_with("results: nothing to merge"));
    run(root.path(), "run3", &[], 2, Status::Finished);
    succeeds(root.path(), &["runs", "rm", "run1", "run2", "--yes"]);
    let before = answers(root.path());
    succeeds(root.path(), &["compact", "--quiet"]);
    assert_eq!(answers(root.path()), before);
    let parts = || fs::read_dir(root.path().join("compacted")).unwrap().map(|item| item.unwrap().path());
    assert_eq!(parts().filter(|path| path.extension().is_some_and(|e| e == "parquet")).count(), 2);
}

/// Whether `lft compact` comes to its end in this time; it is killed when it does not.
fn finishes_within(root: &Path, patience: Duration) -> bool {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("lft"))
        .args(["--runs-dir", root.to_str().unwrap(), "compact", "--quiet"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(patience);
    let finished = child.try_wait().unwrap().is_some_and(|status| status.success());
    // One that has ended meanwhile is killed without effect.
    child.kill().unwrap();
    child.wait().unwrap();
    finished
}

#[test]
fn a_killed_compaction_loses_and_doubles_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (mut rows, columns) = (0i64, 30);
    for i in 0..columns * 4 {
        // Files with a column of their own cannot share a part, so that many parts are written.
        let name = format!("c{}", i % columns);
        let mut run = Run::create(root.path(), RunInfo { name: name.clone(), ..RunInfo::default() }).unwrap();
        for k in 0..20i64 {
            run.log(row(&[(&name, k.into())])).unwrap();
            rows += 1;
        }
        run.finish(Status::Finished).unwrap();
    }
    settle(root.path());
    let all = Value::Int(rows);
    let is_over = AtomicBool::new(false);
    let (counts, interrupted) = thread::scope(|scope| {
        // A reader beside it sees every row once at any moment.
        let reader = scope.spawn(|| {
            let mut counts = vec![count(root.path(), "results")];
            while !is_over.load(Ordering::Relaxed) {
                counts.push(count(root.path(), "results"));
            }
            counts
        });
        let interrupted = (1..)
            .map(|i| Duration::from_millis(5 * i))
            .take_while(|patience| !finishes_within(root.path(), *patience))
            .count();
        is_over.store(true, Ordering::Relaxed);
        (reader.join().unwrap(), interrupted)
    });
    assert!(counts.iter().all(|n| *n == all), "{all:?} rows became {counts:?}");
    assert!(interrupted > 5, "it was killed {interrupted} times on the way");
    let left = fs::read_dir(root.path())
        .unwrap()
        .filter(|item| item.as_ref().unwrap().path().join("results.parquet").exists());
    assert_eq!(left.count(), 0);
    let distinct = results::query(root.path(), "SELECT DISTINCT run_id FROM results").unwrap().frame;
    assert_eq!(distinct.height(), columns as usize * 4);
}

#[test]
fn many_runs_are_remembered_and_changes_are_seen() {
    let root = tempfile::tempdir().unwrap();
    let folders: Vec<_> =
        (0..260).map(|i| run(root.path(), &format!("run{i}"), &[], 1, Status::Finished)).collect();
    settle(root.path());
    let sum = || results::query(root.path(), "SELECT sum(kl) AS s FROM results").unwrap().frame.get(0, 0);
    assert_eq!(sum(), Value::Float(260.0));
    assert!(root.path().join(".lft-records.json").exists() && root.path().join(".lft-results.json").exists());
    assert_eq!(sum(), Value::Float(260.0));

    fs::remove_dir_all(&folders[0]).unwrap();
    let record = folders[1].join("run.json");
    fs::write(&record, fs::read_to_string(&record).unwrap().replace("finished", "failed")).unwrap();
    fs::copy(folders[2].join("results.parquet"), folders[3].join("results.parquet")).unwrap();
    assert_eq!(sum(), Value::Float(259.0));
    let stdout = succeeds(root.path(), &["runs", "--status", "failed", "--format", "csv"]);
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    let query = "SELECT count(kl) AS n FROM results WHERE run = 'run7'";
    assert_eq!(succeeds(root.path(), &["query", query, "--format", "csv"]), "n\n1\n");
}

#[test]
fn large_results_are_streamed_in_order() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "a", &[], 150_000, Status::Finished);
    run(root.path(), "b", &[], 50_000, Status::Finished);
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let sql = "SELECT run, step, loss FROM training";
    for name in ["a.csv", "a.json", "a.parquet"] {
        succeeds(root.path(), &["query", sql, "--output", &path(name)]);
    }
    let whole = results::query(root.path(), sql).unwrap().frame;
    assert_eq!(whole.height(), 200_000);
    assert!(fs::read_to_string(path("a.csv")).unwrap() == whole.to_csv());
    assert!(fs::read_to_string(path("a.json")).unwrap() == whole.to_json());
    assert!(fs::metadata(path("a.parquet")).unwrap().len() > 100_000);
    let empty = succeeds(root.path(), &["query", &format!("{sql} WHERE step < 0"), "--format", "csv"]);
    assert_eq!(empty, "run,step,loss\n");
}

/// Needs a Python with pyarrow, duckdb, pandas, polars and tensorboard: `LFT_PYTHON`, or `python3`. What it lacks is
/// skipped and named.
#[test]
fn python_reads_everything() {
    let root = tempfile::tempdir().unwrap();
    let runs = root.path().join("runs");
    run(&runs, "fine", &["cpu"], 5, Status::Finished);
    run(&runs, "<b>\"é", &[], 3, Status::Failed);
    run(&runs, "fine", &[], 0, Status::Finished);
    succeeds(&runs, &["compact", "--quiet"]);
    run(&runs, "after", &[], 2, Status::Finished);
    let logs = root.path().join("logs");
    succeeds(&runs, &["export", "--format", "tensorboard", "--output", logs.to_str().unwrap()]);
    succeeds(
        &runs,
        &["query", "SELECT * FROM training", "--output", root.path().join("all.parquet").to_str().unwrap()],
    );

    let python = std::env::var("LFT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/read_everything.py");
    let Ok(read) = Command::new(&python).args([script, root.path().to_str().unwrap()]).output() else {
        eprintln!("skipped: there is no {python}");
        return;
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    eprintln!("{}", text(&read.stdout));
    assert!(read.status.success(), "{}{}", text(&read.stdout), text(&read.stderr));
}

#[test]
fn runs_are_exported() {
    let root = tempfile::tempdir().unwrap();
    let folder = run(root.path(), "../x", &["cpu"], 3, Status::Finished);
    let id = folder.file_name().unwrap();
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("logs");
    succeeds(root.path(), &["export", "--format", "tensorboard", "--output", target.to_str().unwrap()]);
    let events = fs::read_dir(target.join(id).join("fm")).unwrap().next().unwrap().unwrap();
    assert!(events.file_name().to_str().unwrap().starts_with("events.out.tfevents."));
    succeeds(root.path(), &["export", "../x", "--format", "wandb", "--output", target.to_str().unwrap()]);
    let history = fs::read_to_string(target.join(id).join("history.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    assert_eq!((history.lines().count(), &last["_step"], &last["method"]), (3, &2.into(), &"fm".into()));
    let (code, _, stderr) =
        output(&mut lft(root.path()), &["export", "y", "--format", "wandb", "--output", "z"]);
    assert!(code == 1 && stderr.starts_with("error: no run is called `y`"), "{stderr}");
}
