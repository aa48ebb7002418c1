//! Integration in steps of the solver's own choice.

use super::controller::Controller;
use super::error::Error;
use super::options::Options;
use super::solution::Recorder;
use super::state::State;
use super::step::{Field, Interval, Step, scaled};
use super::tableau::Tableau;

/// Integrates within the tolerance; returns the state at `t1` and the numbers of accepted and
/// rejected steps.
pub(super) fn integrate<S, F, E>(
    tableau: &Tableau,
    field: &mut Field<F>,
    x0: &S,
    options: &Options,
    recorder: &mut Recorder<S>,
) -> Result<(S, usize, usize), E>
where
    S: State,
    F: FnMut(&S, f64) -> Result<S, E>,
    E: From<Error>,
{
    let Options { t0, t1, rtol, atol, max_steps, .. } = *options;
    let b_err = tableau.b_err.as_deref().unwrap_or_default();
    let (mut t, mut x) = (t0, x0.clone());
    let mut slope = field.at(&x, t)?;
    if !slope.is_finite()? {
        return Err(Error::NonFinite { what: "the velocity", t }.into());
    }
    let mut h = match options.first_step {
        Some(h) => h,
        None => initial_step(tableau, field, x0, &slope, options)?,
    };
    let mut controller = Controller::new(tableau.order());
    let (mut accepted, mut rejected) = (0, 0);
    loop {
        if accepted + rejected == max_steps {
            return Err(Error::TooManySteps { t, h, t1, max_steps }.into());
        }
        let interval = next_interval(t, t1, h);
        let mut step = Step::take(tableau, field, &x, slope, interval)?;
        step.complete(tableau, field, &x, interval)?;
        let ratio = S::error_ratio(&scaled(interval.h, b_err, &step.slopes), &x, &step.x1, rtol, atol)?;
        if ratio <= 1.0 {
            accepted += 1;
            let end = match step.slopes.last() {
                Some(last) if tableau.is_fsal() => last.clone(),
                _ => field.at(&step.x1, interval.t1)?,
            };
            recorder.record(tableau, &x, &step, Some(&end), interval)?;
            (t, x, slope) = (interval.t1, step.x1, end);
            if t == t1 {
                return Ok((x, accepted, rejected));
            }
            h = interval.h.abs() * controller.accept(ratio);
        } else {
            rejected += 1;
            slope = step.slopes.swap_remove(0);
            h = interval.h.abs() * controller.reject(ratio);
            // Below this size the stages of a step can no longer be told apart in time.
            if h < 10.0 * f64::EPSILON * t.abs().max((t1 - t0).abs()) {
                return Err(Error::StepUnderflow { t, h, ratio }.into());
            }
        }
    }
}

/// The next step of size `h` towards `t1`; it goes all the way rather than leaving a sliver.
fn next_interval(t: f64, t1: f64, h: f64) -> Interval {
    let remaining = t1 - t;
    if 1.01 * h >= remaining.abs() {
        Interval { t0: t, t1, h: remaining }
    } else {
        let h = h.copysign(remaining);
        Interval { t0: t, t1: t + h, h }
    }
}

/// The first step size from the sizes of the state, its slope and the slope's change
/// (Hairer, Nørsett & Wanner, Solving ODEs I, II.4, "starting step size"); one evaluation.
fn initial_step<S, F, E>(
    tableau: &Tableau,
    field: &mut Field<F>,
    x0: &S,
    slope: &S,
    options: &Options,
) -> Result<f64, E>
where
    S: State,
    F: FnMut(&S, f64) -> Result<S, E>,
    E: From<Error>,
{
    let Options { t0, t1, rtol, atol, .. } = *options;
    let norm = |terms: &[(f64, &S)]| S::error_ratio(terms, x0, x0, rtol, atol);
    let (d0, d1) = (norm(&[(1.0, x0)])?, norm(&[(1.0, slope)])?);
    let guess = if d0 < 1e-5 || d1 < 1e-5 || !(d0 / d1).is_normal() { 1e-6 } else { 0.01 * d0 / d1 };
    let guess = guess.min((t1 - t0).abs());

    let h = guess.copysign(t1 - t0);
    let ahead = x0.add_scaled(&[(h, slope)])?;
    let slope_ahead = field.at(&ahead, t0 + h)?;
    let d2 = norm(&[(1.0 / guess, &slope_ahead), (-1.0 / guess, slope)])?;
    let fitting = if !d2.is_finite() {
        0.1 * guess
    } else if d1.max(d2) <= 1e-15 {
        (1e-3 * guess).max(1e-6)
    } else {
        (0.01 / d1.max(d2)).powf(1.0 / f64::from(tableau.order()))
    };
    Ok(fitting.min(100.0 * guess))
}
