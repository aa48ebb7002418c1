//! A number of steps for each token: tokens whose flow has become straight, or small, stop early.

use anyhow::Result;
use candle_core::{D, DType, Tensor};

use super::Student;
use crate::ode::{self, Method};

/// Equal steps of which a token may leave out the last ones.
///
/// After each step a token's mean velocity v over the step is held against the one of the step before, v′
/// (0 before the first). If `(1 − t)·‖v − v′‖ ≤ tolerance·‖x‖`, what remains of the way is taken as straight:
/// the token jumps to `x + (1 − t)·v` and is evaluated no more. Later tokens attend to it where it arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyExit {
    /// The solver.
    pub method: Method,
    /// Most steps k.
    pub steps: usize,
    /// How much of its length a token may change by leaving; 0 lets none leave that still moves.
    pub tolerance: f64,
}

impl Student {
    /// Carries latents from boundary m to boundary n, each token in as many steps as it needs. Also returns
    /// the evaluations of a token, on average; the keys and values of tokens that have left are not counted.
    ///
    /// # Shapes
    /// `x0` (B, T, D), result the same.
    pub fn transport_early(&self, x0: &Tensor, exit: &EarlyExit) -> Result<(Tensor, f64)> {
        let tableau = exit.method.tableau();
        let mut x = x0.to_dtype(DType::F32)?;
        let (batch, tokens, _) = x.dims3()?;
        let mut moving = Tensor::ones((batch, tokens, 1), DType::F32, x.device())?;
        let mut before = x.zeros_like()?;
        let h = 1.0 / exit.steps as f64;
        let mut evaluations = 0.0;
        for i in 0..exit.steps {
            let share = f64::from(moving.mean_all()?.to_scalar::<f32>()?);
            if share == 0.0 {
                break;
            }
            let mut nfe = 0;
            let field = |x: &Tensor, t: f64| {
                nfe += 1;
                self.velocity.at(x, t)
            };
            let next = ode::step(tableau, field, &x, i as f64 * h, h)?.detach();
            evaluations += share * nfe as f64;
            let v = ((&next - &x)? / h)?;
            let rest = 1.0 - (i + 1) as f64 * h;
            let change = (norm(&(&v - &before)?)? * rest)?;
            let leaves = change.le(&(norm(&next)? * exit.tolerance)?)?.to_dtype(DType::F32)?;
            let arrived = (&next + v.broadcast_mul(&(&leaves * rest)?)?)?;
            x = (&x + (arrived - &x)?.broadcast_mul(&moving)?)?;
            moving = (&moving - (&moving * &leaves)?)?;
            before = v;
        }
        Ok((x, evaluations))
    }
}

/// ‖x‖ of every token, (B, T, 1).
fn norm(x: &Tensor) -> Result<Tensor> {
    Ok(x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
}
