//! Time to list and query many runs, from small files and from compacted ones, with the system's file cache warm.
//!
//! The benchmark makes its data itself: `LFT_BENCH_RUNS` runs (200 unless given) of `LFT_BENCH_ROWS` training rows each
//! (500 unless given) and 40 results, in a folder that it removes again. The size that the project promises is
//! `LFT_BENCH_RUNS=10000 LFT_BENCH_ROWS=5000`, 50 million rows in all; it takes about 2 GiB of disk.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use lft::results::{self, Listing, Run, RunInfo, RunRecord, Status};
use polars::prelude::*;

const RESULTS: usize = 40;

/// What users ask, with a name each.
const QUESTIONS: [(&str, &str); 6] = [
    ("count all", "SELECT COUNT(*) AS n FROM training"),
    ("curve of one run", "SELECT step, loss FROM training WHERE run = 'run7' ORDER BY step"),
    ("best of each method", "SELECT method, min(kl) AS kl FROM results GROUP BY method"),
    ("ten best", "SELECT run, k, kl FROM results WHERE latest ORDER BY kl LIMIT 10"),
    ("runs by status", "SELECT status, COUNT(*) AS n FROM runs GROUP BY status"),
    (
        "last loss of each run",
        "SELECT run_id, loss FROM training WHERE step IN (SELECT max(step) FROM training)",
    ),
];
/// These read a column of every training row.
const SCANS: [(&str, &str); 2] = [
    ("least loss of all", "SELECT min(loss) AS loss FROM training"),
    ("least loss of each run", "SELECT run_id, min(loss) AS loss FROM training GROUP BY run_id"),
];

fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs as `lft` writes them; their tables are made in bulk, since logging 50 million rows one by one takes minutes.
fn make(root: &Path, runs: usize, rows: usize) {
    let info = RunInfo {
        name: "template".to_owned(),
        script_text: Some("-- a script\n".repeat(300)),
        ..RunInfo::default()
    };
    let mut template = Run::create(root, info).expect("a run");
    template.finish(Status::Finished).expect("a finished run");
    let record = template.record().clone();
    fs::remove_dir_all(template.folder()).expect("an empty folder of runs");
    let methods = ["fm", "fw", "hybrid", "regression"];
    let method =
        |n: usize, of: usize| -> Vec<&str> { (0..n).map(|i| methods[i * 4 / of.max(1) % 4]).collect() };
    let noise = |i: usize| ((i * 7919 % 1000) as f64) / 1e3;
    let training = df!(
        "method" => method(rows, rows), "block" => vec!["6,12"; rows],
        "step" => (0..rows).map(|i| (i % (rows / 4).max(1)) as i64).collect::<Vec<_>>(),
        "loss" => (0..rows).map(|i| 1.0 + noise(i)).collect::<Vec<_>>(),
        "lr" => vec![1e-3; rows],
        "grad_norm" => (0..rows).map(|i| 10.0 * noise(i + 5)).collect::<Vec<_>>(),
        "tokens" => (0..rows).map(|i| 512 * i as i64).collect::<Vec<_>>(),
        "seconds" => (0..rows).map(|i| i as f64 / 4.0).collect::<Vec<_>>(),
    );
    let results = df!(
        "method" => method(RESULTS, RESULTS), "solver" => vec!["midpoint"; RESULTS],
        "k" => (0..RESULTS).map(|i| (i % 10) as i64).collect::<Vec<_>>(),
        "kl" => (0..RESULTS).map(|i| 0.3 + noise(i)).collect::<Vec<_>>(),
        "nmse" => (0..RESULTS).map(|i| 0.1 + noise(i)).collect::<Vec<_>>(),
    );
    let (training, results) = (training.expect("columns"), results.expect("columns"));
    for at in 0..runs {
        // Five runs share a name, as repeated experiments do.
        let (id, name) = (format!("run{}-{at:06}", at / 5), format!("run{}", at / 5));
        let folder = root.join(&id);
        fs::create_dir(&folder).expect("a folder");
        write(&folder.join("training.parquet"), &training, &name, &id);
        write(&folder.join("results.parquet"), &results, &name, &id);
        let start = format!("2026-01-01T{:02}:{:02}:{:02}.000Z", at / 3600, at / 60 % 60, at % 60);
        let counts = (RESULTS, rows);
        let record =
            RunRecord { id, name, start, results_rows: counts.0, training_rows: counts.1, ..record.clone() };
        let text = serde_json::to_string_pretty(&record).expect("a record");
        fs::write(folder.join("run.json"), text).expect("a file");
    }
}

fn write(path: &Path, rows: &DataFrame, name: &str, id: &str) {
    let constant = |column: &str, text: &str| {
        Column::new_scalar(column.into(), PlSmallStr::from(text).into(), rows.height())
    };
    let mut columns = vec![constant("run", name), constant("run_id", id)];
    columns.extend(rows.columns().iter().cloned());
    let mut frame = DataFrame::new(rows.height(), columns).expect("a table");
    let writer = ParquetWriter::new(File::create(path).expect("a file"));
    writer.with_compression(ParquetCompression::Zstd(None)).finish(&mut frame).expect("a whole file");
}

fn measure(criterion: &mut Criterion, layout: &str, root: &Path) {
    let mut group = criterion.benchmark_group(layout);
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1));
    group.bench_function("lft runs", |bencher| {
        bencher.iter(|| results::list(root, &Listing::default()).expect("a list"));
    });
    for (name, sql) in QUESTIONS.into_iter().chain(SCANS) {
        group.bench_function(name, |bencher| bencher.iter(|| results::query(root, sql).expect("an answer")));
    }
}

fn tables(criterion: &mut Criterion) {
    let (runs, rows) = (size("LFT_BENCH_RUNS", 200), size("LFT_BENCH_ROWS", 500));
    let root = tempfile::tempdir().expect("a folder");
    make(root.path(), runs, rows);
    // What changed in the last two seconds is not remembered.
    std::thread::sleep(Duration::from_secs(3));
    measure(criterion, &format!("{runs} runs, {rows} rows each, own files"), root.path());
    for (_, file) in results::FILES {
        results::compact(root.path(), file, &mut |_, _| {}).expect("parts");
    }
    std::thread::sleep(Duration::from_secs(3));
    measure(criterion, &format!("{runs} runs, {rows} rows each, compacted"), root.path());
}

criterion_group!(benches, tables);
criterion_main!(benches);
