//! Ratios of times in words.

use std::fmt;

use super::bootstrap::Interval;

/// Ratios within this of 1 are called equal.
const EQUAL: f64 = 0.01;

/// What a ratio of times and its interval say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole interval lies below 1.
    Faster,
    /// The whole interval lies above 1.
    Slower,
    /// The whole interval lies within 1 % of 1.
    Equal,
    /// The interval contains 1 and is wider than that.
    Undecided,
}

impl Verdict {
    /// Reads the interval of a ratio.
    pub fn of(interval: &Interval) -> Self {
        match interval {
            Interval { low, high } if *low >= 1.0 - EQUAL && *high <= 1.0 + EQUAL => Self::Equal,
            Interval { high, .. } if *high < 1.0 => Self::Faster,
            Interval { low, .. } if *low > 1.0 => Self::Slower,
            _ => Self::Undecided,
        }
    }
}

/// Two pieces of work and what the ratio of their times says.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// What is judged.
    pub subject: &'a str,
    /// What it is held against.
    pub reference: &'a str,
}

impl Names<'_> {
    /// One sentence: `b is slower than a: it takes 1.10 times as long (95 % interval 1.08 to 1.12)`.
    pub fn sentence(&self, ratio: f64, interval: &Interval) -> String {
        let Self { subject, reference } = self;
        let figures = times(ratio, interval);
        match Verdict::of(interval) {
            Verdict::Faster => format!("{subject} is faster than {reference}: it takes {figures}"),
            Verdict::Slower => format!("{subject} is slower than {reference}: it takes {figures}"),
            Verdict::Equal => {
                format!("{subject} and {reference} are equal within 1 %: {subject} takes {figures}")
            }
            Verdict::Undecided => {
                format!("no difference between {subject} and {reference} is shown: {subject} takes {figures}")
            }
        }
    }
}

/// `1.10 times as long (95 % interval 1.08 to 1.12)`.
pub fn times(ratio: f64, interval: &Interval) -> String {
    let digits = if (ratio - 1.0).abs() < 0.1 { 3 } else { 2 };
    let show = |value: f64| Shown { value, digits };
    format!("{} times as long (95 % interval {} to {})", show(ratio), show(interval.low), show(interval.high))
}

/// A ratio with decimals, or with significant digits where decimals would leave nothing of it.
struct Shown {
    value: f64,
    digits: usize,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            value if value.abs() < 0.1 => write!(f, "{value:.1e}"),
            value => write!(f, "{value:.*}", self.digits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_its_words() {
        let names = Names { subject: "b", reference: "a" };
        for (ratio, low, high, expected) in [
            (0.5, 0.48, 0.53, "b is faster than a: it takes 0.50 times as long (95 % interval 0.48 to 0.53)"),
            (
                1.04,
                1.02,
                1.06,
                "b is slower than a: it takes 1.040 times as long (95 % interval 1.020 to 1.060)",
            ),
            (
                1.002,
                0.995,
                1.008,
                "b and a are equal within 1 %: b takes 1.002 times as long (95 % interval 0.995 to 1.008)",
            ),
            (
                1.0,
                0.9,
                1.2,
                "no difference between b and a is shown: b takes 1.000 times as long (95 % interval 0.900 to 1.200)",
            ),
            (
                0.002,
                0.0019,
                0.0021,
                "b is faster than a: it takes 2.0e-3 times as long (95 % interval 1.9e-3 to 2.1e-3)",
            ),
        ] {
            assert_eq!(names.sentence(ratio, &Interval { low, high }), expected);
        }
    }

    #[test]
    fn an_interval_that_is_no_number_decides_nothing() {
        assert_eq!(Verdict::of(&Interval { low: f64::NAN, high: f64::NAN }), Verdict::Undecided);
    }
}
