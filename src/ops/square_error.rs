//! The squared error that flows are trained on.

use candle_core::{Result, Tensor};

/// Mean of (a − b)² over all elements.
///
/// # Shapes
/// `a` and `b` the same; result a scalar.
pub fn mean_square(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(mean) = super::cuda::mean_square(a, b)? {
        return Ok(mean);
    }
    (a - b)?.sqr()?.mean_all()
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
}
