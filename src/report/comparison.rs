//! The best of every method and run against each other, with a test of significance in plain words.

use serde::Serialize;

use super::ablation::{Ablation, Block, Metric, Student};
use super::number::{in_prose, plural};
use super::statistics::{Sample, Welch, holm, welch};
use super::verdict::{method_name, settings};

/// Rows of one comparison at most.
const ROWS: usize = 12;

/// Differences with a smaller corrected p are called unlikely to be chance.
pub const LEVEL: f64 = 0.05;

/// The comparison on one block.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// `Block {6,12}`; empty where the rows name no block.
    pub block: String,
    /// What the others are held against.
    pub best: Contender,
    pub others: Vec<Contender>,
    /// Contenders that did not fit.
    pub left_out: usize,
    /// Whether any of the differences could be tested.
    pub tested: bool,
}

/// A method, in one run where there are several.
#[derive(Debug, Serialize)]
pub struct Contender {
    pub name: String,
    pub settings: String,
    /// `0.412 ± 0.006`, standard deviation over repetitions.
    pub kl: String,
    pub repetitions: usize,
    /// How much worse than the best, with its 95 % interval; empty for the best itself.
    pub difference: String,
    /// The corrected p of Welch's test; empty without one.
    pub p: String,
    /// What that means.
    pub words: String,
}

/// One comparison a block, where at least two contenders have a KL.
pub fn comparisons(ablation: &Ablation) -> Vec<Comparison> {
    ablation.blocks.iter().filter_map(comparison).collect()
}

fn comparison(block: &Block) -> Option<Comparison> {
    let contenders: Vec<(&Student, Sample)> = block
        .contenders()
        .into_iter()
        .filter_map(|student| Some((student, student.outcome.measure(Metric::Kl)?)))
        .collect();
    let ((best, sample), others) = contenders.split_first().filter(|(_, others)| !others.is_empty())?;
    let left_out = others.len().saturating_sub(ROWS);
    let others = &others[..others.len() - left_out];

    let tests: Vec<Option<Welch>> = others.iter().map(|(_, other)| welch(sample, other)).collect();
    let ps: Vec<f64> = tests.iter().flatten().map(|test| test.p).collect();
    let mut corrected = holm(&ps).into_iter();
    let several = contenders.iter().any(|(student, _)| student.run != best.run);
    let rows = others.iter().zip(&tests).map(|((student, other), test)| {
        let p = test.and_then(|_| corrected.next());
        let base = contender(student, other, several);
        let (difference, words) = match test.zip(p) {
            Some((test, p)) => (interval(&test), verdict(p).to_string()),
            None => (signed(other.mean - sample.mean), untested(sample, other)),
        };
        Contender { difference, p: p.map(chance).unwrap_or_default(), words, ..base }
    });
    Some(Comparison {
        block: if block.name.is_empty() { String::new() } else { format!("Block {}", block.name) },
        others: rows.collect(),
        best: contender(best, sample, several),
        left_out,
        tested: !ps.is_empty(),
    })
}

fn contender(student: &Student, kl: &Sample, several_runs: bool) -> Contender {
    let run =
        if several_runs && !student.run.is_empty() { format!(" in {}", student.run) } else { String::new() };
    Contender {
        name: format!("{}{run}", method_name(&student.method)),
        settings: settings(student),
        kl: match kl.count {
            1 => in_prose(kl.mean),
            _ => format!("{} ± {}", in_prose(kl.mean), in_prose(kl.sd)),
        },
        repetitions: kl.count,
        difference: String::new(),
        p: String::new(),
        words: String::new(),
    }
}

fn interval(test: &Welch) -> String {
    format!("{} ({} to {})", signed(test.difference), signed(test.low), signed(test.high))
}

fn signed(value: f64) -> String {
    if value < 0.0 { format!("−{}", in_prose(-value)) } else { format!("+{}", in_prose(value)) }
}

fn chance(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

fn verdict(p: f64) -> &'static str {
    if p < LEVEL {
        "Worse than the best: were they equally good, such a difference would be rare."
    } else {
        "Cannot be told from the best: equally good ones differ as much quite often."
    }
}

/// The p as it stands in a sentence: `= 0.031`, `< 0.001`.
pub fn equals(p: f64) -> String {
    if p < 0.001 { chance(p) } else { format!("= {}", chance(p)) }
}

fn untested(best: &Sample, other: &Sample) -> String {
    match best.count.min(other.count) {
        1 => "Not tested: that takes at least two seeds of each, three or more to be of use.".into(),
        count => format!("Not tested: the {} do not differ at all.", plural(count, "repetition")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{results, student};

    fn compared(rows: Vec<Vec<crate::report::input::Cell>>) -> Comparison {
        comparisons(&Ablation::read(&results(rows)).unwrap()).remove(0)
    }

    fn seeds(method: &str, kls: &[f64]) -> Vec<Vec<crate::report::input::Cell>> {
        kls.iter().map(|kl| student(method, "{6,12}", "euler", 2, *kl)).collect()
    }

    #[test]
    fn clear_and_unclear_differences_are_told_apart() {
        let near = [0.301, 0.312, 0.295];
        let rows =
            [seeds("fm", &[0.300, 0.310, 0.290]), seeds("hybrid", &near), seeds("fw", &[0.5, 0.51, 0.49])];
        let table = compared(rows.concat());
        assert_eq!(
            (table.best.name.as_str(), table.best.kl.as_str()),
            ("Flow matching (fm)", "0.300 ± 0.0100")
        );
        assert!(table.others[0].words.starts_with("Cannot be told from the best"), "{:?}", table.others[0]);
        assert!(table.others[1].words.starts_with("Worse than the best"), "{:?}", table.others[1]);
        assert!(table.others[1].difference.starts_with("+0.200 (+0.17"), "{:?}", table.others[1]);
        assert_eq!(table.others[1].p, "< 0.001");
        assert!(table.tested);
    }

    #[test]
    fn one_seed_is_no_test() {
        let table = compared([seeds("fm", &[0.3]), seeds("fw", &[0.5])].concat());
        assert!(!table.tested && table.others[0].p.is_empty());
        assert_eq!(table.others[0].difference, "+0.200");
        assert!(table.others[0].words.starts_with("Not tested: that takes at least two seeds"));
    }
}
