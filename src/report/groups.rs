//! Two groups of values against each other, in numbers and in words.

use anyhow::{Result, ensure};

use super::comparison::{LEVEL, equals};
use super::number::in_prose;
use super::statistics::{Sample, Welch, welch};

/// What two groups say of each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Groups {
    pub first: Sample,
    pub second: Sample,
    /// Absent for fewer than two values on a side, or none that differ.
    pub test: Option<Welch>,
    /// The finding as a sentence.
    pub words: String,
}

/// Compares the means of two groups by Welch's t-test; `names` stand in the sentence.
///
/// # Errors
/// When a group is empty or holds a value that is not finite.
pub fn compare(names: (&str, &str), first: &[f64], second: &[f64]) -> Result<Groups> {
    for (name, values) in [(names.0, first), (names.1, second)] {
        ensure!(
            values.iter().all(|value| value.is_finite()),
            "group '{name}' holds a value that is not finite"
        );
    }
    let sample = |name: &str, values: &[f64]| {
        Sample::of(values.iter().copied()).ok_or_else(|| anyhow::anyhow!("group '{name}' is empty"))
    };
    let (a, b) = (sample(names.0, first)?, sample(names.1, second)?);
    let test = welch(&a, &b);
    Ok(Groups { first: a, second: b, test, words: words(names, &a, &b, test) })
}

fn words((first, second): (&str, &str), a: &Sample, b: &Sample, test: Option<Welch>) -> String {
    let difference = b.mean - a.mean;
    let relation = match difference {
        d if d < 0.0 => format!("{second} is lower than {first} by {}", in_prose(-d)),
        d if d > 0.0 => format!("{second} is higher than {first} by {}", in_prose(d)),
        _ => format!("{second} and {first} have the same mean"),
    };
    let counts = format!("{} against {} values", b.count, a.count);
    match test {
        None => format!("{relation} ({counts}); whether that is more than chance was not tested."),
        Some(test) => {
            let judged = if test.p < LEVEL {
                "were the two equal, such a difference would be rare"
            } else {
                "equal ones differ as much quite often, so they cannot be told apart"
            };
            let (low, high) = (in_prose(test.low), in_prose(test.high));
            let p = equals(test.p);
            format!(
                "{relation} (95 % interval of the difference {low} to {high}; Welch's t-test, p {p}, {counts}): {judged}."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_put_into_words() {
        let said = |a: &[f64], b: &[f64]| compare(("zero", "teacher"), a, b).unwrap().words;
        assert!(
            said(&[0.50, 0.51, 0.49], &[0.40, 0.41, 0.39])
                .starts_with("teacher is lower than zero by 0.100 (95 % interval of the difference -0.123 to -0.0773; Welch's t-test, p < 0.001, 3 against 3 values): were the two equal"),
            "{}", said(&[0.50, 0.51, 0.49], &[0.40, 0.41, 0.39])
        );
        assert!(said(&[0.5, 0.6, 0.4], &[0.51, 0.62, 0.45]).ends_with("so they cannot be told apart."));
        assert_eq!(
            said(&[1.0], &[2.0]),
            "teacher is higher than zero by 1.00 (1 against 1 values); whether that is more than chance was not tested."
        );
    }

    #[test]
    fn bad_groups_are_named() {
        let error = |a: &[f64], b: &[f64]| compare(("x", "y"), a, b).unwrap_err().to_string();
        assert_eq!(error(&[1.0], &[]), "group 'y' is empty");
        assert_eq!(error(&[f64::NAN], &[1.0]), "group 'x' holds a value that is not finite");
    }
}
