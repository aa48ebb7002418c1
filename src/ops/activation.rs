//! The activations of GPT-NeoX checkpoints.

use std::f64::consts::FRAC_2_PI;
use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{self, GRAIN, elements, with_elements, written};
use super::math::{erf, exp, tanh};
use super::simd::vectorised;

/// Pointwise non-linearity of the MLP, named as in Hugging Face's `hidden_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x·Φ(x)` with the exact error function.
    Gelu,
    /// `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    GeluNew,
    /// The same tanh approximation under its other Hugging Face name.
    GeluFast,
    /// `max(x, 0)`.
    Relu,
    /// `x·σ(x)`.
    Silu,
}

impl Activation {
    /// Applies the activation elementwise; any shape, differentiable.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        if kernel::applies(&[x]) {
            return x.apply_op1(Fused(self));
        }
        #[cfg(feature = "cuda")]
        if let Some(y) = super::cuda::activation(x, self)? {
            return Ok(y);
        }
        self.composed(x)
    }

    /// The activation of every element.
    pub(super) fn of(self, x: &[f32]) -> Vec<f32> {
        match self {
            Self::Gelu => map(x, gelu),
            Self::GeluNew | Self::GeluFast => map(x, gelu_tanh),
            Self::Relu => map(x, |x| x.max(0.0)),
            Self::Silu => map(x, silu),
        }
    }

    /// The same in the memory of `x`.
    pub(super) fn in_place(self, x: &mut [f32]) {
        match self {
            Self::Gelu => map_in_place(x, gelu),
            Self::GeluNew | Self::GeluFast => map_in_place(x, gelu_tanh),
            Self::Relu => map_in_place(x, |x| x.max(0.0)),
            Self::Silu => map_in_place(x, silu),
        }
    }

    /// In one pass over rows of `width`: `x` becomes its activation and `grad` the slope of what `x` was. Returns the sums
    /// of the slope's columns.
    pub(super) fn backward_in_place(self, x: &mut [f32], grad: &mut [f32], width: usize) -> Vec<f32> {
        match self {
            Self::Gelu => both(x, grad, width, |x| (gelu(x), gelu_slope(x))),
            Self::GeluNew | Self::GeluFast => both(x, grad, width, |x| (gelu_tanh(x), gelu_tanh_slope(x))),
            Self::Relu => both(x, grad, width, |x| (x.max(0.0), relu_slope(x))),
            Self::Silu => both(x, grad, width, |x| (silu(x), silu_slope(x))),
        }
    }

    fn composed(self, x: &Tensor) -> Result<Tensor> {
        match self {
            // candle's own slopes of these two have constants of six digits.
            Self::Gelu if x.dtype() == DType::F64 => ((x / 2f64.sqrt())?.erf()? + 1.0)? * (x * 0.5)?,
            Self::GeluNew | Self::GeluFast if x.dtype() == DType::F64 => {
                let cubic = (x + (x.powf(3.0)? * 0.044_715)?)?;
                ((cubic * FRAC_2_PI.sqrt())?.tanh()? + 1.0)? * (x * 0.5)?
            }
            Self::Gelu => x.gelu_erf(),
            Self::GeluNew | Self::GeluFast => x.gelu(),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
        }
    }
}

const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    cdf + x * FRAC_1_SQRT_2PI * exp(-0.5 * x * x)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x)))
}

#[inline(always)]
fn gelu_tanh_slope(x: f32) -> f32 {
    let t = tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x)
}

#[inline(always)]
fn relu_slope(x: f32) -> f32 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let s = 1.0 / (1.0 + exp(-x));
    s * (1.0 + x * (1.0 - s))
}

vectorised! {
    fn map_block[F: Fn(f32) -> f32](y: &mut [MaybeUninit<f32>], x: &[f32], f: &F) {
        for (y, &x) in y.iter_mut().zip(x) {
            y.write(f(x));
        }
    }
}

vectorised! {
    fn change_block[F: Fn(f32) -> f32](x: &mut [f32], f: &F) {
        x.iter_mut().for_each(|x| *x = f(*x));
    }
}

fn map_in_place(x: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    x.par_chunks_mut(GRAIN).for_each(|x| change_block(x, &f));
}

vectorised! {
    fn slope_block[F: Fn(f32) -> f32](dx: &mut [MaybeUninit<f32>], x: &[f32], grad: &[f32], slope: &F) {
        for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(grad) {
            dx.write(g * slope(x));
        }
    }
}

vectorised! {
    fn both_block[F: Fn(f32) -> (f32, f32)](x: &mut [f32], grad: &mut [f32], sums: &mut [f32], f: &F) {
        let width = sums.len();
        for (x, grad) in x.chunks_exact_mut(width).zip(grad.chunks_exact_mut(width)) {
            for ((x, g), sum) in x.iter_mut().zip(grad).zip(&mut *sums) {
                let (value, slope) = f(*x);
                *x = value;
                *g *= slope;
                *sum += *g;
            }
        }
    }
}

/// Rows of a task that sums columns.
const ROWS: usize = 32;

fn both(x: &mut [f32], grad: &mut [f32], width: usize, f: impl Fn(f32) -> (f32, f32) + Sync) -> Vec<f32> {
    let blocks = x.par_chunks_mut(ROWS * width).zip(grad.par_chunks_mut(ROWS * width));
    let partial: Vec<Vec<f32>> = blocks
        .map(|(x, grad)| {
            let mut sums = vec![0f32; width];
            both_block(x, grad, &mut sums, &f);
            sums
        })
        .collect();
    kernel::fold_rows(&partial.concat(), width)
}

/// `f` of every element.
pub(super) fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let write = |y: &mut [MaybeUninit<f32>]| {
        y.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(y, x)| map_block(y, x, &f));
    };
    // SAFETY: the blocks cover the elements of x.
    unsafe { written(x.len(), write) }
}

/// `grad ⊙ slope(x)`.
pub(super) fn map_with(x: &[f32], grad: &[f32], slope: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    assert_eq!(x.len(), grad.len(), "a slope for every element");
    let write = |dx: &mut [MaybeUninit<f32>]| {
        let inputs = x.par_chunks(GRAIN).zip(grad.par_chunks(GRAIN));
        dx.par_chunks_mut(GRAIN).zip(inputs).for_each(|(dx, (x, grad))| slope_block(dx, x, grad, &slope));
    };
    // SAFETY: the blocks cover the elements of x.
    unsafe { written(x.len(), write) }
}

struct Fused(Activation);

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.0.of(elements(x, layout)?)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let dx = with_elements([x, &grad], |[x, grad]| {
            Ok(match self.0 {
                Activation::Gelu => map_with(x, grad, gelu_slope),
                Activation::GeluNew | Activation::GeluFast => map_with(x, grad, gelu_tanh_slope),
                Activation::Relu => map_with(x, grad, relu_slope),
                Activation::Silu => map_with(x, grad, silu_slope),
            })
        })?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    const ALL: [Activation; 5] =
        [Activation::Gelu, Activation::GeluNew, Activation::GeluFast, Activation::Relu, Activation::Silu];

    #[test]
    fn kernel_and_definition_agree() -> Result<()> {
        let x = (random(&[3, 7, 1001], 1)? * 8.0)?;
        ALL.into_iter().try_for_each(|a| agrees(&a.apply(&x)?, &a.composed(&x)?, 1e-6))
    }

    #[test]
    fn gradients_match_finite_differences() -> Result<()> {
        let x = [(random(&[2, 37], 1)? * 4.0)?];
        ALL.into_iter().try_for_each(|a| gradients_agree(&x, |v| a.apply(&v[0])))
    }
}
