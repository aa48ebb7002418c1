//! Robust statistics of samples.

/// The q-quantile of sorted samples, 0 ≤ q ≤ 1, linear between neighbours (type 7 of Hyndman & Fan, "Sample Quantiles
/// in Statistical Packages", 1996). NaN for no samples.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// The median. NaN for no samples.
pub fn median(samples: &[f64]) -> f64 {
    median_of(&mut samples.to_vec())
}

/// As [`median`], reordering the samples.
pub(super) fn median_of(samples: &mut [f64]) -> f64 {
    let (count, middle) = (samples.len(), samples.len() / 2);
    if count == 0 {
        return f64::NAN;
    }
    let (below, upper, _) = samples.select_nth_unstable_by(middle, f64::total_cmp);
    match count % 2 {
        1 => *upper,
        _ => 0.5 * (*upper + below.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
    }
}

/// The median absolute deviation from the median, unscaled: for a normal distribution it is 0.6745 standard
/// deviations. NaN for no samples.
pub fn mad(samples: &[f64]) -> f64 {
    let middle = median(samples);
    median_of(&mut samples.iter().map(|sample| (sample - middle).abs()).collect::<Vec<_>>())
}

/// The samples in rising order.
pub(super) fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_cases_by_hand() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(mad(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), 1.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.25), 1.75);
        assert_eq!((quantile(&[7.0], 0.9), mad(&[7.0])), (7.0, 0.0));
        assert!(median(&[]).is_nan() && quantile(&[], 0.5).is_nan() && mad(&[]).is_nan());
    }

    proptest! {
        #[test]
        fn the_median_is_the_middle_quantile_and_moves_with_the_samples(
            samples in prop::collection::vec(-1e6..1e6f64, 1..60),
            shift in -1e3..1e3f64,
        ) {
            let middle = median(&samples);
            prop_assert!((middle - quantile(&sorted(&samples), 0.5)).abs() <= 1e-9);
            let moved: Vec<f64> = samples.iter().map(|sample| sample + shift).collect();
            prop_assert!((median(&moved) - middle - shift).abs() <= 1e-6);
            prop_assert!((mad(&moved) - mad(&samples)).abs() <= 1e-6);
            let below = samples.iter().filter(|sample| **sample <= middle).count();
            prop_assert!(2 * below >= samples.len());
        }
    }
}
