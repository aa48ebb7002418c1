//! How a flow is integrated from t = 0 to t = 1.

use anyhow::Result;
use candle_core::Tensor;

use super::VelocityField;
use crate::ode::{self, Method, Stats};

/// Solver and steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Integration {
    /// The solver.
    pub method: Method,
    /// Steps k: equal ones, unless the field has trained times for this k. With `None` an adaptive solver
    /// chooses its own.
    pub steps: Option<usize>,
    /// Relative tolerance of an adaptive solver.
    pub rtol: f64,
    /// Absolute tolerance of an adaptive solver.
    pub atol: f64,
}

impl Integration {
    /// k steps.
    pub fn fixed(method: Method, steps: usize) -> Self {
        Self { method, steps: Some(steps), rtol: 1e-3, atol: 1e-5 }
    }

    /// The trained times of `u`, where it has some for this number of steps.
    ///
    /// # Errors
    /// When they cannot be read from the device.
    pub fn learned_times(&self, u: &VelocityField) -> Result<Option<Vec<f64>>> {
        let Some(times) = self.steps.and_then(|k| u.learned_times(k)) else { return Ok(None) };
        let value = |t: &Tensor| Ok(f64::from(t.to_vec1::<f32>()?[0]));
        times?.iter().map(value).collect::<Result<_>>().map(Some)
    }

    /// Integrates `field`, which is `u` or a cached form of it.
    ///
    /// # Shapes
    /// `x0` (B, T, D), result the same.
    pub(super) fn run(
        &self,
        u: &VelocityField,
        mut field: impl FnMut(&Tensor, f64) -> Result<Tensor>,
        x0: &Tensor,
    ) -> Result<(Tensor, Stats)> {
        let Some(times) = self.learned_times(u)? else {
            let Self { method, steps, rtol, atol } = *self;
            let options = ode::Options { method, steps, rtol, atol, ..ode::Options::default() };
            let solution = ode::solve(field, x0, &options)?;
            return Ok((solution.x1, solution.stats));
        };
        let mut nfe = 0;
        let mut counted = |x: &Tensor, t: f64| {
            nfe += 1;
            field(x, t)
        };
        let mut x = x0.clone();
        for interval in times.windows(2) {
            let (t, h) = (interval[0], interval[1] - interval[0]);
            x = ode::step(self.method.tableau(), &mut counted, &x, t, h)?;
        }
        Ok((x, Stats { nfe, accepted: times.len() - 1, rejected: 0 }))
    }
}
