//! A whole layer with frozen weights: a teacher's pass in as few passes over memory as the parts allow, and the slope of its
//! input where one is wanted.

use candle_core::{CudaDevice, Result, Tensor, bail};

use super::attention::Shape;
use super::graph::record1;
use super::layer_norm::{PairBackward, layer_norm, pair};
use super::linear::Map;
use super::memory::{Buffer, address, device, name};
use super::mlp::Mlp;
use super::rotary::turn;
use crate::ops::{Activation, Rotary};

/// The weights of one layer; see `pythia::Layer`.
pub struct LayerWeights {
    /// Scale and shift of the norms in front of the attention and of the MLP, each (D).
    pub norms: [(Tensor, Tensor); 2],
    /// Weights (O, I) and biases (O) of the packed projection, the attention's output, and the MLP's two maps.
    pub maps: [(Tensor, Option<Tensor>); 4],
}

/// What the layers of a model share.
pub struct LayerSetting {
    pub rotary: Rotary,
    pub heads: usize,
    pub eps: f64,
    pub activation: Activation,
    /// `x + attn(ln₁(x)) + mlp(ln₂(x))` rather than `h = x + attn(ln₁(x))`, `h + mlp(ln₂(h))`.
    pub parallel: bool,
}

/// Attention over what a cache has seen: from the packed projection (B, T, H·3·C) to (B, T, H·C).
pub type Attend<'a> = &'a mut dyn FnMut(&Tensor) -> Result<Tensor>;

/// The layer's output for `x` (B, T, D), whole sequences unless `cached` attends; `None` where a kernel does not fit, or a
/// gradient is wanted of the weights, or with a cache or a sequential residual of x.
pub fn layer(
    x: &Tensor,
    weights: LayerWeights,
    setting: LayerSetting,
    cached: Option<Attend<'_>>,
) -> Result<Option<Tensor>> {
    let cut = x.track_op() && (cached.is_some() || !setting.parallel);
    if cut || weights.tensors().iter().any(|t| t.track_op()) {
        return Ok(None);
    }
    let Some(layer) = Evaluated::of(x, weights, setting)? else { return Ok(None) };
    if !x.track_op() {
        return layer.alone(x, cached).map(Some);
    }
    let (y, kept) = layer.remembering(x)?;
    record1([x], "layer", y, move |[x], _, grad| Ok([Some(layer.backward(x, grad, &kept)?)])).map(Some)
}

impl LayerWeights {
    /// All of them: the norms' first, then weight and bias of one map after the other.
    pub fn tensors(&self) -> Vec<&Tensor> {
        let norms = self.norms.iter().flat_map(|(scale, shift)| [scale, shift]);
        let maps = self.maps.iter().flat_map(|(weight, bias)| std::iter::once(weight).chain(bias));
        norms.chain(maps).collect()
    }
}

/// A layer about to be evaluated.
pub(super) struct Evaluated {
    pub weights: LayerWeights,
    pub setting: LayerSetting,
    pub shape: Shape,
    pub device: CudaDevice,
    rows: usize,
}

/// What the backward needs of the forward.
pub(super) struct Kept {
    /// The packed projection, queries and keys turned.
    pub turned: Tensor,
    /// The attention's result in front of its output projection, and its rows' norms.
    pub mixed: Tensor,
    pub norm: Tensor,
    /// The MLP's hidden values in front of the activation.
    pub hidden: Tensor,
}

impl Evaluated {
    /// For an input (B, T, D); `None` where a kernel does not fit.
    pub fn of(x: &Tensor, weights: LayerWeights, setting: LayerSetting) -> Result<Option<Self>> {
        let mut operands = weights.tensors();
        operands.push(x);
        let (Some(device), Some(kind)) = (device(&operands), name(x.dtype())) else { return Ok(None) };
        let same = operands.iter().all(|t| t.dtype() == x.dtype());
        if !same || !setting.rotary.tables()[0].device().is_cuda() {
            return Ok(None);
        }
        let (batch, tokens, _) = x.dims3()?;
        let packed = (batch, tokens, weights.maps[0].0.dim(0)?);
        let shape = Shape::of(&device, packed, setting.heads, kind);
        Ok(shape.map(|shape| Self { weights, setting, shape, device, rows: batch * tokens }))
    }

    pub fn size(&self, i: usize) -> Result<Map> {
        let (outputs, inputs) = self.weights.maps[i].0.dims2()?;
        Ok(Map { outputs, inputs, rows: self.rows })
    }

    pub fn mlp(&self) -> Mlp {
        let [_, _, up, down] = self.weights.maps.clone();
        Mlp { up, down, activation: self.setting.activation }
    }

    fn norm(&self, i: usize, x: &Tensor) -> Result<Tensor> {
        let (scale, shift) = &self.weights.norms[i];
        match layer_norm(x, scale, shift, self.setting.eps, x.dtype())? {
            Some(y) => Ok(y),
            None => bail!("layer: no kernel for this layer norm"),
        }
    }

    /// The i-th map of `input`, on top of `added` where there is one.
    fn map(&self, i: usize, input: &Tensor, added: Option<&Tensor>) -> Result<Tensor> {
        let ((weight, bias), size) = (&self.weights.maps[i], self.size(i)?);
        let y = self.buffer(size.outputs, input)?;
        let added = added.map(address).transpose()?;
        size.write(&self.device, input, weight, bias.as_ref(), added, address(&y)?)?;
        Ok(y)
    }

    fn buffer(&self, width: usize, like: &Tensor) -> Result<Tensor> {
        let (batch, tokens) = self.shape.sequences();
        Ok(Buffer::new(&self.device, (batch, tokens, width), like.dtype())?.tensor())
    }

    /// From the slope of the i-th map's result to that of its input.
    pub fn slope(&self, i: usize, grad: &Tensor) -> Result<Tensor> {
        self.size(i)?.input_gradient(&self.device, &self.weights.maps[i].0, grad)
    }

    /// The output, and nothing kept on the way.
    fn alone(&self, x: &Tensor, cached: Option<Attend<'_>>) -> Result<Tensor> {
        let setting = &self.setting;
        let (first, second) = if setting.parallel {
            let [first, second] = pair(x, &self.weights.norms, setting.eps)?;
            (first, Some(second))
        } else {
            (self.norm(0, x)?, None)
        };
        let qkv = self.map(0, &first, None)?;
        let attended = match cached {
            Some(attend) => attend(&qkv)?.contiguous()?,
            None => {
                turn(&qkv, &setting.rotary, setting.heads, 1.0)?;
                self.shape.forward(&qkv)?.0.tensor()
            }
        };
        drop((first, qkv));
        let y = self.map(1, &attended, Some(x))?;
        let second = second.map_or_else(|| self.norm(1, &y), Ok)?;
        Ok(self.mlp().forward(&self.device, &second, None, Some(&y))?.tensor())
    }

    /// The output of a parallel layer, and what its backward needs.
    pub fn remembering(&self, x: &Tensor) -> Result<(Buffer, Kept)> {
        let setting = &self.setting;
        let [first, second] = pair(x, &self.weights.norms, setting.eps)?;
        let turned = self.map(0, &first, None)?;
        turn(&turned, &setting.rotary, setting.heads, 1.0)?;
        let (mixed, norm) = self.shape.forward(&turned)?;
        let mixed = mixed.tensor();
        let after = self.map(1, &mixed, Some(x))?;
        let hidden = self.buffer(self.size(2)?.outputs, x)?;
        let y = self.mlp().forward(&self.device, &second, Some(&hidden), Some(&after))?;
        Ok((y, Kept { turned, mixed, norm, hidden }))
    }

    /// From the slope of the output to that of x.
    fn backward(&self, x: &Tensor, grad: &Tensor, kept: &Kept) -> Result<Tensor> {
        let d_second = self.mlp().backward(&self.device, &kept.hidden, grad, None)?;
        let d_packed = self.attention_backward(grad, kept)?;
        let d_first = self.slope(0, &d_packed)?;
        self.norms(x, [&d_first, &d_second]).input(grad)
    }

    /// What the slopes of the norms' results make of them.
    pub fn norms<'a>(&'a self, x: &'a Tensor, slopes: [&'a Tensor; 2]) -> PairBackward<'a> {
        let [(first, _), (second, _)] = &self.weights.norms;
        PairBackward { x, scales: [first, second], slopes, eps: self.setting.eps }
    }

    /// From the slope of the output to that of the packed projection.
    pub fn attention_backward(&self, grad: &Tensor, kept: &Kept) -> Result<Tensor> {
        let d_mixed = self.slope(1, grad)?;
        let d_packed = self.shape.backward(&kept.turned, &kept.mixed, &d_mixed, &kept.norm)?;
        turn(&d_packed, &self.setting.rotary, self.setting.heads, -1.0)?;
        Ok(d_packed)
    }
}
