//! Made rows for the tests: the shape of an ablation as `scripts/ablate_steps.lua` logs it.

use super::input::{Cell, Report, RunRecord, Script, Table};

/// `text`, for short tables.
pub fn text(text: &str) -> Cell {
    Cell::Text(text.to_string())
}

/// A table of columns and rows.
pub fn table(columns: &[&str], rows: Vec<Vec<Cell>>) -> Table {
    Table { columns: columns.iter().map(|column| column.to_string()).collect(), rows }
}

const COLUMNS: [&str; 17] = [
    "run",
    "run_id",
    "kind",
    "method",
    "block",
    "solver",
    "k",
    "kl",
    "nmse",
    "ppl",
    "teacher_ppl",
    "nfe",
    "tokens",
    "layers_removed",
    "params_removed",
    "label",
    "seconds",
];

/// One row of a student.
pub fn student(method: &str, block: &str, solver: &str, k: i64, kl: f64) -> Vec<Cell> {
    let evaluations = if solver == "euler" { k } else { 2 * k };
    let removed = if block == "{6,12}" { 5 } else { 11 };
    vec![
        text("ablate_steps"),
        text("ablate_steps-1"),
        text("flow"),
        text(method),
        text(block),
        text(solver),
        Cell::Int(k),
        Cell::Number(kl),
        Cell::Number(kl * 0.21),
        Cell::Number(33.91 * kl.exp()),
        Cell::Number(33.91),
        Cell::Int(evaluations),
        Cell::Int(16384),
        Cell::Int(removed),
        Cell::Int(removed * 198_272 - 124_000),
        Cell::Null,
        Cell::Number(0.8 * evaluations as f64),
    ]
}

/// One row of a skip baseline.
pub fn skip(block: &str, layers: i64, place: &str, kl: f64) -> Vec<Cell> {
    vec![
        text("ablate_steps"),
        text("ablate_steps-1"),
        text("skip"),
        text("skip"),
        text(block),
        Cell::Null,
        Cell::Null,
        Cell::Number(kl),
        Cell::Null,
        Cell::Number(33.91 * kl.exp()),
        Cell::Number(33.91),
        Cell::Int(0),
        Cell::Int(16384),
        Cell::Int(layers),
        Cell::Int(layers * 198_272),
        text(&format!("skip-{layers} {place}")),
        Cell::Number(0.7),
    ]
}

/// Rows of students and baselines.
pub fn results(rows: Vec<Vec<Cell>>) -> Table {
    table(&COLUMNS, rows)
}

/// A report with two blocks, four methods, three solvers and training curves, near the reference figures.
pub fn ablation(steps: usize) -> Report {
    let mut rows = Vec::new();
    let mut training = Vec::new();
    let starts = [
        (
            "{6,12}",
            [("fm", 0.30, 0.26), ("fw", 0.61, 0.236), ("hybrid", 0.45, 0.241), ("regression", 0.29, 0.29)],
        ),
        (
            "{6,18}",
            [("fm", 0.89, 0.84), ("fw", 1.23, 0.69), ("hybrid", 0.97, 0.70), ("regression", 0.735, 0.735)],
        ),
    ];
    for (block, methods) in starts {
        for (method, one, many) in methods {
            for (solver, order) in [("euler", 1.0), ("midpoint", 2.0), ("rk4", 3.0)] {
                for k in [1i64, 2, 3, 4, 6, 8].into_iter().filter(|k| method != "regression" || *k == 1) {
                    let kl = many + (one - many) * (k as f64).powf(-order) / order;
                    rows.push(student(method, block, solver, k, kl));
                }
            }
            let mut noise = 1u64;
            for step in 0..steps {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let jitter = (noise >> 40) as f64 / (1u64 << 24) as f64 - 0.5;
                let loss = many * (1.0 + 6.0 / (1.0 + step as f64 / 40.0)) * (0.25 * jitter).exp();
                training.push(vec![
                    text("ablate_steps"),
                    text("ablate_steps-1"),
                    text(method),
                    text(block),
                    Cell::Int(step as i64),
                    Cell::Number(loss),
                ]);
            }
        }
        let width = if block == "{6,12}" { 6 } else { 12 };
        for (layers, kl) in [(1, 0.090), (2, 0.209), (3, 0.351), (4, 0.477), (6, 0.930), (12, 2.365)] {
            if layers <= width {
                rows.push(skip(block, layers, "best", kl));
                rows.push(skip(block, layers, "middle", kl * 1.13));
            }
        }
    }
    Report {
        title: "How many solver steps does a latent flow need?".into(),
        runs: vec![run("ablate_steps", "ablate_steps-1")],
        results: results(rows),
        training: table(&["run", "run_id", "method", "block", "step", "loss"], training),
        benchmarks: Table::default(),
        notes: Vec::new(),
        sections: Vec::new(),
    }
}

/// A run with a short script.
pub fn run(name: &str, id: &str) -> RunRecord {
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    RunRecord {
        id: id.into(),
        name: name.into(),
        status: "finished".into(),
        seed: Some(7),
        script: Some(Script {
            path: "scripts/ablate_steps.lua".into(),
            source: "local lft = require(\"lft\")\nlocal opt = lft.options{steps = {300, \"training steps\"}}\nif opt.steps < 1 and true then\n  error(\"<no> & such\")\nend\n".into(),
        }),
        options: vec![pair("steps", "300"), pair("blocks", "[[6,12],[6,18]]"), pair("lr", "0.001")],
        arguments: vec!["--steps".into(), "300".into()],
        environment: vec![
            pair("started", "2025-11-23 17:40:12 UTC"),
            pair("duration", "12 min 30 s"),
            pair("device", "cpu"),
            pair("processor", "AMD EPYC 9B14 (2 cores)"),
            pair("seed", "7"),
            pair("git revision", "3299a47c0ffee (with changes)"),
            pair("versions", "lft 0.1.0, candle-core 0.11.1, polars 0.55.2"),
        ],
    }
}
