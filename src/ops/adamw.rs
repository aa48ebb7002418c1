//! One AdamW update (Loshchilov & Hutter, arXiv 1711.05101) and the global gradient norm.

use candle_core::{D, DType, Result, Tensor, Var};
use rayon::prelude::*;

use super::kernel::{self, GRAIN, lane_sum, with_elements, with_elements_mut};
use super::simd::vectorised;

#[cfg(feature = "cuda")]
pub use super::cuda::{ClippedSlot, clipped_adamw};

/// The coefficients of one update.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this step, from 1: corrects the bias of the moments.
    pub step: u64,
    /// Factor on the gradient before use: clipping to a norm.
    pub gradient_scale: f64,
}

/// Updates a parameter and its two moments in place:
/// `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`,
/// `w ← w·(1 − lr·λ) − lr·m̂/(√v̂ + ε)` with `m̂ = m/(1−β₁ˢ)`, `v̂ = v/(1−β₂ˢ)`.
///
/// # Shapes
/// all the same; moments in f32.
pub fn adamw(parameter: &Var, gradient: &Tensor, m: &Var, v: &Var, update: &Update) -> Result<()> {
    let gradient = gradient.contiguous()?;
    if kernel::applies(&[parameter, &gradient, m, v]) {
        let change = |w: &mut [f32]| {
            with_elements_mut(m, |m| {
                with_elements_mut(v, |v| {
                    with_elements([&gradient], |[g]| {
                        in_one_pass(w, m, v, g, update);
                        Ok(())
                    })
                })
            })
        };
        return with_elements_mut(parameter, change);
    }
    composed(parameter, &gradient, m, v, update)
}

fn composed(parameter: &Var, gradient: &Tensor, m: &Var, v: &Var, update: &Update) -> Result<()> {
    let g = (gradient.to_dtype(DType::F32)? * update.gradient_scale)?;
    let next_m = ((m.as_tensor() * update.beta1)? + (&g * (1.0 - update.beta1))?)?;
    let next_v = ((v.as_tensor() * update.beta2)? + (g.sqr()? * (1.0 - update.beta2))?)?;
    let (c1, c2) = update.corrections();
    let direction = ((&next_m / c1)? / ((&next_v / c2)?.sqrt()? + update.eps)?)?;
    let decayed = (parameter.to_dtype(DType::F32)? * (1.0 - update.lr * update.weight_decay))?;
    let next = (decayed - (direction * update.lr)?)?.to_dtype(parameter.dtype())?;
    m.set(&next_m)?;
    v.set(&next_v)?;
    parameter.set(&next)
}

/// Square of the Euclidean norm of a gradient, accumulated in f64 in a fixed order.
pub fn squared_norm(gradient: &Tensor) -> Result<f64> {
    let gradient = gradient.contiguous()?;
    if kernel::applies(&[&gradient]) {
        return with_elements([&gradient], |[g]| {
            let parts: Vec<f64> = g.par_chunks(GRAIN).map(|g| f64::from(sum_of_squares(g))).collect();
            Ok(parts.iter().sum())
        });
    }
    let squares = gradient.to_dtype(DType::F32)?.sqr()?;
    // Row by row first: one block of a card adds up a whole tensor, and the others look on.
    let sums = if squares.rank() > 1 { squares.sum(D::Minus1)? } else { squares };
    Ok(f64::from(sums.sum_all()?.to_scalar::<f32>()?))
}

impl Update {
    pub(super) fn corrections(&self) -> (f64, f64) {
        let power = |beta: f64| 1.0 - beta.powf(self.step as f64);
        (power(self.beta1), power(self.beta2))
    }
}

/// Reads and writes every element once.
fn in_one_pass(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], update: &Update) {
    let coefficients = Coefficients::of(update);
    let moments = m.par_chunks_mut(GRAIN).zip(v.par_chunks_mut(GRAIN));
    let blocks = w.par_chunks_mut(GRAIN).zip(moments).zip(g.par_chunks(GRAIN));
    blocks.for_each(|((w, (m, v)), g)| move_block(w, m, v, g, coefficients));
}

/// What an update multiplies by, in f32.
#[derive(Clone, Copy)]
struct Coefficients {
    beta1: f32,
    gain1: f32,
    beta2: f32,
    gain2: f32,
    keep: f32,
    rate: f32,
    correction2: f32,
    eps: f32,
}

impl Coefficients {
    fn of(update: &Update) -> Self {
        let (c1, c2) = update.corrections();
        Self {
            beta1: update.beta1 as f32,
            gain1: ((1.0 - update.beta1) * update.gradient_scale) as f32,
            beta2: update.beta2 as f32,
            gain2: ((1.0 - update.beta2) * update.gradient_scale.powi(2)) as f32,
            keep: (1.0 - update.lr * update.weight_decay) as f32,
            rate: (update.lr / c1) as f32,
            correction2: (1.0 / c2) as f32,
            eps: update.eps as f32,
        }
    }
}

vectorised! {
    fn sum_of_squares[](x: &[f32]) -> f32 {
        lane_sum([x], |[x]| x * x)
    }
}

vectorised! {
    fn move_block[](w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], by: Coefficients) {
        for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(g) {
            *m = by.beta1 * *m + by.gain1 * g;
            *v = by.beta2 * *v + by.gain2 * g * g;
            *w = by.keep * *w - by.rate * *m / ((*v * by.correction2).sqrt() + by.eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::check::{agrees, random};

    #[test]
    fn kernel_and_definition_agree_over_many_steps() -> Result<()> {
        let start = random(&[300, 70], 1)?;
        let state = || -> Result<[Var; 3]> {
            let zero = || Var::zeros((300, 70), DType::F32, &Device::Cpu);
            Ok([Var::from_tensor(&start)?, zero()?, zero()?])
        };
        let ([w, m, v], [w2, m2, v2]) = (state()?, state()?);
        for step in 1..=5 {
            let gradient = random(&[300, 70], 10 + step)?;
            let gradient_scale = 0.5;
            let update = Update {
                lr: 1e-2,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                step,
                gradient_scale,
            };
            adamw(&w, &gradient, &m, &v, &update)?;
            composed(&w2, &gradient, &m2, &v2, &update)?;
        }
        agrees(&w, &w2, 1e-6)?;
        agrees(&v, &v2, 1e-6)
    }

    #[test]
    fn the_first_step_moves_by_the_learning_rate() -> Result<()> {
        let zero = || Var::zeros(3, DType::F32, &Device::Cpu);
        let (w, m, v) = (zero()?, zero()?, zero()?);
        let gradient = Tensor::new(&[0.5f32, -2.0, 100.0], &Device::Cpu)?;
        let update = Update {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            step: 1,
            gradient_scale: 1.0,
        };
        adamw(&w, &gradient, &m, &v, &update)?;
        agrees(&w, &Tensor::new(&[-0.1f32, 0.1, -0.1], &Device::Cpu)?, 1e-6)
    }

    #[test]
    fn squared_norm_is_exact_on_integers() -> Result<()> {
        let x = Tensor::arange(0f32, 100.0, &Device::Cpu)?;
        assert_eq!(squared_norm(&x)?, 328_350.0);
        Ok(())
    }
}
