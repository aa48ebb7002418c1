//! Time to list and query many runs, from small files and from compacted ones, with the system's file cache warm.
//!
//! The benchmark makes its data itself: `LFT_BENCH_RUNS` runs (200 unless given) of `LFT_BENCH_ROWS` training rows each
//! (500 unless given) and 40 results, in a folder that it removes again. The size that the project promises is
//! `LFT_BENCH_RUNS=10000 LFT_BENCH_ROWS=5000`, 50 million rows in all; it takes about 2 GiB of disk.
//!
//! `LFT_BENCH_FOLDER=DIR` keeps the runs in a folder, and takes those that it finds there: they are made once, and the
//! program itself can be timed on them (`time lft --runs-dir DIR query …`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use lft::results::{self, Listing, Run, RunInfo, RunRecord, Status};
use polars::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
/// Losses and norms are noise in single precision, as trainings log them, so that files are as large as real ones.
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
        "lr" => vec![1e-3; rows],
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
    let mut random = ChaCha8Rng::seed_from_u64(0);
    for at in 0..runs {
        // Five runs share a name, as repeated experiments do.
        let (id, name) = (format!("run{}-{at:06}", at / 5), format!("run{}", at / 5));
        let folder = root.join(&id);
        fs::create_dir(&folder).expect("a folder");
        let mut noisy = |name: &str, least: f32| {
            let values = (0..rows).map(|_| f64::from(least + random.random::<f32>()));
            Column::new(name.into(), values.collect::<Vec<f64>>())
        };
        let noise = [noisy("loss", 1.0), noisy("grad_norm", 0.5)];
        write(&folder.join("training.parquet"), &training.hstack(&noise).expect("columns"), &name, &id);
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

/// The folders of both layouts: files of their own, and the same rows compacted. Each is made where it is missing.
fn layouts(folder: &Path, runs: usize, rows: usize) -> (PathBuf, PathBuf) {
    let (own, compacted) = (folder.join("own"), folder.join("compacted"));
    if !own.exists() {
        fs::create_dir_all(&own).expect("a folder");
        make(&own, runs, rows);
    }
    if !compacted.exists() {
        link(&own, &compacted);
        for (_, file) in results::FILES {
            results::compact(&compacted, file, &mut |_, _| {}).expect("parts");
        }
    }
    // What changed in the last two seconds is not remembered.
    std::thread::sleep(Duration::from_secs(3));
    (own, compacted)
}

/// A copy of the runs that shares their files until `lft compact` removes its own.
fn link(from: &Path, to: &Path) {
    for item in fs::read_dir(from).expect("a folder").map(|item| item.expect("a name")) {
        let target = to.join(item.file_name());
        if item.path().is_dir() {
            fs::create_dir_all(&target).expect("a folder");
            link(&item.path(), &target);
        } else {
            fs::hard_link(item.path(), &target).expect("a link");
        }
    }
}

fn tables(criterion: &mut Criterion) {
    let (runs, rows) = (size("LFT_BENCH_RUNS", 200), size("LFT_BENCH_ROWS", 500));
    let passing = tempfile::tempdir().expect("a folder");
    let folder = std::env::var_os("LFT_BENCH_FOLDER").map_or(passing.path().to_owned(), PathBuf::from);
    let (own, compacted) = layouts(&folder, runs, rows);
    measure(criterion, &format!("{runs} runs, {rows} rows each, own files"), &own);
    measure(criterion, &format!("{runs} runs, {rows} rows each, compacted"), &compacted);
}

criterion_group!(benches, tables);
criterion_main!(benches);
