//! From a narrow format to f32.

use candle_core::{DType, Result, Tensor};

/// `x` in f32.
///
/// # Shapes
/// any; result the same.
pub fn widen(x: &Tensor) -> Result<Tensor> {
    // candle's own cast moves one element a thread, at a fifth of a card's memory rate.
    #[cfg(feature = "cuda")]
    if let Some(wide) = super::cuda::widen(x)? {
        return Ok(wide);
    }
    x.to_dtype(DType::F32)
}
