//! Solvers of ordinary differential equations `x' = f(x, t)` over any state with a vector-space interface.
//!
//! [`solve`] integrates from `t0` to `t1`, either in a given number of equal steps or adaptively;
//! [`step`] takes a single step, which is what flow walking differentiates through.
//!
//! ```
//! use lft::ode::{Method, Options, Result, solve};
//!
//! # fn main() -> Result<()> {
//! let options = Options { method: Method::Tsit5, t1: 10.0, rtol: 1e-8, atol: 1e-8, ..Options::default() };
//! let oscillator = |x: &[f64; 2], _t: f64| -> Result<[f64; 2]> { Ok([x[1], -x[0]]) };
//! let solution = solve(oscillator, &[1.0, 0.0], &options)?;
//! assert!((solution.x1[0] - 10f64.cos()).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```

mod adaptive;
mod bosh3;
mod controller;
mod dense;
mod dopri5;
mod error;
mod euler;
mod evaluations;
mod fixed;
mod heun;
mod kernel;
mod method;
mod midpoint;
mod options;
mod order;
mod ralston;
mod rk4;
mod solution;
mod state;
mod step;
mod tableau;
mod tensor;
#[cfg(test)]
mod tests;
mod tsit5;

pub use error::{Error, Result};
pub use evaluations::{evaluation, evaluations};
pub use method::Method;
pub use options::Options;
pub use solution::{Solution, Stats};
pub use state::State;
pub use step::step;
pub use tableau::{Dense, Tableau};

use solution::Recorder;
use step::Field;

/// Integrates `x' = f(x, t)` from `x0` at `t0` to `t1`; backwards in time when `t1 < t0`.
///
/// `E` is the field's own error type; it passes through untouched. In fixed-step mode the result keeps the
/// autograd graph of tensor states.
///
/// # Errors
/// Options out of range, a state that becomes non-finite, a tolerance that cannot be reached, and
/// whatever `f` returns.
pub fn solve<S, F, E>(f: F, x0: &S, options: &Options) -> std::result::Result<Solution<S>, E>
where
    S: State,
    F: FnMut(&S, f64) -> std::result::Result<S, E>,
    E: From<Error>,
{
    solve_with(options.method.tableau(), f, x0, options)
}

/// As [`solve`], with coefficients of one's own instead of `options.method`.
///
/// # Errors
/// As [`solve`].
pub fn solve_with<S, F, E>(
    tableau: &Tableau,
    f: F,
    x0: &S,
    options: &Options,
) -> std::result::Result<Solution<S>, E>
where
    S: State,
    F: FnMut(&S, f64) -> std::result::Result<S, E>,
    E: From<Error>,
{
    options.validate(tableau)?;
    if !x0.is_finite()? {
        return Err(Error::NonFinite { what: "the initial state", t: options.t0 }.into());
    }
    let mut field = Field::new(f);
    let mut recorder = Recorder::start(x0, options);
    let (x1, accepted, rejected) = match options.steps {
        _ if options.t0 == options.t1 => (x0.clone(), 0, 0),
        Some(steps) => (fixed::integrate(tableau, &mut field, x0, steps, options, &mut recorder)?, steps, 0),
        None => adaptive::integrate(tableau, &mut field, x0, options, &mut recorder)?,
    };
    Ok(Solution {
        x1,
        saved: recorder.finish(),
        stats: Stats { nfe: field.evaluations(), accepted, rejected },
    })
}
