//! The main job in short: `scripts/ablate_steps.lua`, its tables, a query over them and the report.

mod program;

use std::fs;
use std::path::Path;

use program::{lft, output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs the ablation in a few steps.
fn ablate(runs: &Path) {
    let report = runs.join("ablation.html");
    let mut command = lft(runs);
    command.current_dir(ROOT);
    let arguments = [
        "--quiet",
        "--device",
        "cpu",
        "--seed",
        "3",
        "run",
        "scripts/ablate_steps.lua",
        "--",
        "--steps",
        "4",
        "--seq_len",
        "32",
        "--windows",
        "1",
        "--window",
        "32",
        "--ks",
        "1,2",
        "--report",
    ];
    let arguments: Vec<&str> = arguments.into_iter().chain(report.to_str()).collect();
    let (code, printed, errors) = output(&mut command, &arguments);
    assert_eq!(code, 0, "{errors}");
    assert!(printed.contains("kl / skip-2") && printed.contains("hybrid"), "{printed}");
    assert!(fs::metadata(&report).unwrap().len() > 100_000, "the report is missing its script");
}

#[test]
fn equal_seeds_leave_equal_results_that_can_be_queried() {
    let runs = tempfile::tempdir().unwrap();
    ablate(runs.path());
    ablate(runs.path());

    let query = |sql: &str| {
        let (code, printed, errors) = output(&mut lft(runs.path()), &["query", sql, "--format", "csv"]);
        assert_eq!(code, 0, "{errors}");
        printed
    };
    // All that the tables hold, to the last digit, but the identity of the run.
    let rows = |which: &str| {
        query(&format!(
            "SELECT kind, method, label, block, solver, k, nfe, kl, nmse, ppl, teacher_ppl, tokens, \"from\", count \
             FROM results WHERE {which} ORDER BY kind, method, label, solver, k"
        ))
    };
    assert_eq!(rows("latest"), rows("NOT latest"));
    let best = query(
        "SELECT method, solver, k, kl FROM results WHERE run = 'ablate_steps' AND latest ORDER BY kl LIMIT 5",
    );
    assert_eq!(best.lines().count(), 6, "{best}");
    assert_eq!(best.lines().next(), Some("method,solver,k,kl"));
    // Four algorithms, eight solvers, two numbers of steps.
    let rows = query("SELECT COUNT(*) AS n FROM results WHERE kind = 'flow' AND latest");
    assert_eq!(rows.lines().nth(1), Some("64"));
    let curves = query(
        "SELECT COUNT(DISTINCT loss) AS losses, COUNT(*) AS n FROM training GROUP BY method, step ORDER BY n",
    );
    assert!(curves.lines().skip(1).all(|line| line == "1,2"), "equal seeds gave different losses: {curves}");
}
