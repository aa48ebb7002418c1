//! Causal self-attention over GPT-NeoX's packed query, key and value projection.

use candle_core::{D, Result, Tensor};

use super::Rotary;

/// Rotary causal attention of one whole sequence:
/// `softmax(rot(q)·rot(k)ᵀ/√C + causal mask)·v`, heads concatenated.
///
/// # Shapes
/// `qkv` (B, T, H·3·C) with each head's q, k and v side by side as GPT-NeoX packs them; result (B, T, H·C).
pub fn causal(qkv: &Tensor, rotary: &Rotary, heads: usize) -> Result<Tensor> {
    composed(qkv, rotary, heads)
}

fn composed(qkv: &Tensor, rotary: &Rotary, heads: usize) -> Result<Tensor> {
    let (q, k, v) = split(qkv, rotary, heads, 0)?;
    attend(&q, &k, &v)
}

/// Takes the packed projection apart and turns queries and keys to positions `start..start + T`.
///
/// # Shapes
/// `qkv` (B, T, H·3·C); results q, k, v (B, H, T, C).
pub fn split(qkv: &Tensor, rotary: &Rotary, heads: usize, start: usize) -> Result<(Tensor, Tensor, Tensor)> {
    let (batch, tokens, width) = qkv.dims3()?;
    let channels = width / (3 * heads);
    let packed = qkv.reshape((batch, tokens, heads, 3 * channels))?.transpose(1, 2)?;
    let part = |i: usize| packed.narrow(D::Minus1, i * channels, channels);
    Ok((
        rotary.apply(&part(0)?, start)?.contiguous()?,
        rotary.apply(&part(1)?, start)?.contiguous()?,
        part(2)?.contiguous()?,
    ))
}

/// Causal attention of the last T of S positions over all S.
///
/// # Shapes
/// `q` (B, H, T, C); `k`, `v` (B, H, S, C) with S ≥ T; result (B, T, H·C).
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (batch, heads, tokens, channels) = q.dims4()?;
    let seen = k.dims4()?.2;
    let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / (channels as f64).sqrt())?;
    let hidden: Vec<f32> = (0..tokens)
        .flat_map(|i| (0..seen).map(move |j| if j + tokens > i + seen { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    let mask = Tensor::from_vec(hidden, (tokens, seen), q.device())?.to_dtype(q.dtype())?;
    let weights = softmax(&scores.broadcast_add(&mask)?)?;
    weights.matmul(v)?.transpose(1, 2)?.reshape((batch, tokens, heads * channels))
}

/// Softmax over the last dimension from differentiable primitives.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    let exp = shifted.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}
