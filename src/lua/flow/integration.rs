//! How a student integrates its flow, from options.

use crate::flow::Integration;
use crate::lua::catalogue::Param;
use crate::lua::ode::{SOLVER, method, steps};
use crate::lua::options::Options;
use crate::ode::Method;

/// Steps of a fixed-step solver unless an option says otherwise.
const STEPS: usize = 3;

/// Solver and steps, for options tables.
pub const SOLVER_STEPS: [Param; 2] = [
    ("solver?", SOLVER, "midpoint when left out"),
    ("steps?", "integer", "equal steps k, 3 when left out; bosh3, tsit5 and dopri5 then choose their own"),
];
/// [`SOLVER_STEPS`] and the tolerances of an adaptive solver.
pub const INTEGRATION: [Param; 4] = [
    SOLVER_STEPS[0],
    SOLVER_STEPS[1],
    ("rtol?", "number", "relative tolerance of an adaptive solver, 1e-3 when left out"),
    ("atol?", "number", "absolute tolerance of an adaptive solver, 1e-5 when left out"),
];

/// What [`INTEGRATION`] options say.
///
/// # Errors
/// An unknown solver, or fewer than one step.
pub fn integration(options: &Options) -> anyhow::Result<Integration> {
    let method = method(options, "solver", Method::Midpoint)?;
    let default = Integration::fixed(method, STEPS);
    let chosen = (!method.is_adaptive()).then_some(STEPS);
    Ok(Integration {
        steps: steps(options)?.or(chosen),
        rtol: options.or("rtol", default.rtol)?,
        atol: options.or("atol", default.atol)?,
        ..default
    })
}

/// What [`SOLVER_STEPS`] options say where steps are fixed whatever the solver.
///
/// # Errors
/// As [`integration`].
pub fn fixed(options: &Options) -> anyhow::Result<Integration> {
    Ok(Integration::fixed(method(options, "solver", Method::Midpoint)?, steps(options)?.unwrap_or(STEPS)))
}
