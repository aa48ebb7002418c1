//! Flow walking (paper, eq. 8): learn the map itself by walking x0 to x1 in a few solver steps of random
//! length, with gradients through the whole walk.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rand::Rng;

use super::field::{Base, Field, Stage};
use super::matching::{matching_loss, mean_square};
use crate::ode::{self, Method};

/// Times `0 = t₀ < t₁ < … < t_k = 1` of a walk, drawn anew for each example: the inner ones are sorted
/// uniform draws.
///
/// # Shapes
/// k + 1 tensors (B).
pub fn walk_times(batch: usize, k: usize, rng: &mut impl Rng, device: &Device) -> Result<Vec<Tensor>> {
    ensure!(k >= 1, "a walk needs at least one step");
    let mut columns = vec![vec![0f32; batch]; k + 1];
    for example in 0..batch {
        let mut inner: Vec<f32> = (1..k).map(|_| rng.random()).collect();
        inner.sort_by(f32::total_cmp);
        for (column, t) in columns[1..].iter_mut().zip(inner.into_iter().chain([1.0])) {
            column[example] = t;
        }
    }
    columns.into_iter().map(|c| Ok(Tensor::from_vec(c, batch, device)?)).collect()
}

/// The times `i/k` of k equal steps, the same for every example.
///
/// # Shapes
/// k + 1 tensors (1).
pub fn equal_times(k: usize, device: &Device) -> Result<Vec<Tensor>> {
    ensure!(k >= 1, "an integration needs at least one step");
    (0..=k).map(|i| Ok(Tensor::new(&[i as f32 / k as f32], device)?)).collect()
}

/// Carries x0 along the flow over the given times, one solver step an interval.
///
/// Each example walks its own intervals: with `s` in 0..1 inside an interval,
/// `dx/ds = d·u(x, t + s·d)`, an ordinary step of length 1.
///
/// # Shapes
/// `x0` (B, T, D); `times` tensors (B) or (1); result (B, T, D).
pub fn walk(u: &impl Field, x0: &Tensor, times: &[Tensor], method: Method) -> Result<Tensor> {
    let Some(stages) = stages(times, method)? else { return walk_by_tableau(u, x0, times, method) };
    if let Some(end) = u.carry(x0, &stages)? {
        return Ok(end);
    }
    let known: Vec<Tensor> = stages.iter().map(|stage| stage.time.clone()).collect();
    u.unchanged(&known, || {
        let (mut x, mut previous) = (x0.clone(), None);
        for Stage { time, length, factor, base } in &stages {
            let base = match (base, previous) {
                (Base::Previous, Some(previous)) => previous,
                _ => x.clone(),
            };
            let next = ode::evaluation(|| u.advance(&base, (&x, time), length, *factor))?;
            previous = Some(std::mem::replace(&mut x, next));
        }
        Ok(x)
    })
}

/// The evaluations of a walk with a solver whose steps add up nothing but one evaluation each.
fn stages(times: &[Tensor], method: Method) -> Result<Option<Vec<Stage>>> {
    let mut stages = Vec::new();
    for interval in times.windows(2) {
        let (start, length) = (&interval[0], (&interval[1] - &interval[0])?);
        let stage =
            |time: Tensor, factor: f64, base: Base| Stage { time, length: length.clone(), factor, base };
        match method {
            Method::Euler => stages.push(stage(start.clone(), 1.0, Base::Own)),
            // Paper, eq. 5.
            Method::Midpoint => {
                let middle = (start + (&length * 0.5)?)?;
                stages.extend([stage(start.clone(), 0.5, Base::Own), stage(middle, 1.0, Base::Previous)]);
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(stages))
}

fn walk_by_tableau(u: &impl Field, x0: &Tensor, times: &[Tensor], method: Method) -> Result<Tensor> {
    u.unchanged(&times[..times.len().saturating_sub(1)], || {
        let mut x = x0.clone();
        for interval in times.windows(2) {
            let (start, length) = (&interval[0], (&interval[1] - &interval[0])?);
            let field = |x: &Tensor, s: f64| u.scaled_velocity(x, &(start + (&length * s)?)?, &length);
            x = ode::step(method.tableau(), field, &x, 0.0, 1.0)?;
        }
        Ok(x)
    })
}

/// `L = E‖x̂₁ − x1‖²` with `x̂₁` the end of the walk (paper, eq. 8); the mean runs over all elements.
///
/// # Shapes
/// `x0`, `x1` (B, T, D); `times` as from [`walk_times`]; result a scalar.
pub fn walking_loss(
    u: &impl Field,
    x0: &Tensor,
    x1: &Tensor,
    times: &[Tensor],
    method: Method,
) -> Result<Tensor> {
    mean_square(&walk(u, x0, times, method)?, x1)
}

/// `L_FW + α·L_FM` (paper, eq. 9).
///
/// # Shapes
/// as [`walking_loss`] and [`matching_loss`].
pub fn hybrid_loss(
    u: &impl Field,
    (x0, x1): (&Tensor, &Tensor),
    times: &[Tensor],
    method: Method,
    t: &Tensor,
    alpha: f64,
) -> Result<Tensor> {
    let walking = walking_loss(u, x0, x1, times, method)?;
    Ok((walking + (matching_loss(u, x0, x1, t)? * alpha)?)?)
}
