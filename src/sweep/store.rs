//! What a sweep keeps of its finished points.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::exact;
use super::space::{Config, label};
use crate::atomic;
use crate::results::{Catalog, Row, SWEEP, Status};

/// `sweep.json` in the folder of a point's run.
#[derive(Serialize, Deserialize)]
struct Kept {
    sweep: String,
    /// The configuration as [`key`] writes it: numbers that went through a file as numbers may differ in the last digit.
    key: String,
    config: Config,
    /// The row that the point's function returned, see [`exact`].
    result: exact::Cells,
}

/// A point that was run to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Its configuration, see [`key`].
    pub key: String,
    /// The row that its function returned, as exact as it was then.
    pub result: Row,
    /// Id of its run.
    pub run_id: String,
}

/// The name of a point's run: `sweep/lr=0.001,walk=3`. Every point has its own, so that `latest` in queries is the
/// newest try of each.
pub fn run_name(sweep: &str, config: &Config) -> String {
    format!("{sweep}/{}", label(config))
}

/// What two configurations have in common when they are the same.
pub fn key(config: &Config) -> String {
    serde_json::Value::Object(config.clone()).to_string()
}

/// Marks a point as finished, whole or not at all. It counts once its run is finished, too.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(folder: &Path, sweep: &str, config: &Config, result: &Row) -> Result<()> {
    let kept = Kept {
        sweep: sweep.to_owned(),
        key: key(config),
        config: config.clone(),
        result: exact::cells(result),
    };
    atomic::write(&folder.join(SWEEP), |file| Ok(serde_json::to_writer_pretty(file, &kept)?))
}

/// The finished points of a sweep, the newest run of each configuration. Points whose files cannot be read are named
/// in the warnings and count as not finished.
///
/// # Errors
/// When the runs folder cannot be listed.
pub fn finished(root: &Path, sweep: &str) -> Result<(Vec<Finished>, Vec<String>)> {
    let catalog = Catalog::read(root)?;
    let (mut points, mut warnings) = (Vec::<Finished>::new(), catalog.warnings);
    for entry in catalog.entries.iter().rev().filter(|entry| entry.record.status == Status::Finished) {
        let path = entry.folder.join(SWEEP);
        if !path.exists() {
            continue;
        }
        match read(&path) {
            Ok((kept, result)) if kept.sweep == sweep => {
                if points.iter().all(|point| point.key != kept.key) {
                    points.push(Finished { key: kept.key, result, run_id: entry.record.id.clone() });
                }
            }
            Ok(_) => {}
            Err(error) => warnings.push(format!("skipped: {error:#}")),
        }
    }
    Ok((points, warnings))
}

/// What is kept in a file, and the result in it.
fn read(path: &Path) -> Result<(Kept, Row)> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let broken = || format!("{} is broken", path.display());
    let kept: Kept = serde_json::from_str(&text).with_context(broken)?;
    let result = exact::row(&kept.result).with_context(broken)?;
    Ok((kept, result))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Run, RunInfo};
    use serde_json::json;

    fn config(lr: f64) -> Config {
        json!({"lr": lr, "walk": 3}).as_object().cloned().unwrap()
    }

    fn result(kl: f64) -> Row {
        vec![("kl".to_owned(), kl.into())]
    }

    fn point(root: &Path, sweep: &str, lr: f64, kl: f64, status: Status) -> Run {
        let info = RunInfo { name: run_name(sweep, &config(lr)), ..RunInfo::default() };
        let mut run = Run::create(root, info).unwrap();
        keep(run.folder(), sweep, &config(lr), &result(kl)).unwrap();
        run.finish(status).unwrap();
        run
    }

    #[test]
    fn only_finished_points_of_the_sweep_count_and_the_newest_of_each() {
        let root = tempfile::tempdir().unwrap();
        point(root.path(), "a", 0.1, 9.0, Status::Finished);
        std::thread::sleep(std::time::Duration::from_millis(2));
        let newer = point(root.path(), "a", 0.1, 1.0, Status::Finished);
        point(root.path(), "a", 0.2, 2.0, Status::Interrupted);
        point(root.path(), "b", 0.3, 3.0, Status::Finished);
        let broken = point(root.path(), "a", 0.4, 4.0, Status::Finished);
        fs::write(broken.folder().join(SWEEP), "{").unwrap();

        let (points, warnings) = finished(root.path(), "a").unwrap();
        let expected =
            Finished { key: key(&config(0.1)), result: result(1.0), run_id: newer.record().id.clone() };
        assert_eq!(points, [expected]);
        assert!(warnings.len() == 1 && warnings[0].contains("sweep.json is broken"), "{warnings:?}");
    }

    #[test]
    fn every_number_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        // One of the tenth of all numbers that `serde_json` misses.
        let number = 0.198_440_042_788_562_86;
        point(root.path(), "a", number, number, Status::Finished);
        let (points, _) = finished(root.path(), "a").unwrap();
        assert_eq!((&points[0].key, &points[0].result), (&key(&config(number)), &result(number)));
    }

    #[test]
    fn a_result_that_is_no_row_is_broken() {
        let root = tempfile::tempdir().unwrap();
        let run = point(root.path(), "a", 0.1, 1.0, Status::Finished);
        let path = run.folder().join(SWEEP);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("1.0\"", "one\"")).unwrap();
        let (points, warnings) = finished(root.path(), "a").unwrap();
        assert!(points.is_empty() && warnings[0].contains("'kl' is {\"float\":\"one\"}"), "{warnings:?}");
    }

    #[test]
    fn a_folder_without_runs_has_no_points() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(finished(&root.path().join("none"), "a").unwrap(), (vec![], vec![]));
        assert_eq!(run_name("lrs", &config(0.1)), "lrs/lr=0.1,walk=3");
    }
}
