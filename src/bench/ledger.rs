//! The timings of one script, held against one baseline and saved as another.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::baseline::{Baseline, Change, Origin};
use crate::nearest::nearest;
use crate::results::sanitise;

/// Folder of the baselines among the runs.
const FOLDER: &str = "baselines";

/// What the command line says about baselines.
#[derive(Clone, Debug, PartialEq)]
pub struct Baselines {
    /// Compare with this one.
    pub against: Option<String>,
    /// Save as this one.
    pub save: Option<String>,
    /// A benchmark may become slower by this share.
    pub tolerance: f64,
}

impl Default for Baselines {
    fn default() -> Self {
        Self { against: None, save: None, tolerance: 0.05 }
    }
}

/// Benchmarks that became slower than in a baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Regressed {
    baseline: String,
    changes: Vec<Change>,
}

impl fmt::Display for Regressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes: Vec<String> = self.changes.iter().map(Change::sentence).collect();
        write!(f, "slower than in baseline `{}`: {}", self.baseline, changes.join("; "))
    }
}

impl std::error::Error for Regressed {}

/// Collects a script's timings; a name that is measured again replaces what was there.
#[derive(Debug)]
pub struct Ledger {
    options: Baselines,
    saved_at: Option<PathBuf>,
    known: Option<Baseline>,
    timings: Baseline,
}

impl Ledger {
    /// Opens the baseline to compare with. `root` is the runs folder; baselines of different scripts are files of
    /// their own.
    ///
    /// # Errors
    /// When that baseline does not exist or is broken, or a name is not one word.
    pub fn open(root: &Path, script: &str, options: Baselines, origin: Origin) -> Result<Self> {
        let place = |name: &String| path(root, name, script);
        let saved_at = options.save.as_ref().map(place).transpose()?;
        let known = match &options.against {
            Some(name) => Some(load(root, name, &place(name)?)?),
            None => None,
        };
        Ok(Self { options, saved_at, known, timings: Baseline::new(origin) })
    }

    /// Adds the samples of a benchmark: seconds of one call.
    pub fn record(&mut self, name: &str, samples: &[f64]) {
        self.timings.benchmarks.insert(name.to_owned(), samples.to_vec());
    }

    /// Saves what was measured and compares it. `tell` hears how every benchmark stands to the baseline.
    ///
    /// # Errors
    /// [`Regressed`]; nothing measured although a baseline was named; a file that cannot be written.
    pub fn close(&self, mut tell: impl FnMut(&str)) -> Result<()> {
        let Baselines { against, save, tolerance } = &self.options;
        if against.is_none() && save.is_none() {
            return Ok(());
        }
        ensure!(!self.timings.benchmarks.is_empty(), "a baseline was named, but the script ran no lft.bench");
        if let Some(path) = &self.saved_at {
            self.timings.save(path)?;
            tell(&format!("baseline saved: {}", path.display()));
        }
        let (Some(name), Some(known)) = (against, &self.known) else { return Ok(()) };
        for line in self.differences(name, known) {
            tell(&line);
        }
        let mut changes = Vec::new();
        for (benchmark, samples) in &self.timings.benchmarks {
            match known.change(benchmark, samples) {
                Some(change) => {
                    tell(&format!("{}, held against baseline `{name}`", change.sentence()));
                    changes.push(change);
                }
                None => tell(&format!("{benchmark} is not in baseline `{name}`")),
            }
        }
        changes.retain(|change| change.is_regression(*tolerance));
        match changes.is_empty() {
            true => Ok(()),
            false => bail!(Regressed { baseline: name.clone(), changes }),
        }
    }

    /// What makes the comparison doubtful.
    fn differences(&self, name: &str, known: &Baseline) -> Vec<String> {
        let (here, there) = (&self.timings.origin, &known.origin);
        let facts =
            [("processor", &here.processor, &there.processor), ("device", &here.device, &there.device)];
        let different = facts.into_iter().filter(|(_, here, there)| here != there);
        let line = |(what, here, there): (&str, &String, &String)| {
            format!("warning: baseline `{name}` was measured on another {what}: {there}, not {here}")
        };
        different.map(line).collect()
    }
}

fn path(root: &Path, name: &str, script: &str) -> Result<PathBuf> {
    ensure!(
        sanitise(name) == name,
        "`{name}` cannot name a baseline: use letters, digits, -, _ and inner dots"
    );
    Ok(root.join(FOLDER).join(name).join(format!("{}.json", sanitise(script))))
}

fn load(root: &Path, name: &str, path: &Path) -> Result<Baseline> {
    if path.exists() {
        return Baseline::load(path);
    }
    let listing = std::fs::read_dir(root.join(FOLDER)).into_iter().flatten().flatten();
    let known: Vec<String> = listing.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = nearest(name, known.iter().map(String::as_str)).filter(|near| *near != name);
    let hint = near.map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
    bail!(
        "there is no baseline `{name}` of this script{hint}: --save-baseline {name} makes one ({})",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(root: &Path, against: Option<&str>, save: Option<&str>) -> Result<Ledger> {
        let options = Baselines {
            against: against.map(str::to_owned),
            save: save.map(str::to_owned),
            ..Baselines::default()
        };
        Ledger::open(root, "script", options, Origin { device: "cpu".into(), ..Origin::default() })
    }

    fn closed(ledger: &Ledger) -> (Result<()>, Vec<String>) {
        let mut lines = Vec::new();
        let outcome = ledger.close(|line| lines.push(line.to_owned()));
        (outcome, lines)
    }

    #[test]
    fn what_one_run_saves_the_next_is_held_against() -> Result<()> {
        let root = tempfile::tempdir()?;
        let mut first = ledger(root.path(), None, Some("main"))?;
        first.record("lookup", &[1.0; 5]);
        first.record("walk", &[2.0; 5]);
        closed(&first).0?;

        let mut same = ledger(root.path(), Some("main"), None)?;
        same.record("lookup", &[1.01; 5]);
        same.record("new", &[1.0; 5]);
        let (outcome, lines) = closed(&same);
        outcome?;
        assert_eq!(
            lines,
            [
                "lookup takes 1.010 times as long (95 % interval 1.010 to 1.010), held against baseline `main`",
                "new is not in baseline `main`",
            ]
        );

        let mut slower = ledger(root.path(), Some("main"), Some("next"))?;
        slower.record("lookup", &[1.5; 5]);
        slower.record("walk", &[2.0; 5]);
        let error = closed(&slower).0.unwrap_err();
        assert!(error.is::<Regressed>());
        assert_eq!(
            error.to_string(),
            "slower than in baseline `main`: lookup takes 1.50 times as long (95 % interval 1.50 to 1.50)"
        );
        assert!(
            root.path().join("baselines/next/script.json").exists(),
            "a regression is saved all the same"
        );
        Ok(())
    }

    #[test]
    fn another_machine_is_pointed_out() -> Result<()> {
        let root = tempfile::tempdir()?;
        let mut first = ledger(root.path(), None, Some("main"))?;
        first.timings.origin.device = "cuda:0".into();
        first.record("lookup", &[1.0; 5]);
        closed(&first).0?;
        let mut here = ledger(root.path(), Some("main"), None)?;
        here.record("lookup", &[1.0; 5]);
        let (_, lines) = closed(&here);
        assert_eq!(lines[0], "warning: baseline `main` was measured on another device: cuda:0, not cpu");
        Ok(())
    }

    #[test]
    fn mistakes_are_told_before_anything_is_measured() -> Result<()> {
        let root = tempfile::tempdir()?;
        let mut first = ledger(root.path(), None, Some("main"))?;
        first.record("lookup", &[1.0; 5]);
        closed(&first).0?;
        let error = ledger(root.path(), Some("mian"), None).unwrap_err().to_string();
        assert!(error.contains("no baseline `mian`") && error.contains("did you mean `main`?"), "{error}");
        let error = ledger(root.path(), None, Some("../up")).unwrap_err().to_string();
        assert!(error.contains("cannot name a baseline"), "{error}");
        let empty = ledger(root.path(), Some("main"), None)?;
        assert!(closed(&empty).0.unwrap_err().to_string().contains("ran no lft.bench"));
        assert!(closed(&ledger(root.path(), None, None)?).0.is_ok());
        Ok(())
    }
}
