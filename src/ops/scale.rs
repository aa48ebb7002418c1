//! Each example of a batch multiplied by a number of its own.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernel::{self, GRAIN, elements, with_elements};
use super::simd::vectorised;

/// `y_b = f_b·x_b`.
///
/// Where the factors are plain numbers, as the step lengths of a walk are, the kernel makes one pass in each direction;
/// candle would also compute their gradient, which nobody asks for.
///
/// # Shapes
/// `x` (B, …); `factor` of B elements in any shape, or of one for all examples; result as `x`.
pub fn scale(x: &Tensor, factor: &Tensor) -> Result<Tensor> {
    let (batch, count) = (x.dim(0)?, factor.elem_count());
    if count != 1 && count != batch {
        bail!("scale: {count} factors do not fit {batch} examples");
    }
    if kernel::applies(&[x, factor]) && !factor.track_op() {
        let factors = factor.flatten_all()?.to_vec1()?;
        return x.apply_op1(Fused { factors });
    }
    composed(x, factor)
}

fn composed(x: &Tensor, factor: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; x.rank()];
    shape[0] = factor.elem_count();
    x.broadcast_mul(&factor.reshape(shape)?)
}

struct Fused {
    factors: Vec<f32>,
}

impl Fused {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0f32; x.len()];
        let size = x.len() / self.factors.len();
        let examples = y.par_chunks_mut(size).zip(x.par_chunks(size)).zip(&self.factors);
        examples.for_each(|((y, x), factor)| {
            let blocks = y.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN));
            blocks.for_each(|(y, x)| scale_block(y, x, *factor));
        });
        y
    }
}

vectorised! {
    fn scale_block[](y: &mut [f32], x: &[f32], factor: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = factor * x;
        }
    }
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.apply(elements(x, layout)?)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let dx = with_elements([&grad], |[grad]| Ok(self.apply(grad)))?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn kernel_and_definition_agree() -> Result<()> {
        let x = random(&[3, 211, 80], 1)?;
        for count in [1, 3] {
            let factor = random(&[count], 2)?;
            agrees(&scale(&x, &factor)?, &composed(&x, &factor)?, 1e-6)?;
        }
        assert!(scale(&x, &random(&[2], 2)?).is_err());
        Ok(())
    }

    #[test]
    fn gradients_match_finite_differences_with_and_without_one_for_the_factors() -> Result<()> {
        let (x, factor) = (random(&[2, 3, 5], 1)?, random(&[2], 2)?);
        let plain = |x: &Tensor| scale(x, &factor.to_dtype(x.dtype())?);
        gradients_agree(std::slice::from_ref(&x), |v| plain(&v[0]))?;
        gradients_agree(&[x, factor.clone()], |v| scale(&v[0], &v[1]))
    }
}
