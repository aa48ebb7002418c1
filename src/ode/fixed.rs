//! Integration in equal steps.

use super::error::Error;
use super::options::Options;
use super::solution::Recorder;
use super::state::State;
use super::step::{Field, Interval, Step};
use super::tableau::Tableau;

/// Takes `steps` equal steps. A step ends where the next begins, so that the slope there, where dense
/// output needed it, is used again.
pub(super) fn integrate<S, F, E>(
    tableau: &Tableau,
    field: &mut Field<F>,
    x0: &S,
    steps: usize,
    options: &Options,
    recorder: &mut Recorder<S>,
) -> Result<S, E>
where
    S: State,
    F: FnMut(&S, f64) -> Result<S, E>,
    E: From<Error>,
{
    let Options { t0, t1, .. } = *options;
    let h = (t1 - t0) / steps as f64;
    let time = |i: usize| if i == steps { t1 } else { t0 + (t1 - t0) * (i as f64 / steps as f64) };

    let mut x = x0.clone();
    let mut known_slope = None;
    for i in 0..steps {
        let interval = Interval { t0: time(i), t1: time(i + 1), h };
        let first = match known_slope.take() {
            Some(slope) => slope,
            None => field.at(&x, interval.t0)?,
        };
        let step = Step::take(tableau, field, &x, first, interval)?;
        if recorder.wants_inside(interval) {
            known_slope = Some(field.at(&step.x1, interval.t1)?);
        }
        recorder.record(tableau, &x, &step, known_slope.as_ref(), interval)?;
        x = step.x1;
    }
    // Once non-finite, a state stays so: one look at the end finds it.
    if !x.is_finite()? {
        return Err(Error::NonFinite { what: "the state", t: t1 }.into());
    }
    Ok(x)
}
