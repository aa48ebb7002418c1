//! A curve as one line of text.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The curve in `width` characters, each the mean of its share of the values. Where all values are positive the height
/// is logarithmic, as a loss is read. Values that are not finite are left out.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let positive = finite.iter().all(|value| *value > 0.0);
    let width = width.min(finite.len());
    let share = |at: usize| &finite[at * finite.len() / width..(at + 1) * finite.len() / width];
    let height = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        if positive { mean.ln() } else { mean }
    };
    let heights: Vec<f64> = (0..width).map(|at| height(share(at))).collect();
    let low = heights.iter().copied().fold(f64::INFINITY, f64::min);
    let high = heights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let bar = |height: &f64| {
        let part = if high > low { (height - low) / (high - low) } else { 0.0 };
        BARS[(part * (BARS.len() - 1) as f64).round() as usize]
    };
    heights.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shapes() {
        assert_eq!(sparkline(&[1.0, 2.0, 4.0, 8.0], 4), "▁▃▆█");
        assert_eq!(sparkline(&[-1.0, 0.0, 1.0], 9), "▁▅█");
        assert_eq!(sparkline(&[3.0; 50], 5), "▁▁▁▁▁");
        assert_eq!(sparkline(&[f64::NAN, 1.0], 5), "▁");
        assert_eq!(sparkline(&[], 5), "");
    }

    proptest! {
        #[test]
        fn any_values_fit(values in prop::collection::vec(any::<f64>(), 0..80), width in 0usize..40) {
            prop_assert!(sparkline(&values, width).chars().count() <= width);
        }
    }
}
