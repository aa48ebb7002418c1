//! The squared error that flows are trained on.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{self, GRAIN, elements, lane_sum, with_elements, written};
use super::simd::vectorised;

/// Mean of (a − b)² over all elements.
///
/// # Shapes
/// `a` and `b` the same; result a scalar.
pub fn mean_square(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(mean) = super::cuda::mean_square(a, b)? {
        return Ok(mean);
    }
    if a.shape() == b.shape() && kernel::applies(&[a, b]) {
        return a.apply_op2(b, Fused);
    }
    (a - b)?.sqr()?.mean_all()
}

struct Fused;

vectorised! {
    fn squares[](a: &[f32], b: &[f32]) -> f32 {
        lane_sum([a, b], |[a, b]| (a - b) * (a - b))
    }
}

impl CustomOp2 for Fused {
    fn name(&self) -> &'static str {
        "mean_square"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (elements(a, a_layout)?, elements(b, b_layout)?);
        let blocks = a.par_chunks(GRAIN).zip(b.par_chunks(GRAIN));
        let parts: Vec<f64> = blocks.map(|(a, b)| f64::from(squares(a, b))).collect();
        let mean = parts.iter().sum::<f64>() / a.len() as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), ().into()))
    }

    /// `2·g·(a − b)/n`, with the other sign for b.
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let factor = 2.0 * grad.to_scalar::<f32>()? / a.elem_count() as f32;
        let slope = |of: &Tensor, factor: f32| {
            let slope = || with_elements([a, b], |[a, b]| Ok(difference(a, b, factor)));
            of.track_op()
                .then(slope)
                .transpose()?
                .map(|d| Tensor::from_vec(d, of.shape(), of.device()))
                .transpose()
        };
        Ok((slope(a, factor)?, slope(b, -factor)?))
    }
}

/// `factor·(a − b)`.
fn difference(a: &[f32], b: &[f32], factor: f32) -> Vec<f32> {
    let write = |d: &mut [MaybeUninit<f32>]| {
        let blocks = d.par_chunks_mut(GRAIN).zip(a.par_chunks(GRAIN)).zip(b.par_chunks(GRAIN));
        blocks.for_each(|((d, a), b)| {
            d.iter_mut().zip(a.iter().zip(b)).for_each(|(d, (a, b))| _ = d.write(factor * (a - b)))
        });
    };
    // SAFETY: the blocks cover the elements of a, of which b has as many.
    unsafe { written(a.len(), write) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn by_hand_and_by_differences() -> Result<()> {
        let (a, b) = (
            Tensor::new(&[1f32, 2.0], &candle_core::Device::Cpu)?,
            Tensor::new(&[0f32, 4.0], &candle_core::Device::Cpu)?,
        );
        agrees(&mean_square(&a, &b)?, &Tensor::new(2.5f32, a.device())?, 1e-6)?;
        gradients_agree(&[random(&[2, 3], 1)?, random(&[2, 3], 2)?], |v| mean_square(&v[0], &v[1]))
    }

    #[test]
    fn kernel_and_definition_agree_over_many_blocks() -> Result<()> {
        let (a, b) = (random(&[7, 50, 101], 1)?, random(&[7, 50, 101], 2)?);
        agrees(&mean_square(&a, &b)?, &(&a - &b)?.sqr()?.mean_all()?, 1e-5)
    }
}
