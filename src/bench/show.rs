//! Times as readers want them.

use super::measure::Measurement;

/// Four significant digits with the unit that suits them: `12.34 ms`.
pub fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        1.0.. => (seconds, "s"),
        1e-3..1.0 => (1e3 * seconds, "ms"),
        1e-6..1e-3 => (1e6 * seconds, "µs"),
        _ => (1e9 * seconds, "ns"),
    };
    let decimals = match value {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$} {unit}")
}

impl Measurement {
    /// `12.34 ms (95 % interval 12.30 ms to 12.40 ms), MAD 0.5 %, 2 outliers in 30 samples`.
    pub fn summary(&self) -> String {
        let interval =
            format!("95 % interval {} to {}", duration(self.interval.low), duration(self.interval.high));
        let spread = 100.0 * self.mad / self.median;
        let (outliers, samples) = (self.outliers.total(), self.samples.len());
        let plural = if outliers == 1 { "" } else { "s" };
        format!(
            "{} ({interval}), MAD {spread:.1} %, {outliers} outlier{plural} in {samples} samples",
            duration(self.median)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_four_digits() {
        for (seconds, text) in [
            (12.345, "12.35 s"),
            (1.0, "1.000 s"),
            (0.123_45, "123.5 ms"),
            (1.5e-6, "1.500 µs"),
            (4.2e-8, "42.00 ns"),
            (2345.6, "2346 s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
