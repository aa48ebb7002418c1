//! Step size control.

/// The PI controller of DOPRI5 (Hairer, Nørsett & Wanner, Solving ODEs I, IV.2 of volume II):
/// `h' = h · 0.9 · r₋^β / r^(1/q − 0.75β)` with the error ratio `r`, the one before `r₋` and order `q`.
pub(super) struct Controller {
    exponent: f64,
    previous: f64,
    after_rejection: bool,
}

const SAFETY: f64 = 0.9;
const BETA: f64 = 0.04;
const SMALLEST_FACTOR: f64 = 0.2;
const LARGEST_FACTOR: f64 = 10.0;
/// Steps far better than needed should not make the next one timid.
const SMALLEST_PREVIOUS: f64 = 1e-4;

impl Controller {
    pub(super) fn new(order: u32) -> Self {
        Controller {
            exponent: 1.0 / f64::from(order) - 0.75 * BETA,
            previous: SMALLEST_PREVIOUS,
            after_rejection: false,
        }
    }

    /// The factor from this step's size to the next one's.
    pub(super) fn accept(&mut self, ratio: f64) -> f64 {
        let factor = SAFETY * self.previous.powf(BETA) / ratio.powf(self.exponent);
        let largest = if self.after_rejection { 1.0 } else { LARGEST_FACTOR };
        self.previous = ratio.max(SMALLEST_PREVIOUS);
        self.after_rejection = false;
        factor.clamp(SMALLEST_FACTOR, largest)
    }

    /// The factor to try again with; a ratio that is not finite counts as very large.
    pub(super) fn reject(&mut self, ratio: f64) -> f64 {
        self.after_rejection = true;
        if !ratio.is_finite() {
            return SMALLEST_FACTOR;
        }
        (SAFETY / ratio.powf(self.exponent)).clamp(SMALLEST_FACTOR, SAFETY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_stay_within_their_bounds() {
        let mut controller = Controller::new(5);
        assert_eq!(controller.accept(0.0), LARGEST_FACTOR);
        assert_eq!(controller.reject(f64::NAN), SMALLEST_FACTOR);
        assert_eq!(controller.reject(f64::INFINITY), SMALLEST_FACTOR);
        assert!(controller.reject(1.0 + 1e-12) <= SAFETY);
        // Directly after a rejection a step must not grow.
        assert_eq!(controller.accept(1e-8), 1.0);
        assert_eq!(controller.accept(1e-8), LARGEST_FACTOR);
    }

    #[test]
    fn a_constant_ratio_gives_the_formula() {
        let mut controller = Controller::new(5);
        controller.accept(0.5);
        let expected = 0.9 * 0.5f64.powf(0.04) / 0.5f64.powf(0.17);
        assert!((controller.accept(0.5) - expected).abs() < 1e-14);
    }
}
