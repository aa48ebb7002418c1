//! The solution between the ends of a step.

use super::error::Result;
use super::state::State;
use super::step::{Interval, Step};
use super::tableau::{Dense, Tableau};

/// The state at `t` inside the step from `x0`; `end` is the slope at the step's end.
pub(super) fn interpolate<S: State>(
    tableau: &Tableau,
    x0: &S,
    step: &Step<S>,
    end: &S,
    interval: Interval,
    t: f64,
) -> Result<S> {
    let theta = (t - interval.t0) / interval.h;
    match &tableau.dense {
        Dense::Hermite => hermite(x0, &step.x1, &step.slopes[0], end, interval.h, theta),
        Dense::Quartic(rows) => {
            // In fixed-step mode the last stage, which is `end`, has not been evaluated as a stage.
            let slopes = step.slopes.iter().chain(std::iter::once(end));
            let weight = |row: &[f64; 4]| row.iter().rev().fold(0.0, |sum, w| (sum + w) * theta);
            let terms: Vec<_> =
                rows.iter().map(weight).zip(slopes).map(|(w, k)| (interval.h * w, k)).collect();
            x0.add_scaled(&terms)
        }
    }
}

/// `x0 + w·(x1 − x0) + h·(θ(1−θ)²·f0 − θ²(1−θ)·f1)`, `w = θ²(3 − 2θ)`
/// (Hairer, Nørsett & Wanner, Solving ODEs I, eq. II.6.7).
fn hermite<S: State>(x0: &S, x1: &S, f0: &S, f1: &S, h: f64, theta: f64) -> Result<S> {
    let rest = 1.0 - theta;
    let w = theta * theta * (3.0 - 2.0 * theta);
    x0.add_scaled(&[(-w, x0), (w, x1), (h * theta * rest * rest, f0), (-h * theta * theta * rest, f1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hermite_reproduces_a_cubic() -> Result<()> {
        let x = |t: f64| [1.0 + t - 2.0 * t * t + 0.5 * t * t * t];
        let f = |t: f64| [1.0 - 4.0 * t + 1.5 * t * t];
        let (t0, h) = (0.4, 1.3);
        for theta in [0.0, 0.2, 0.5, 0.9, 1.0] {
            let [y] = hermite(&x(t0), &x(t0 + h), &f(t0), &f(t0 + h), h, theta)?;
            assert!((y - x(t0 + theta * h)[0]).abs() < 1e-14);
        }
        Ok(())
    }
}
