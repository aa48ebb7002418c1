//! A whole residual layer without history: a frozen teacher's pass in as few passes over memory as the parts allow.

use candle_core::{Result, Tensor};

use super::activation::activate_into;
use super::attention::Shape;
use super::layer_norm::{layer_norm, pair};
use super::linear::Map;
use super::memory::{Buffer, address, device, name};
use super::rotary::turn;
use crate::ops::{Activation, Rotary};

/// The weights of one layer; see `pythia::Layer`.
pub struct LayerWeights<'a> {
    /// Scale and shift of the norms in front of the attention and of the MLP, each (D).
    pub norms: [(&'a Tensor, &'a Tensor); 2],
    /// Weights (O, I) and biases (O) of the packed projection, the attention's output, and the MLP's two maps.
    pub maps: [(&'a Tensor, Option<&'a Tensor>); 4],
}

/// What the layers of a model share.
pub struct LayerSetting<'a> {
    pub rotary: &'a Rotary,
    pub heads: usize,
    pub eps: f64,
    pub activation: Activation,
    /// `x + attn(ln₁(x)) + mlp(ln₂(x))` rather than `h = x + attn(ln₁(x))`, `h + mlp(ln₂(h))`.
    pub parallel: bool,
}

/// Attention over what a cache has seen: from the packed projection (B, T, H·3·C) to (B, T, H·C).
pub type Attend<'a> = &'a mut dyn FnMut(&Tensor) -> Result<Tensor>;

/// The layer's output for `x` (B, T, D), whole sequences unless `cached` attends; `None` where a kernel does not fit, or
/// where a gradient is wanted.
pub fn layer(
    x: &Tensor,
    weights: &LayerWeights<'_>,
    setting: &LayerSetting<'_>,
    cached: Option<Attend<'_>>,
) -> Result<Option<Tensor>> {
    let mut operands = vec![x];
    operands.extend(weights.norms.iter().flat_map(|(scale, shift)| [*scale, *shift]));
    operands.extend(weights.maps.iter().flat_map(|(weight, bias)| std::iter::once(*weight).chain(*bias)));
    let (Some(device), Some(kind)) = (device(&operands), name(x.dtype())) else { return Ok(None) };
    if operands.iter().any(|t| t.track_op() || t.dtype() != x.dtype())
        || !setting.rotary.tables()[0].device().is_cuda()
    {
        return Ok(None);
    }
    let (batch, tokens, _) = x.dims3()?;
    let packed_width = weights.maps[0].0.dim(0)?;
    let Some(shape) = Shape::of(&device, (batch, tokens, packed_width), setting.heads, kind) else {
        return Ok(None);
    };
    let norm = |i: usize, x: &Tensor| {
        let (scale, shift) = weights.norms[i];
        let y = layer_norm(x, scale, shift, setting.eps, x.dtype())?;
        y.ok_or_else(|| candle_core::Error::msg("layer: no kernel for this layer norm"))
    };
    // The i-th map of `input`, on top of `added` where there is one.
    let map = |i: usize, input: &Tensor, added: Option<&Tensor>| {
        let (weight, bias) = weights.maps[i];
        let (outputs, inputs) = weight.dims2()?;
        let y = Buffer::new(&device, (batch, tokens, outputs), x.dtype())?.tensor();
        let map = Map { outputs, inputs, rows: batch * tokens };
        map.write(&device, input, weight, bias, added.map(address).transpose()?, address(&y)?)?;
        candle_core::Result::Ok(y)
    };

    let (first, second) = if setting.parallel {
        let [first, second] = pair(x, weights.norms, setting.eps)?;
        (first, Some(second))
    } else {
        (norm(0, x)?, None)
    };
    let qkv = map(0, &first, None)?;
    let attended = match cached {
        Some(attend) => attend(&qkv)?.contiguous()?,
        None => {
            turn(&qkv, setting.rotary, setting.heads, 1.0)?;
            shape.forward(&qkv)?.0.tensor()
        }
    };
    drop((first, qkv));
    let y = map(1, &attended, Some(x))?;
    let hidden = map(2, &second.map_or_else(|| norm(1, &y), Ok)?, None)?;
    activate_into(&hidden, &hidden, setting.activation)?;
    map(3, &hidden, Some(&y)).map(Some)
}
