//! Elementary functions of tensors in f32 that candle evaluates one element at a time.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::activation::{map, map_with};
use super::kernel::{self, elements, with_elements};
use super::math;

/// Hyperbolic tangent of every element; any shape, differentiable.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    if kernel::applies(&[x]) { x.apply_op1(Tanh) } else { x.tanh() }
}

struct Tanh;

impl CustomOp1 for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(map(elements(x, layout)?, math::tanh)), layout.shape().clone()))
    }

    /// `1 − tanh²`, from the result.
    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let dx = with_elements([y, &grad], |[y, grad]| Ok(map_with(y, grad, |y| 1.0 - y * y)))?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn tanh_is_candles_and_differentiable() -> Result<()> {
        let x = (random(&[3, 7, 1001], 1)? * 8.0)?;
        agrees(&tanh(&x)?, &x.tanh()?, 1e-6)?;
        agrees(&tanh(&x.t()?)?, &x.t()?.tanh()?, 1e-6)?;
        gradients_agree(&[(random(&[2, 37], 1)? * 2.0)?], |v| tanh(&v[0]))
    }
}
