//! Means over repetitions, and whether two of them differ by more than chance.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// The chance with which an interval covers the true mean.
const CONFIDENCE: f64 = 0.95;

/// What is known of a measure from repetitions (seeds): their mean, spread and number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub mean: f64,
    /// Sample standard deviation, divisor `count - 1`; 0 for one repetition.
    pub sd: f64,
    pub low: f64,
    pub high: f64,
    pub count: usize,
}

impl Sample {
    /// `None` without values.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Sample> {
        let values: Vec<f64> = values.collect();
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (count > 0).then(|| Sample {
            mean,
            sd: if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 },
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            count,
        })
    }

    /// The band that a chart draws around the mean: from three repetitions on the 95 % interval of the mean by
    /// Student's t, for two their range, for one nothing but the mean.
    ///
    /// A positive measure has a positive band, cut at a tenth of the mean, so that a logarithmic axis can show it.
    pub fn band(&self) -> (f64, f64) {
        if self.count < 3 {
            return (self.low, self.high);
        }
        let half = quantile(self.count as f64 - 1.0) * self.sd / (self.count as f64).sqrt();
        let floor = if self.low > 0.0 { self.mean / 10.0 } else { f64::NEG_INFINITY };
        ((self.mean - half).max(floor), self.mean + half)
    }

    fn variance_of_mean(&self) -> f64 {
        self.sd * self.sd / self.count as f64
    }
}

/// Welch's test of equal means (Welch, "The generalization of Student's problem when several different population
/// variances are involved", Biometrika 1947), with the degrees of freedom of Satterthwaite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Welch {
    /// Mean of the second minus mean of the first.
    pub difference: f64,
    /// The 95 % interval of the difference.
    pub low: f64,
    pub high: f64,
    /// Two-sided: the chance of a difference at least as large were the true means equal.
    pub p: f64,
}

/// `None` where a test needs more: fewer than two repetitions on a side, or no spread on either.
pub fn welch(first: &Sample, second: &Sample) -> Option<Welch> {
    let (a, b) = (first.variance_of_mean(), second.variance_of_mean());
    if first.count < 2 || second.count < 2 || a + b <= 0.0 {
        return None;
    }
    let part = |variance: f64, count: usize| variance * variance / (count as f64 - 1.0);
    let freedom = (a + b).powi(2) / (part(a, first.count) + part(b, second.count));
    let (difference, error) = (second.mean - first.mean, (a + b).sqrt());
    let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let half = quantile(freedom) * error;
    Some(Welch {
        difference,
        low: difference - half,
        high: difference + half,
        p: 2.0 * student.sf((difference / error).abs()),
    })
}

/// Holm's step-down correction of several tests ("A simple sequentially rejective multiple test procedure", 1979).
pub fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&a, &b| ps[a].total_cmp(&ps[b]));
    let mut corrected = vec![0.0; ps.len()];
    let mut least: f64 = 0.0;
    for (rank, at) in order.into_iter().enumerate() {
        least = least.max(ps[at] * (ps.len() - rank) as f64).min(1.0);
        corrected[at] = least;
    }
    corrected
}

/// The two-sided 95 % point of Student's t.
fn quantile(freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(0.5 + CONFIDENCE / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[f64]) -> Sample {
        Sample::of(values.iter().copied()).unwrap()
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6 * expected.abs().max(1e-3), "{found}, expected {expected}");
    }

    /// `scipy.stats.ttest_ind(b, a, equal_var=False)` and its `confidence_interval()`.
    #[test]
    fn welch_agrees_with_scipy() {
        let a = sample(&[0.402, 0.411, 0.396, 0.405]);
        let b = sample(&[0.431, 0.452, 0.419]);
        let test = welch(&a, &b).unwrap();
        near(test.difference, 0.0305);
        near(test.low, -0.006_565_418_946);
        near(test.high, 0.067_565_418_946);
        near(test.p, 0.074_989_341_718);
        let mirrored = welch(&b, &a).unwrap();
        near(mirrored.difference, -test.difference);
        near(mirrored.p, test.p);
    }

    #[test]
    fn a_test_needs_repetitions_and_spread() {
        assert_eq!(welch(&sample(&[0.1]), &sample(&[0.2, 0.3])), None);
        assert_eq!(welch(&sample(&[0.1, 0.1]), &sample(&[0.2, 0.2])), None);
    }

    #[test]
    fn bands() {
        assert_eq!(sample(&[0.5]).band(), (0.5, 0.5));
        assert_eq!(sample(&[0.5, 0.7]).band(), (0.5, 0.7));
        let (low, high) = sample(&[1.0, 2.0, 3.0]).band();
        // t(0.975; 2) = 4.302653, over the square root of 3.
        near(high - 2.0, 2.484_138);
        assert_eq!(low, 0.2, "cut at a tenth of the mean");
        assert!(sample(&[-1.0, 2.0, 3.0]).band().0 < -1.0);
        assert_eq!(Sample::of(std::iter::empty()), None);
    }

    #[test]
    fn holm_multiplies_and_never_decreases() {
        assert_eq!(holm(&[0.04, 0.01, 0.03]), [0.06, 0.03, 0.06]);
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
