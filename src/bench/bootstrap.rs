//! Confidence intervals by resampling (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::statistics::{median_of, quantile};

/// Resamples behind one interval.
const RESAMPLES: usize = 2000;
/// Probability that an interval leaves out on each side.
const TAIL: f64 = 0.025;

/// A 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// Of the median of one set of samples.
    pub fn of_median(samples: &[f64], seed: u64) -> Self {
        let mut buffer = Vec::new();
        Self::percentile(seed, |rng| resampled_median(samples, rng, &mut buffer))
    }

    /// Of the ratio of the medians of two sets that were measured apart from each other.
    pub fn of_ratio(samples: &[f64], before: &[f64], seed: u64) -> Self {
        let mut buffer = Vec::new();
        Self::percentile(seed, |rng| {
            resampled_median(samples, rng, &mut buffer) / resampled_median(before, rng, &mut buffer)
        })
    }

    /// Whether a value lies inside.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Between the 2.5 % and 97.5 % quantiles of the statistic's resampled values.
    fn percentile(seed: u64, mut statistic: impl FnMut(&mut ChaCha8Rng) -> f64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values: Vec<f64> = (0..RESAMPLES).map(|_| statistic(&mut rng)).collect();
        values.sort_by(f64::total_cmp);
        Self { low: quantile(&values, TAIL), high: quantile(&values, 1.0 - TAIL) }
    }
}

/// The median of as many samples, drawn with replacement.
fn resampled_median(samples: &[f64], rng: &mut ChaCha8Rng, buffer: &mut Vec<f64>) -> f64 {
    buffer.clear();
    buffer.extend((0..samples.len()).map(|_| samples[rng.random_range(0..samples.len())]));
    median_of(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::statistics::median;

    fn noisy(center: f64, count: usize, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| center * (1.0 + 0.1 * (rng.random::<f64>() - 0.5))).collect()
    }

    #[test]
    fn the_true_median_is_covered_about_as_often_as_promised() {
        let covered = (0..300).filter(|&seed| {
            let samples = noisy(1.0, 31, seed);
            let interval = Interval::of_median(&samples, seed);
            assert!(interval.contains(median(&samples)));
            interval.contains(1.0)
        });
        let covered = covered.count();
        assert!((270..=299).contains(&covered), "{covered} of 300 at 95 %");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_more_samples_a_narrower_one() {
        let width = |count| {
            let samples = noisy(2.0, count, 5);
            let interval = Interval::of_median(&samples, 1);
            assert_eq!(interval, Interval::of_median(&samples, 1));
            interval.high - interval.low
        };
        assert!(width(400) < 0.5 * width(20));
    }

    #[test]
    fn a_ratio_is_found_between_separate_sets() {
        let (slow, fast) = (noisy(3.0, 40, 1), noisy(2.0, 25, 2));
        let interval = Interval::of_ratio(&slow, &fast, 0);
        assert!(interval.contains(1.5) && interval.low > 1.4 && interval.high < 1.6, "{interval:?}");
    }

    #[test]
    fn one_sample_and_none_give_a_point_and_nothing() {
        assert_eq!(Interval::of_median(&[4.0], 0), Interval { low: 4.0, high: 4.0 });
        assert!(Interval::of_median(&[], 0).low.is_nan());
    }
}
