//! Causal self-attention over GPT-NeoX's packed query, key and value projection.

use candle_core::{D, DType, Result, Tensor, bail};

use super::attention_kernel::Fused;
use super::{Rotary, attention_cached, kernel};

/// Rotary causal attention of one whole sequence:
/// `softmax(rot(q)·rot(k)ᵀ/√C + causal mask)·v`, heads concatenated.
///
/// # Shapes
/// `qkv` (B, T, H·3·C) with each head's q, k and v side by side as GPT-NeoX packs them; result (B, T, H·C).
///
/// # Errors
/// If the width is not a multiple of 3·H, or T is longer than the rotary tables.
pub fn causal(qkv: &Tensor, rotary: &Rotary, heads: usize) -> Result<Tensor> {
    let channels = head_channels(qkv, heads)?;
    let tokens = qkv.dims3()?.1;
    if tokens > rotary.positions() {
        bail!("attention over {tokens} tokens, but the model knows only {} positions", rotary.positions());
    }
    if kernel::applies(&[qkv]) && rotary.tables()[0].device().is_cpu() {
        return qkv.apply_op1(Fused::new(qkv, rotary, heads, channels)?);
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::causal(qkv, rotary, heads)? {
        return Ok(y);
    }
    composed(qkv, rotary, heads)
}

pub(super) fn composed(qkv: &Tensor, rotary: &Rotary, heads: usize) -> Result<Tensor> {
    let (q, k, v) = split(qkv, rotary, heads, 0)?;
    attend(&q, &k, &v)
}

fn head_channels(qkv: &Tensor, heads: usize) -> Result<usize> {
    let (_, _, width) = qkv.dims3()?;
    if heads == 0 || width % (3 * heads) != 0 {
        bail!("attention: the packed projection has width {width}, not a multiple of 3 × {heads} heads");
    }
    Ok(width / (3 * heads))
}

/// Takes the packed projection apart and turns queries and keys to positions `start..start + T`.
///
/// # Shapes
/// `qkv` (B, T, H·3·C); results q, k, v (B, H, T, C).
pub fn split(qkv: &Tensor, rotary: &Rotary, heads: usize, start: usize) -> Result<(Tensor, Tensor, Tensor)> {
    let channels = head_channels(qkv, heads)?;
    #[cfg(feature = "cuda")]
    if let Some(parts) = super::cuda::split(qkv, rotary, heads, start)? {
        return Ok(parts);
    }
    if let Some([q, k, v]) = attention_cached::split(qkv, rotary, (heads, channels), start)? {
        return Ok((q, k, v));
    }
    let (batch, tokens, _) = qkv.dims3()?;
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
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::attend_one(q, k, v)? {
        return Ok(y);
    }
    if let Some(y) = attention_cached::attend_one(q, k, v)? {
        return Ok(y);
    }
    let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / (channels as f64).sqrt())?;
    let scores = if tokens == 1 { scores } else { scores.broadcast_add(&mask(tokens, seen, q)?)? };
    let weights = softmax(&scores)?;
    weights.matmul(v)?.transpose(1, 2)?.reshape((batch, tokens, heads * channels))
}

/// 0 where the i-th of the last `tokens` positions may look, −∞ where that position lies in its future.
fn mask(tokens: usize, seen: usize, like: &Tensor) -> Result<Tensor> {
    let future = |i: usize, j: usize| if j + tokens > i + seen { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..tokens).flat_map(|i| (0..seen).map(move |j| future(i, j))).collect();
    Tensor::from_vec(mask, (tokens, seen), like.device())?.to_dtype(like.dtype())
}

/// Softmax over the last dimension from differentiable primitives, in f32 for half precision.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = if matches!(dtype, DType::F16 | DType::BF16) { x.to_dtype(DType::F32)? } else { x.clone() };
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?.to_dtype(dtype)
}
