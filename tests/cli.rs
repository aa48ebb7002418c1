//! The program end to end, on runs that the library prepared.

mod program;

use std::fs;
use std::io::Read;
use std::process::{Command, Output, Stdio};

use lft::results::{Run, RunInfo, Status, Value};
use program::{lft, output};

const BEST: &str = "SELECT method, solver, k, kl FROM results WHERE run = 'ablate_steps' ORDER BY kl LIMIT 5";

fn runs_folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let info = RunInfo { name: "ablate_steps".to_owned(), ..RunInfo::default() };
    let mut run = Run::create(root.path(), info).unwrap();
    for (method, k, kl) in [("fm", 1i64, 0.5), ("fw", 3, 0.123456), ("hybrid", 8, 0.25)] {
        let cells: [(&str, Value); 4] =
            [("method", method.into()), ("solver", "midpoint".into()), ("k", k.into()), ("kl", kl.into())];
        run.log(cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()).unwrap();
    }
    run.finish(Status::Finished).unwrap();
    root
}

#[test]
fn query_prints_an_aligned_table() {
    let root = runs_folder();
    let (code, stdout, stderr) = output(&mut lft(root.path()), &["query", BEST]);
    let expected = concat!(
        " method  solver    k      kl\n",
        "─────────────────────────────\n",
        " fw      midpoint  3  0.1235\n",
        " hybrid  midpoint  8    0.25\n",
        " fm      midpoint  1     0.5\n",
    );
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, expected, ""));
}

#[test]
fn query_writes_every_format() {
    let root = runs_folder();
    let csv = "method,solver,k,kl\nfw,midpoint,3,0.123456\nhybrid,midpoint,8,0.25\nfm,midpoint,1,0.5\n";
    let (code, stdout, _) = output(&mut lft(root.path()), &["query", BEST, "--format", "csv"]);
    assert_eq!((code, stdout.as_str()), (0, csv));

    let (code, stdout, _) = output(&mut lft(root.path()), &["query", BEST, "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, rows.as_array().unwrap().len(), &rows[0]["kl"]), (0, 3, &serde_json::json!(0.123456)));

    let (_, stdout, _) = output(&mut lft(root.path()), &["query", BEST, "--format", "markdown"]);
    assert!(stdout.starts_with("| method | solver | k | kl |\n| --- | --- | ---: | ---: |\n"), "{stdout}");

    let files = tempfile::tempdir().unwrap();
    for (name, begin) in
        [("a.csv", "method,"), ("a.json", "[\n"), ("a.parquet", "PAR1"), ("a.txt", " method")]
    {
        let path = files.path().join(name);
        let (code, stdout, stderr) =
            output(&mut lft(root.path()), &["query", BEST, "--output", path.to_str().unwrap()]);
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
        assert!(fs::read(&path).unwrap().starts_with(begin.as_bytes()), "{name}");
    }
    assert_eq!(fs::read_dir(files.path()).unwrap().count(), 4, "no temporary file is left");
}

#[test]
fn mistakes_are_one_line_with_the_right_exit_code() {
    let root = runs_folder();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["query", "SELECT kll FROM results"], 1, "error: no column `kll` (did you mean `kl`?)"),
        (&["query", "SELECT kl FROM resluts"], 1, "error: no table `resluts` (did you mean `results`?)"),
        (&["query", BEST, "--format", "parquet"], 2, "error: --format parquet needs --output FILE"),
        (
            &["query", BEST, "--output", "/no/such/folder/a.csv"],
            1,
            "error: cannot write /no/such/folder/a.csv",
        ),
        (&["query", BEST, "--format", "xml"], 2, "error: invalid value 'xml'"),
        (&["runs", "--device", "gpu"], 2, "error: invalid value 'gpu'"),
        (&["fly"], 2, "error: unrecognized subcommand 'fly'"),
    ];
    for (arguments, expected, message) in cases {
        let (code, stdout, stderr) = output(&mut lft(root.path()), arguments);
        assert_eq!((code, stdout.as_str()), (expected, ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with(message), "{arguments:?}: {stderr}");
    }
}

#[test]
fn an_empty_runs_folder_says_how_to_fill_it() {
    let root = tempfile::tempdir().unwrap();
    let (code, _, stderr) = output(&mut lft(root.path()), &["query", BEST]);
    assert!(code == 1 && stderr.starts_with("error: no runs in the folder"), "{stderr}");
    let (code, _, stderr) = output(&mut lft(root.path()), &["runs"]);
    assert!(code == 0 && stderr.starts_with("no runs in the folder"), "{stderr}");
    let (code, stdout, stderr) = output(&mut lft(root.path()), &["runs", "--quiet", "--format", "json"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "[]\n", ""));
}

#[test]
fn a_broken_file_is_named_and_the_rest_answered() {
    let root = runs_folder();
    let broken = root.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("run.json"), "{").unwrap();
    let (code, stdout, stderr) = output(&mut lft(root.path()), &["--quiet", "query", BEST]);
    assert_eq!((code, stdout.lines().count()), (0, 5));
    assert!(stderr.starts_with("warning: skipped: ") && stderr.contains("broken/run.json"), "{stderr}");
}

#[test]
fn runs_are_listed_from_the_folder_that_the_environment_names() {
    let root = runs_folder();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lft"));
    let (code, stdout, _) = output(command.env("LFT_RUNS", root.path()), &["runs", "--format", "csv"]);
    assert_eq!(code, 0);
    let mut lines = stdout.lines();
    assert_eq!(lines.next(), Some("run,status,rows,start,seconds,kl_best,best_row,kl_last,tags,run_id"));
    assert!(lines.next().unwrap().starts_with("ablate_steps,finished,3,"), "{stdout}");
}

#[test]
fn help_and_version_succeed() {
    let root = tempfile::tempdir().unwrap();
    let (code, stdout, _) = output(&mut lft(root.path()), &["--help"]);
    assert!(code == 0 && stdout.contains("Examples:") && stdout.contains("lft query"), "{stdout}");
    for command in ["run", "repl", "query", "report", "runs", "compact", "export", "info"] {
        assert!(stdout.contains(&format!("  {command} ")), "{command}: {stdout}");
        assert_eq!(output(&mut lft(root.path()), &[command, "--help"]).0, 0);
    }
    let (code, stdout, _) = output(&mut lft(root.path()), &["--version"]);
    assert!(code == 0 && stdout.starts_with(&format!("lft {} (", env!("CARGO_PKG_VERSION"))), "{stdout}");
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::create(root.path(), RunInfo { name: "a".to_owned(), ..RunInfo::default() }).unwrap();
    for step in 0..50_000i64 {
        run.log(vec![("step".to_owned(), step.into())]).unwrap();
    }
    run.finish(Status::Finished).unwrap();

    let mut child = lft(root.path())
        .args(["query", "SELECT * FROM results", "--format", "csv"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn types_serve_editors_and_keep_settings_that_are_there() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("scripts");
    let write = || output(&mut lft(root.path()), &["types", folder.to_str().unwrap()]);
    let (code, stdout, stderr) = write();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    let definitions = fs::read_to_string(folder.join("lft.lua")).unwrap();
    assert!(definitions.starts_with("---@meta lft\n") && definitions.contains("function lft.ode.solve("));
    let settings = folder.join(".luarc.json");
    let parsed: serde_json::Value = serde_json::from_str(&fs::read_to_string(&settings).unwrap()).unwrap();
    assert_eq!(parsed["runtime.version"], "Lua 5.4");

    fs::write(&settings, "{}").unwrap();
    let (code, _, stderr) = write();
    assert_eq!((code, fs::read_to_string(&settings).unwrap().as_str()), (0, "{}"));
    assert!(stderr.starts_with("kept "), "{stderr}");
    assert_eq!(output(&mut lft(root.path()), &["types"]).0, 2);
}

#[test]
fn the_reference_is_the_one_that_the_program_writes() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("lua.md");
    let (code, _, stderr) = output(&mut lft(root.path()), &["types", "--reference", file.to_str().unwrap()]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let kept = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lua.md")).unwrap_or_default();
    assert!(
        fs::read_to_string(file).unwrap() == kept,
        "docs/lua.md is out of date; write it anew with `lft types --reference docs/lua.md`"
    );
}

#[test]
fn the_roofline_is_measured_for_one_and_for_all_threads() {
    let root = tempfile::tempdir().unwrap();
    let mut command = lft(root.path());
    let (code, stdout, stderr) =
        output(command.env("RAYON_NUM_THREADS", "2").env("LFT_AMX", "0"), &["bench", "roofline", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let lines: Vec<serde_json::Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["threads"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    for line in &lines {
        assert!(
            ["vector_product", "read", "copy"].iter().all(|rate| line[rate].as_f64().unwrap() > 1e8),
            "{line}"
        );
        assert!(line["tile_product"].is_null(), "LFT_AMX=0 leaves the tile unit alone: {line}");
    }
}
