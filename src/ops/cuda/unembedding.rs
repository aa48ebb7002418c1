//! From the last latents to the loss of the next token and back, some rows at a time.

use candle_core::{DType, Result, Tensor};

use super::divergence::cross_entropy_slopes;
use super::linear::Map;
use super::memory::{Buffer, address, device, name};

/// Logits held at a time, half a GiB in bf16: products of fewer rows are slow where the vocabulary is large.
const LOGITS: usize = 1 << 28;

/// What the unembedding gives.
pub struct Unembedded {
    /// Cross-entropy of each token in nats: (N), f32.
    pub nats: Tensor,
    /// Slopes of the input, times the scale: (N, D) in its dtype.
    pub input: Tensor,
    /// Gradient of the weight, times the scale: (V, D), f32.
    pub weight: Tensor,
}

/// Cross-entropy of `x · Wᵀ` against `targets`, and `scale` times the gradients of its sum; `None` where the operands do not lie
/// on a card or differ in dtype. Nothing is recorded.
///
/// # Shapes
/// `x` (N, D), `weight` (V, D), `targets` (N) u32.
pub fn unembedding(x: &Tensor, weight: &Tensor, targets: &Tensor, scale: f64) -> Result<Option<Unembedded>> {
    let (Some(device), Some(_)) = (device(&[x, weight, targets]), name(x.dtype())) else { return Ok(None) };
    if weight.dtype() != x.dtype() || targets.dtype() != DType::U32 {
        return Ok(None);
    }
    let (rows, width) = x.dims2()?;
    let vocabulary = weight.dim(0)?;
    let d_weight = Buffer::new(&device, weight.shape(), DType::F32)?.tensor();
    let d_input = Buffer::new(&device, x.shape(), x.dtype())?.tensor();
    let most = (LOGITS / vocabulary).max(1);
    let mut nats = Vec::new();
    for first in (0..rows).step_by(most) {
        let count = most.min(rows - first);
        let part = |t: &Tensor| t.narrow(0, first, count);
        let x = part(x)?;
        let map = Map { outputs: vocabulary, inputs: width, rows: count };
        let logits = Buffer::new(&device, (count, vocabulary), x.dtype())?.tensor();
        map.write(&device, &x, weight, None, None, address(&logits)?)?;
        nats.push(cross_entropy_slopes(&logits, &part(targets)?, scale)?);
        map.write_input_gradient(&device, weight, &logits, address(&part(&d_input)?)?)?;
        let to = (address(&d_weight)?, first > 0);
        map.write_weight_gradient(&device, &x, &logits, DType::F32, to)?;
    }
    Ok(Some(Unembedded { nats: Tensor::cat(&nats, 0)?, input: d_input, weight: d_weight }))
}
