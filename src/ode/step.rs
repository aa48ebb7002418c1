//! One step of any explicit Runge–Kutta method.

use super::error::Error;
use super::evaluations::evaluation;
use super::state::State;
use super::tableau::Tableau;

/// The velocity field, counting its evaluations.
pub(super) struct Field<F> {
    f: F,
    evaluations: usize,
}

impl<F> Field<F> {
    pub(super) fn new(f: F) -> Self {
        Field { f, evaluations: 0 }
    }

    pub(super) fn at<S, E>(&mut self, x: &S, t: f64) -> Result<S, E>
    where
        F: FnMut(&S, f64) -> Result<S, E>,
    {
        self.evaluations += 1;
        evaluation(|| (self.f)(x, t))
    }

    pub(super) fn evaluations(&self) -> usize {
        self.evaluations
    }
}

/// The interval of one step. Both ends are kept, so that no stage is evaluated a rounding error beyond `t1`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    pub(super) t0: f64,
    pub(super) t1: f64,
    pub(super) h: f64,
}

impl Interval {
    fn at(&self, c: f64) -> f64 {
        if c == 1.0 { self.t1 } else { self.t0 + c * self.h }
    }
}

/// The outcome of one step.
pub(super) struct Step<S> {
    pub(super) x1: S,
    pub(super) slopes: Vec<S>,
}

impl<S: State> Step<S> {
    /// Evaluates the stages that the new state needs; `first` is `f(x, t0)`.
    pub(super) fn take<F, E>(
        tableau: &Tableau,
        field: &mut Field<F>,
        x: &S,
        first: S,
        interval: Interval,
    ) -> Result<Self, E>
    where
        F: FnMut(&S, f64) -> Result<S, E>,
        E: From<Error>,
    {
        let mut slopes = Vec::with_capacity(tableau.stages());
        slopes.push(first);
        for i in 1..tableau.solution_stages() {
            let state = combine(x, interval.h, tableau.row(i), &slopes)?;
            slopes.push(field.at(&state, interval.at(tableau.c[i]))?);
        }
        let x1 = combine(x, interval.h, &tableau.b, &slopes)?;
        Ok(Step { x1, slopes })
    }

    /// Evaluates the stages that only the error estimate needs.
    pub(super) fn complete<F, E>(
        &mut self,
        tableau: &Tableau,
        field: &mut Field<F>,
        x: &S,
        interval: Interval,
    ) -> Result<(), E>
    where
        F: FnMut(&S, f64) -> Result<S, E>,
        E: From<Error>,
    {
        for i in self.slopes.len()..tableau.stages() {
            let t = interval.at(tableau.c[i]);
            let slope = if tableau.is_fsal() {
                field.at(&self.x1, t)?
            } else {
                field.at(&combine(x, interval.h, tableau.row(i), &self.slopes)?, t)?
            };
            self.slopes.push(slope);
        }
        Ok(())
    }
}

/// `x + h·Σ wᵢ·kᵢ`.
pub(super) fn combine<S: State>(x: &S, h: f64, weights: &[f64], slopes: &[S]) -> Result<S, Error> {
    x.add_scaled(&scaled(h, weights, slopes))
}

/// The terms `(h·wᵢ, kᵢ)` with `wᵢ ≠ 0`.
pub(super) fn scaled<'a, S>(h: f64, weights: &[f64], slopes: &'a [S]) -> Vec<(f64, &'a S)> {
    weights.iter().zip(slopes).filter(|(w, _)| **w != 0.0).map(|(w, k)| (h * w, k)).collect()
}

/// One step of size `h` from `x` at time `t`. Tensor states keep their autograd graph.
///
/// Steps of a different size for every example of a batch, as flow walking draws them, are this step over
/// `s ∈ [0, 1]` of the rescaled field `x'(s) = h⊙u(x, t + s·h)` with `t` and `h` one number an example:
/// `step(tableau, rescaled, x, 0.0, 1.0)`.
///
/// # Errors
/// Whatever `f` returns; slopes whose shape differs from `x`.
pub fn step<S, F, E>(tableau: &Tableau, f: F, x: &S, t: f64, h: f64) -> Result<S, E>
where
    S: State,
    F: FnMut(&S, f64) -> Result<S, E>,
    E: From<Error>,
{
    let mut field = Field::new(f);
    let first = field.at(x, t)?;
    Ok(Step::take(tableau, &mut field, x, first, Interval { t0: t, t1: t + h, h })?.x1)
}

#[cfg(test)]
mod tests {
    use super::super::{Method, Result, Tableau};
    use super::*;

    #[test]
    fn euler_and_midpoint_are_the_papers_equations() {
        let f = |x: &[f64; 1], t: f64| -> Result<_> { Ok([x[0] * t + 1.0]) };
        let (x, t, d) = ([0.7], 0.2, 0.1);
        let u = f(&x, t).unwrap()[0];
        assert_eq!(step(Method::Euler.tableau(), f, &x, t, d).unwrap(), [x[0] + d * u]);
        let half = f(&[x[0] + d / 2.0 * u], t + d / 2.0).unwrap()[0];
        assert_eq!(step(Method::Midpoint.tableau(), f, &x, t, d).unwrap(), [x[0] + d * half]);
    }

    #[test]
    fn stages_that_only_the_estimate_needs_are_left_out() {
        let mut times = Vec::new();
        let f = |x: &[f64; 1], t: f64| -> Result<_> {
            times.push(t);
            Ok(*x)
        };
        step(Method::Bosh3.tableau(), f, &[1.0], 1.0, 2.0).unwrap();
        assert_eq!(times, [1.0, 2.0, 2.5]);
    }

    #[test]
    fn an_estimate_of_stages_beyond_the_solution_needs_no_fsal() {
        // Euler with an error estimate by the midpoint slope.
        let tableau =
            Tableau::new("own", 1, vec![0.0, 0.5], vec![0.5], vec![1.0, 0.0], Some(vec![1.0, -1.0])).unwrap();
        let mut field = Field::new(|x: &[f64; 1], t: f64| -> Result<_> { Ok([x[0] + t]) });
        let interval = Interval { t0: 0.0, t1: 1.0, h: 1.0 };
        let mut taken = Step::take(&tableau, &mut field, &[1.0], [1.0], interval).unwrap();
        taken.complete(&tableau, &mut field, &[1.0], interval).unwrap();
        assert_eq!((taken.x1, taken.slopes), ([2.0], vec![[1.0], [2.0]]));
    }
}
