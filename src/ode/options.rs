//! What to integrate over, and how exactly.

use super::error::{Error, Result};
use super::method::Method;
use super::tableau::Tableau;

/// Options of [`solve`](super::solve).
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub method: Method,
    pub t0: f64,
    /// May lie before `t0`; equal to `t0` the solution is `x0`.
    pub t1: f64,
    /// The number of equal steps; `None` lets an adaptive method choose its own.
    pub steps: Option<usize>,
    /// Relative tolerance of the error of one step (adaptive only).
    pub rtol: f64,
    /// Absolute tolerance of the error of one step (adaptive only).
    pub atol: f64,
    /// Times to save the solution at, in the direction of the integration, within `[t0, t1]`.
    pub save_at: Vec<f64>,
    /// Attempts, accepted and rejected, after which an adaptive solve gives up.
    pub max_steps: usize,
    /// Size of the first attempt; `None` estimates it (Hairer, Nørsett & Wanner, Solving ODEs I, II.4).
    pub first_step: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            method: Method::Dopri5,
            t0: 0.0,
            t1: 1.0,
            steps: None,
            rtol: 1e-5,
            atol: 1e-6,
            save_at: Vec::new(),
            max_steps: 100_000,
            first_step: None,
        }
    }
}

impl Options {
    /// # Errors
    /// Names the first option that is out of range.
    pub(super) fn validate(&self, tableau: &Tableau) -> Result<()> {
        if !(self.t0.is_finite() && self.t1.is_finite() && (self.t1 - self.t0).is_finite()) {
            return fail(format!("t0 = {} and t1 = {} must be finite", self.t0, self.t1));
        }
        match self.steps {
            Some(0) => return fail("steps must be at least 1, not 0".into()),
            None if !tableau.is_adaptive() => {
                return fail(format!("{} is a fixed-step solver: set steps", tableau.name()));
            }
            _ => {}
        }
        for (name, tolerance) in [("rtol", self.rtol), ("atol", self.atol)] {
            if !(tolerance >= 0.0 && tolerance.is_finite()) {
                return fail(format!("{name} must be a number of at least 0, not {tolerance}"));
            }
        }
        if self.rtol == 0.0 && self.atol == 0.0 {
            return fail("rtol and atol are both 0, which no step can reach: raise one".into());
        }
        if self.max_steps == 0 {
            return fail("max_steps must be at least 1, not 0".into());
        }
        if let Some(h) = self.first_step.filter(|h| !(*h > 0.0 && h.is_finite())) {
            return fail(format!("first_step must be a positive number, not {h}"));
        }
        self.validate_save_at()
    }

    fn validate_save_at(&self) -> Result<()> {
        let (low, high) = (self.t0.min(self.t1), self.t0.max(self.t1));
        if let Some(t) = self.save_at.iter().find(|t| !(low..=high).contains(*t)) {
            return fail(format!("save_at holds {t}, which lies outside [{}, {}]", self.t0, self.t1));
        }
        let direction = self.t1 - self.t0;
        match self.save_at.windows(2).find(|pair| (pair[1] - pair[0]) * direction < 0.0) {
            Some(pair) => fail(format!(
                "save_at must run from t0 = {} to t1 = {}, but {} comes before {}",
                self.t0, self.t1, pair[0], pair[1]
            )),
            None => Ok(()),
        }
    }
}

fn fail(message: String) -> Result<()> {
    Err(Error::Option(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_named() {
        let base = Options { steps: Some(2), ..Options::default() };
        let nan = f64::NAN;
        for (options, expected) in [
            (Options { t1: f64::INFINITY, ..base.clone() }, "t1 = inf"),
            (Options { t0: -f64::MAX, t1: f64::MAX, ..base.clone() }, "must be finite"),
            (Options { steps: Some(0), ..base.clone() }, "steps must be at least 1"),
            (Options { steps: None, method: Method::Rk4, ..base.clone() }, "rk4 is a fixed-step solver"),
            (Options { rtol: -1e-3, ..base.clone() }, "rtol"),
            (Options { atol: nan, ..base.clone() }, "atol"),
            (Options { rtol: 0.0, atol: 0.0, ..base.clone() }, "both 0"),
            (Options { max_steps: 0, ..base.clone() }, "max_steps"),
            (Options { first_step: Some(0.0), ..base.clone() }, "first_step"),
            (Options { save_at: vec![0.5, 1.5], ..base.clone() }, "holds 1.5"),
            (Options { save_at: vec![nan], ..base.clone() }, "holds NaN"),
            (Options { save_at: vec![0.5, 0.4], ..base.clone() }, "0.5 comes before 0.4"),
            (Options { t1: -1.0, save_at: vec![-0.5, -0.4], ..base.clone() }, "-0.5 comes before -0.4"),
        ] {
            let message = options.validate(options.method.tableau()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
        base.validate(base.method.tableau()).unwrap();
    }
}
