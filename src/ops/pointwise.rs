//! Elementary functions of tensors in f32 that candle evaluates one element at a time.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::activation::{map, map_with};
use super::kernel::{self, elements, with_elements};
use super::math;

/// Hyperbolic tangent of every element; any shape, differentiable.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    if kernel::applies(&[x]) { x.apply_op1(Function::Tanh) } else { x.tanh() }
}

/// e to the power of every element; any shape, differentiable.
pub fn exp(x: &Tensor) -> Result<Tensor> {
    if kernel::applies(&[x]) { x.apply_op1(Function::Exp) } else { x.exp() }
}

/// `1 / (1 + e^−x)` of every element; any shape, differentiable.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    if kernel::applies(&[x]) { x.apply_op1(Function::Sigmoid) } else { (x.neg()?.exp()? + 1.0)?.recip() }
}

/// Functions whose slope their result tells.
enum Function {
    Tanh,
    Exp,
    Sigmoid,
}

impl CustomOp1 for Function {
    fn name(&self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Exp => "exp",
            Self::Sigmoid => "sigmoid",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(x, layout)?;
        let y = match self {
            Self::Tanh => map(x, math::tanh),
            Self::Exp => map(x, math::exp_everywhere),
            Self::Sigmoid => map(x, |x| 1.0 / (1.0 + math::exp(-x))),
        };
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let dx = with_elements([y, &grad], |[y, grad]| {
            Ok(match self {
                Self::Tanh => map_with(y, grad, |y| 1.0 - y * y),
                Self::Exp => map_with(y, grad, |y| y),
                Self::Sigmoid => map_with(y, grad, |y| y * (1.0 - y)),
            })
        })?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn functions_are_candles_and_differentiable() -> Result<()> {
        let x = (random(&[3, 7, 1001], 1)? * 8.0)?;
        let exact = |x: &Tensor| x.to_dtype(candle_core::DType::F64);
        for function in [tanh, exp, sigmoid] {
            agrees(&function(&x)?, &function(&exact(&x)?)?, 1e-6)?;
            agrees(&function(&x.t()?)?, &function(&exact(&x)?.t()?)?, 1e-6)?;
            gradients_agree(&[(random(&[2, 37], 1)? * 2.0)?], |v| function(&v[0]))?;
        }
        Ok(())
    }

    #[test]
    fn ends_of_the_range_are_those_of_the_standard_library() -> Result<()> {
        let x = [-1e4f32, -100.0, -20.0, 88.5, 89.0, 1e4, f32::INFINITY, f32::NEG_INFINITY];
        let of = |function: fn(&Tensor) -> Result<Tensor>| {
            function(&Tensor::new(&x, &candle_core::Device::Cpu)?)?.to_vec1::<f32>()
        };
        let near = |found: f32, expected: f32| found == expected || (found / expected - 1.0).abs() < 1e-6;
        for ((x, power), tangent) in x.iter().zip(of(exp)?).zip(of(tanh)?) {
            // Below the smallest normal number bits are lost anyway.
            assert!(
                near(power, x.exp()) || x.exp() < f32::MIN_POSITIVE && power < f32::MIN_POSITIVE,
                "e^{x}: {power}"
            );
            assert!(near(tangent, x.tanh()), "tanh {x}: {tangent}");
        }
        let ends = of(sigmoid)?;
        assert!(ends[0] < 1e-37 && ends[7] < 1e-37 && ends[5..7] == [1.0, 1.0], "{ends:?}");
        let nan = Tensor::new(&[f32::NAN], &candle_core::Device::Cpu)?;
        for function in [tanh, exp, sigmoid] {
            assert!(function(&nan)?.to_vec1::<f32>()?[0].is_nan());
        }
        Ok(())
    }
}
