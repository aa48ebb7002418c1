//! Layer normalisation, plain and with the adaptive modulation of DiT.

use candle_core::{D, Result, Tensor};

/// `y = (x − mean) / √(var + eps) ⊙ scale + shift` over the last dimension.
///
/// A plain layer norm passes its weight and bias of shape (D). Adaptive modulation (adaLN, DiT)
/// passes one row per example: `scale = w⊙(1+γ)`, `shift = b⊙(1+γ) + β`, both (B, D).
///
/// # Shapes
/// `x` (B, T, D); `scale` and `shift` (D) or (B, D); result (B, T, D).
pub fn layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f64) -> Result<Tensor> {
    composed(x, scale, shift, eps)
}

fn composed(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = x.to_dtype(accumulation(dtype))?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + eps)?.sqrt()?)?.to_dtype(dtype)?;
    normal.broadcast_mul(&per_row(scale)?)?.broadcast_add(&per_row(shift)?)
}

/// (B, D) becomes (B, 1, D) so that it broadcasts over the tokens; (D) stays.
fn per_row(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 2 { x.unsqueeze(1) } else { Ok(x.clone()) }
}

fn accumulation(dtype: candle_core::DType) -> candle_core::DType {
    use candle_core::DType::{BF16, F16, F32};
    if matches!(dtype, BF16 | F16) { F32 } else { dtype }
}
