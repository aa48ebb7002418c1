//! What a sweep keeps of its finished points.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::space::{Config, label};
use crate::atomic;
use crate::results::{Catalog, SWEEP, Status};

/// `sweep.json` in the folder of a point's run.
#[derive(Serialize, Deserialize)]
struct Kept {
    sweep: String,
    /// The configuration as [`key`] writes it: numbers that went through a file as numbers may differ in the last digit.
    key: String,
    config: Config,
    /// The row that the point's function returned.
    result: Config,
}

/// A point that was run to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Its configuration, see [`key`].
    pub key: String,
    pub result: Config,
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
pub fn keep(folder: &Path, sweep: &str, config: &Config, result: &Config) -> Result<()> {
    let kept =
        Kept { sweep: sweep.to_owned(), key: key(config), config: config.clone(), result: result.clone() };
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
            Ok(kept) if kept.sweep == sweep => {
                if points.iter().all(|point| point.key != kept.key) {
                    let Kept { key, result, .. } = kept;
                    points.push(Finished { key, result, run_id: entry.record.id.clone() });
                }
            }
            Ok(_) => {}
            Err(error) => warnings.push(format!("skipped: {error:#}")),
        }
    }
    Ok((points, warnings))
}

fn read(path: &Path) -> Result<Kept> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is broken", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Run, RunInfo};
    use serde_json::json;

    fn config(lr: f64) -> Config {
        json!({"lr": lr, "walk": 3}).as_object().cloned().unwrap()
    }

    fn point(root: &Path, sweep: &str, lr: f64, kl: f64, status: Status) -> Run {
        let info = RunInfo { name: run_name(sweep, &config(lr)), ..RunInfo::default() };
        let mut run = Run::create(root, info).unwrap();
        let result = json!({"kl": kl}).as_object().cloned().unwrap();
        keep(run.folder(), sweep, &config(lr), &result).unwrap();
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
        let result = json!({"kl": 1.0}).as_object().cloned().unwrap();
        let expected = Finished { key: key(&config(0.1)), result, run_id: newer.record().id.clone() };
        assert_eq!(points, [expected]);
        assert!(warnings.len() == 1 && warnings[0].contains("sweep.json is broken"), "{warnings:?}");
    }

    #[test]
    fn every_number_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        let config = config(0.000_958_615_527_777_94);
        let mut run = Run::create(root.path(), RunInfo::default()).unwrap();
        keep(run.folder(), "a", &config, &Config::new()).unwrap();
        run.finish(Status::Finished).unwrap();
        assert_eq!(finished(root.path(), "a").unwrap().0[0].key, key(&config));
    }

    #[test]
    fn a_folder_without_runs_has_no_points() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(finished(&root.path().join("none"), "a").unwrap(), (vec![], vec![]));
        assert_eq!(run_name("lrs", &config(0.1)), "lrs/lr=0.1,walk=3");
    }
}
