//! The options in which several runs differ.

use serde::Serialize;

use super::input::RunRecord;

/// Runs in the table at most.
const ROWS: usize = 250;

/// One row a run, one column an option that is not the same everywhere.
#[derive(Debug, Serialize)]
pub struct Differences {
    pub options: Vec<String>,
    pub runs: Vec<Values>,
    /// Runs that did not fit.
    pub left_out: usize,
}

/// The values of one run, in the order of the options.
#[derive(Debug, Serialize)]
pub struct Values {
    pub name: String,
    pub id: String,
    pub seed: String,
    pub values: Vec<String>,
}

/// `None` for fewer than two runs, or when nothing but their seeds and names tells them apart.
pub fn differences(runs: &[RunRecord]) -> Option<Differences> {
    if runs.len() < 2 {
        return None;
    }
    let mut options: Vec<&String> = Vec::new();
    for (name, _) in runs.iter().flat_map(|run| &run.options) {
        if !options.contains(&name) {
            options.push(name);
        }
    }
    let value = |run: &RunRecord, option: &str| {
        run.options
            .iter()
            .find(|(name, _)| name == option)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    };
    options.retain(|option| {
        let first = value(&runs[0], option);
        runs.iter().any(|run| value(run, option) != first)
    });
    let row = |run: &RunRecord| Values {
        name: run.name.clone(),
        id: run.id.clone(),
        seed: run.seed.map(|seed| seed.to_string()).unwrap_or_default(),
        values: options.iter().map(|option| value(run, option)).collect(),
    };
    (!options.is_empty()).then(|| Differences {
        runs: runs.iter().take(ROWS).map(row).collect(),
        options: options.iter().map(|option| option.to_string()).collect(),
        left_out: runs.len().saturating_sub(ROWS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::run;

    #[test]
    fn only_what_differs_is_shown() {
        let mut other = run("b", "b-1");
        other.options[0].1 = "600".into();
        other.options.push(("extra".into(), "1".into()));
        let found = differences(&[run("a", "a-1"), other]).unwrap();
        assert_eq!(found.options, ["steps", "extra"]);
        assert_eq!(found.runs[0].values, ["300", ""]);
        assert_eq!(found.runs[1].values, ["600", "1"]);
        assert!(differences(&[run("a", "a-1"), run("a", "a-2")]).is_none());
        assert!(differences(&[run("a", "a-1")]).is_none());
    }
}
