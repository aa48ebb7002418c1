//! The straight path of flow matching.

use candle_core::{Result, Tensor};

use super::scale;

/// `x_t = (1−t)·x0 + t·x1` and the displacement `x1 − x0` (arXiv 2505.14513, eq. 3), one time for each example.
///
/// # Shapes
/// `x0`, `x1` and both results (B, T, D); `t` (B).
pub fn straight_path(x0: &Tensor, x1: &Tensor, t: &Tensor) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "cuda")]
    if let Some(path) = super::cuda::straight_path(x0, x1, t)? {
        return Ok(path);
    }
    let displacement = (x1 - x0)?;
    let x_t = (x0 + scale(&displacement, &t.to_dtype(x0.dtype())?)?)?;
    Ok((x_t, displacement))
}
