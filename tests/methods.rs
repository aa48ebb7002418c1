//! The scripts that compare methods, from end to end in a few steps: what they print and what they leave behind.

mod program;

use std::fs;
use std::path::Path;

use program::{lft, output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a script of the repository and returns what it printed.
fn run(runs: &Path, script: &str, arguments: &[&str]) -> String {
    let mut all = vec!["--quiet", "--device", "cpu", "run", script, "--"];
    all.extend(arguments);
    let (code, printed, errors) = output(lft(runs).current_dir(ROOT), &all);
    assert_eq!(code, 0, "{errors}");
    printed
}

fn query(runs: &Path, sql: &str) -> String {
    let (code, printed, errors) = output(&mut lft(runs), &["query", sql, "--format", "csv"]);
    assert_eq!(code, 0, "{errors}");
    printed
}

#[test]
fn reference_trains_configurations_from_the_command_line() {
    let runs = tempfile::tempdir().unwrap();
    let save = runs.path().join("students");
    let configs = "block=6:8 method=fm; block=6:9 curriculum=fm:0.5,kl:0.5 kl_solver=euler kl_steps=2 name=both; \
                   block=6:8 method=kl rank=2 learn_times=2 kl_steps=2 optimizer=muon name=low";
    let small = ["--steps", "2", "--batch", "1", "--seq_len", "16", "--windows", "1", "--window", "16"];
    let mut arguments =
        vec!["--configs", configs, "--save", save.to_str().unwrap(), "--evaluate", "euler:2,midpoint:1"];
    arguments.extend(small);
    let printed = run(runs.path(), "scripts/reference.lua", &arguments);
    assert!(printed.contains("euler:2") && printed.contains("both"), "{printed}");
    let rows =
        query(runs.path(), "SELECT COUNT(*) AS n, COUNT(DISTINCT method) AS m FROM results WHERE kl > 0");
    assert_eq!(rows.lines().nth(1), Some("6,3"));
    for name in ["fm-6-8", "both-6-9", "low-6-8"] {
        assert!(save.join(name).join("velocity.safetensors").is_file(), "{name}");
    }
}

#[test]
fn a_configuration_with_an_unknown_key_is_refused() {
    let runs = tempfile::tempdir().unwrap();
    let arguments = ["--quiet", "run", "scripts/reference.lua", "--", "--configs", "block=6:8 kl_wieght=1"];
    let (code, _, errors) = output(lft(runs.path()).current_dir(ROOT), &arguments);
    assert_eq!(code, 1);
    assert!(errors.contains("did you mean 'kl_weight'"), "{errors}");
}

#[test]
fn recoupling_measures_every_block() {
    let runs = tempfile::tempdir().unwrap();
    let report = runs.path().join("recoupling.html");
    let arguments = ["--sequences", "2", "--tokens", "16", "--report", report.to_str().unwrap()];
    let printed = run(runs.path(), "scripts/recoupling.lua", &arguments);
    assert!(printed.contains("300 blocks") && printed.contains("angular"), "{printed}");
    let rows = query(
        runs.path(),
        "SELECT m, n FROM results WHERE lo <= ratio AND ratio <= hi AND ratio < 1 AND m < n AND cosine > 0",
    );
    assert_eq!(rows.lines().count(), 1 + 300);
    assert!(report.is_file());
}

#[test]
fn token_steps_hold_thresholds_against_fixed_steps() {
    let runs = tempfile::tempdir().unwrap();
    let report = runs.path().join("token_steps.html");
    let arguments = [
        "--block",
        "6,8",
        "--method",
        "fm:0.5,kl:0.5",
        "--ks",
        "1,2,3",
        "--most",
        "3",
        "--exits",
        "0,100",
        "--seeds",
        "1,2",
        "--steps",
        "2",
        "--batch",
        "1",
        "--seq_len",
        "16",
        "--windows",
        "1",
        "--report",
        report.to_str().unwrap(),
    ];
    let printed = run(runs.path(), "scripts/token_steps.lua", &arguments);
    assert!(printed.contains("At equal mean NFE, per-token k gives a KL"), "{printed}");
    // A threshold of 0 stops no token that moves, and one of 100 stops all of them after one step.
    let rows = query(
        runs.path(),
        "SELECT exit, COUNT(*) AS n, MIN(mean_nfe) AS lo, MAX(mean_nfe) AS hi FROM results WHERE exit IS NOT NULL \
         GROUP BY exit ORDER BY exit",
    );
    assert_eq!(rows, "exit,n,lo,hi\n0.0,2,3.0,3.0\n100.0,2,1.0,1.0\n");
    assert!(report.is_file());
}

#[test]
fn the_papers_table_has_its_methods_and_rivals() {
    papers_table("f32");
}

#[test]
fn the_papers_table_can_be_made_in_bf16() {
    papers_table("bf16");
}

fn papers_table(dtype: &str) {
    let runs = tempfile::tempdir().unwrap();
    let markdown = runs.path().join("table.md");
    let arguments = [
        "data/teacher",
        "data/corpus/valid.txt",
        "--dtype",
        dtype,
        "--steps",
        "2",
        "--batch",
        "1",
        "--seq_len",
        "16",
        "--windows",
        "1",
        "--window",
        "32",
        "--markdown",
        markdown.to_str().unwrap(),
    ];
    let printed = run(runs.path(), "scripts/paper_table.lua", &arguments);
    let table = fs::read_to_string(&markdown).unwrap();
    for method in ["fm", "fw", "hybrid", "regression", "skip-4", "LLM-Streamline", "ReplaceMe", "ShortGPT"] {
        assert!(
            printed.contains(method) && table.contains(&format!("| {method} |")),
            "{method} is missing:\n{table}"
        );
    }
    assert_eq!(table.lines().count(), 2 + 2 * (4 + 2) + 5 + 6);
    assert!(table.contains("0.407") && table.contains("0.932"), "the published figures stand beside");
}
