//! Saved timings, and the check of new ones against them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::bootstrap::Interval;
use super::statistics::median;
use super::verdict::times;
use crate::atomic;
use crate::results::environment;

/// Version of the file's layout.
const LAYOUT: u32 = 1;
/// Seed of the intervals, so that a check gives the same answer twice.
const SEED: u64 = 0;

/// Where timings come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// RFC 3339, UTC.
    pub saved: String,
    /// Processor model.
    pub processor: String,
    /// As in `--device`.
    pub device: String,
    /// Version of lft.
    pub lft: String,
}

impl Origin {
    /// This machine, now.
    pub fn here(device: &str) -> Self {
        Self {
            saved: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
            processor: environment::host().cpu,
            device: device.to_owned(),
            lft: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The timings of one script: seconds of one call, one a sample, by the benchmark's name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    layout: u32,
    #[serde(flatten)]
    pub origin: Origin,
    pub benchmarks: BTreeMap<String, Vec<f64>>,
}

impl Baseline {
    /// An empty one.
    pub fn new(origin: Origin) -> Self {
        Self { layout: LAYOUT, origin, benchmarks: BTreeMap::new() }
    }

    /// Reads a file that [`Baseline::save`] wrote.
    ///
    /// # Errors
    /// When there is none, or it is broken or of a newer layout.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let broken = || format!("{} is not a whole baseline", path.display());
        let baseline: Self = serde_json::from_str(&text).with_context(broken)?;
        ensure!(
            baseline.layout <= LAYOUT,
            "{} has layout {} and this lft reads up to {LAYOUT}: update lft",
            path.display(),
            baseline.layout
        );
        Ok(baseline)
    }

    /// Writes the file, whole or not at all; its folder is made where missing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        atomic::write(path, |file| Ok(serde_json::to_writer_pretty(file, self)?))
    }

    /// How new samples of a benchmark stand to those saved here; `None` for one that is not in it.
    pub fn change(&self, name: &str, samples: &[f64]) -> Option<Change> {
        let before = self.benchmarks.get(name)?;
        Some(Change {
            name: name.to_owned(),
            before: median(before),
            now: median(samples),
            interval: Interval::of_ratio(samples, before, SEED),
        })
    }
}

/// A benchmark now and in a baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub name: String,
    /// Median seconds in the baseline.
    pub before: f64,
    /// Median seconds now.
    pub now: f64,
    /// Of the ratio of now to before.
    pub interval: Interval,
}

impl Change {
    /// Time now over time before.
    pub fn ratio(&self) -> f64 {
        self.now / self.before
    }

    /// Whether the benchmark became slower by more than `tolerance` (0.05 is 5 %): the whole interval lies above
    /// `1 + tolerance`.
    pub fn is_regression(&self, tolerance: f64) -> bool {
        self.interval.low > 1.0 + tolerance
    }

    /// `lookup takes 1.10 times as long (95 % interval 1.08 to 1.12)`.
    pub fn sentence(&self) -> String {
        format!("{} takes {}", self.name, times(self.ratio(), &self.interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(center: f64) -> Vec<f64> {
        (0..20).map(|i| center * (1.0 + 0.001 * f64::from(i % 5))).collect()
    }

    fn baseline() -> Baseline {
        let origin = Origin { device: "cpu".into(), ..Origin::default() };
        let mut baseline = Baseline::new(origin);
        baseline.benchmarks.insert("lookup".into(), samples(1.0));
        baseline
    }

    #[test]
    fn files_keep_what_was_measured() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("main").join("script.json");
        baseline().save(&path)?;
        assert_eq!(Baseline::load(&path)?, baseline());
        Ok(())
    }

    #[test]
    fn only_a_change_beyond_tolerance_and_noise_is_a_regression() {
        let change = |center| baseline().change("lookup", &samples(center)).unwrap();
        let regressed = [0.5, 1.0, 1.03, 1.07, 2.0].map(|center| change(center).is_regression(0.05));
        assert_eq!(regressed, [false, false, false, true, true]);
        assert!(!change(1.07).is_regression(0.1));
        assert_eq!(change(2.0).sentence(), "lookup takes 2.00 times as long (95 % interval 2.00 to 2.00)");
        let noisy: Vec<f64> = (0..20).map(|i| if i % 2 == 0 { 0.8 } else { 1.6 }).collect();
        assert!(!baseline().change("lookup", &noisy).unwrap().is_regression(0.05));
        assert_eq!(baseline().change("other", &noisy), None);
    }

    #[test]
    fn broken_and_newer_files_are_named() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.json");
        let refused = || format!("{:#}", Baseline::load(&path).unwrap_err());
        assert!(refused().contains("a.json"));
        fs::write(&path, "{\"layout\"")?;
        assert!(refused().contains("a.json is not a whole baseline"));
        Baseline { layout: 9, ..baseline() }.save(&path)?;
        assert!(refused().contains("layout 9"));
        Ok(())
    }
}
