//! What a solver needs to know about the thing it integrates.

use super::error::{Error, Result};
use super::kernel;

/// A vector space with the weighted error norm of Hairer, Nørsett & Wanner.
///
/// Implemented for [`Tensor`](candle_core::Tensor) of any float dtype, `Vec<f64>` and `[f64; N]`.
pub trait State: Clone {
    /// `self + Σ cᵢ·kᵢ`.
    ///
    /// # Errors
    /// Terms whose shape or dtype differ from `self`.
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self>;

    /// Root mean square of `e / (atol + rtol·max(|y0|, |y1|))` with `e = Σ cᵢ·kᵢ`; at most 1 when the
    /// error `e` is within the tolerance (Hairer, Nørsett & Wanner, Solving ODEs I, eq. II.4.11).
    ///
    /// Not finite when `e` or `y1` is not. Elements with `e = 0` count as 0 even at zero tolerance.
    ///
    /// # Errors
    /// Terms whose shape or dtype differ from `y0`.
    fn error_ratio(terms: &[(f64, &Self)], y0: &Self, y1: &Self, rtol: f64, atol: f64) -> Result<f64>;

    /// Whether no element is NaN or infinite.
    ///
    /// # Errors
    /// A state without float elements.
    fn is_finite(&self) -> Result<bool>;
}

impl State for Vec<f64> {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        let mut out = self.clone();
        for &(c, k) in terms {
            same_length(self, k)?;
            kernel::accumulate(&mut out, c, k);
        }
        Ok(out)
    }

    fn error_ratio(terms: &[(f64, &Self)], y0: &Self, y1: &Self, rtol: f64, atol: f64) -> Result<f64> {
        let mut error = vec![0.0; y0.len()];
        for &(c, k) in terms {
            same_length(y0, k)?;
            kernel::accumulate(&mut error, c, k);
        }
        same_length(y0, y1)?;
        Ok(kernel::root_mean(kernel::ratio_squares(&error, y0, y1, rtol, atol), y0.len()))
    }

    fn is_finite(&self) -> Result<bool> {
        Ok(self.iter().all(|v| v.is_finite()))
    }
}

impl<const N: usize> State for [f64; N] {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        let mut out = *self;
        for &(c, k) in terms {
            kernel::accumulate(&mut out, c, k);
        }
        Ok(out)
    }

    fn error_ratio(terms: &[(f64, &Self)], y0: &Self, y1: &Self, rtol: f64, atol: f64) -> Result<f64> {
        let mut error = [0.0; N];
        for &(c, k) in terms {
            kernel::accumulate(&mut error, c, k);
        }
        Ok(kernel::root_mean(kernel::ratio_squares(&error, y0, y1, rtol, atol), N))
    }

    fn is_finite(&self) -> Result<bool> {
        Ok(self.iter().all(|v| v.is_finite()))
    }
}

fn same_length(state: &[f64], term: &[f64]) -> Result<()> {
    if state.len() == term.len() {
        return Ok(());
    }
    Err(Error::State(candle_core::Error::msg(format!(
        "the velocity field returned {} elements for a state of {}",
        term.len(),
        state.len()
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_and_norm_by_hand() -> Result<()> {
        let y = vec![1.0, -2.0];
        assert_eq!(y.add_scaled(&[(2.0, &vec![1.0, 1.0]), (-1.0, &vec![0.0, 4.0])])?, [3.0, -4.0]);
        assert_eq!([1.0, -2.0].add_scaled(&[(0.5, &[2.0, 2.0])])?, [2.0, -1.0]);
        // Errors 0.3 and 0.1 against scales 0.1 + 0.1·2 and 0.1 + 0.1·4.
        let ratio = Vec::error_ratio(&[(0.1, &vec![3.0, 1.0])], &y, &vec![2.0, -4.0], 0.1, 0.1)?;
        assert!((ratio - ((1.0 + 0.04) / 2.0f64).sqrt()).abs() < 1e-14);
        Ok(())
    }

    #[test]
    fn zero_tolerance_and_broken_states_are_told_apart() -> Result<()> {
        let ratio =
            |error: f64, y1: f64| <[f64; 1]>::error_ratio(&[(1.0, &[error])], &[0.0], &[y1], 1e-3, 0.0);
        assert_eq!(ratio(0.0, 0.0)?, 0.0);
        assert!(ratio(1e-9, 0.0)? > 1.0);
        for y1 in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!ratio(0.0, y1)?.is_finite(), "y1 = {y1}");
        }
        assert!(!ratio(f64::NAN, 1.0)?.is_finite());
        assert!(!vec![1.0, f64::INFINITY].is_finite()? && vec![1.0].is_finite()?);
        Ok(())
    }

    #[test]
    fn a_term_of_another_length_is_an_error() {
        let message = vec![0.0; 3].add_scaled(&[(1.0, &vec![0.0; 2])]).unwrap_err().to_string();
        assert!(message.contains("2 elements for a state of 3"), "{message}");
    }
}
