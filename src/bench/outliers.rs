//! Tukey's classes of outliers.

use super::statistics::{quantile, sorted};

/// Samples outside Tukey's fences ("Exploratory Data Analysis", 1977): mild beyond 1.5, severe beyond 3 times the
/// distance between the quartiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outliers {
    pub low_severe: usize,
    pub low_mild: usize,
    pub high_mild: usize,
    pub high_severe: usize,
}

impl Outliers {
    /// Counts the outliers of each class.
    pub fn of(samples: &[f64]) -> Self {
        let sorted = sorted(samples);
        let (first, third) = (quantile(&sorted, 0.25), quantile(&sorted, 0.75));
        let (mild, severe) = (1.5 * (third - first), 3.0 * (third - first));
        let mut outliers = Self::default();
        for sample in sorted {
            if sample < first - severe {
                outliers.low_severe += 1;
            } else if sample < first - mild {
                outliers.low_mild += 1;
            } else if sample > third + severe {
                outliers.high_severe += 1;
            } else if sample > third + mild {
                outliers.high_mild += 1;
            }
        }
        outliers
    }

    /// Outliers of all classes.
    pub fn total(&self) -> usize {
        self.low_severe + self.low_mild + self.high_mild + self.high_severe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_told_apart() {
        let mut samples: Vec<f64> = (0..9).map(|i| 10.0 + 0.375 * f64::from(i)).collect();
        assert_eq!(Outliers::of(&samples).total(), 0);
        // With these the quartiles are 10.375 and 12.625, so the fences stand 3.375 and 6.75 beyond them.
        samples.extend([2.0, 6.0, 17.0, 30.0]);
        let expected = Outliers { low_severe: 1, low_mild: 1, high_mild: 1, high_severe: 1 };
        assert_eq!(Outliers::of(&samples), expected);
        assert_eq!(expected.total(), 4);
    }

    #[test]
    fn equal_samples_have_none() {
        assert_eq!(Outliers::of(&[2.0; 10]).total(), 0);
        assert_eq!(Outliers::of(&[]).total(), 0);
    }
}
