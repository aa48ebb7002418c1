//! A whole layer with frozen weights: a teacher's pass in as few passes over memory as the parts allow, and the slope of its
//! input where one is wanted.

use candle_core::{CudaDevice, Result, Tensor, bail};

use super::activation::{activate_into, slope_into};
use super::attention::Shape;
use super::graph::record1;
use super::layer_norm::{layer_norm, pair, pair_backward};
use super::linear::Map;
use super::memory::{Buffer, address, device, name};
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
    let mut operands = vec![x];
    operands.extend(weights.norms.iter().flat_map(|(scale, shift)| [scale, shift]));
    operands.extend(weights.maps.iter().flat_map(|(weight, bias)| std::iter::once(weight).chain(bias)));
    let (Some(device), Some(kind)) = (device(&operands), name(x.dtype())) else { return Ok(None) };
    let frozen = operands[1..].iter().all(|t| !t.track_op());
    let same = operands.iter().all(|t| t.dtype() == x.dtype());
    if !frozen || !same || !setting.rotary.tables()[0].device().is_cuda() {
        return Ok(None);
    }
    if x.track_op() && (cached.is_some() || !setting.parallel) {
        return Ok(None);
    }
    let (batch, tokens, _) = x.dims3()?;
    let packed_width = weights.maps[0].0.dim(0)?;
    let Some(shape) = Shape::of(&device, (batch, tokens, packed_width), setting.heads, kind) else {
        return Ok(None);
    };
    let frozen = Frozen { weights, setting, shape, rows: batch * tokens };
    if !x.track_op() {
        return frozen.alone(&device, x, cached).map(Some);
    }
    let (y, kept) = frozen.remembering(&device, x)?;
    record1([x], "layer", y, move |[x], _, grad| Ok([Some(frozen.backward(x, grad, &kept)?)])).map(Some)
}

/// One evaluation.
struct Frozen {
    weights: LayerWeights,
    setting: LayerSetting,
    shape: Shape,
    rows: usize,
}

/// What the backward needs of the forward.
struct Kept {
    /// The packed projection, queries and keys turned.
    turned: Tensor,
    /// The attention's result in front of its output projection, and its rows' norms.
    mixed: Tensor,
    norm: Tensor,
    /// The MLP's hidden values in front of the activation.
    hidden: Tensor,
}

impl Frozen {
    fn buffer(&self, device: &CudaDevice, width: usize, like: &Tensor) -> Result<Buffer> {
        let (batch, tokens) = self.shape.sequences();
        Buffer::new(device, (batch, tokens, width), like.dtype())
    }

    fn size(&self, i: usize) -> Result<Map> {
        let (outputs, inputs) = self.weights.maps[i].0.dims2()?;
        Ok(Map { outputs, inputs, rows: self.rows })
    }

    fn norm(&self, i: usize, x: &Tensor) -> Result<Tensor> {
        let (scale, shift) = &self.weights.norms[i];
        match layer_norm(x, scale, shift, self.setting.eps, x.dtype())? {
            Some(y) => Ok(y),
            None => bail!("layer: no kernel for this layer norm"),
        }
    }

    /// The i-th map of `input`, on top of `added` where there is one.
    fn map(&self, device: &CudaDevice, i: usize, input: &Tensor, added: Option<&Tensor>) -> Result<Buffer> {
        let ((weight, bias), size) = (&self.weights.maps[i], self.size(i)?);
        let y = self.buffer(device, size.outputs, input)?;
        size.write(device, input, weight, bias.as_ref(), added.map(address).transpose()?, y.address()?)?;
        Ok(y)
    }

    /// From the slope of the i-th map's result to that of its input.
    fn slope(&self, device: &CudaDevice, i: usize, grad: &Tensor) -> Result<Tensor> {
        self.size(i)?.input_gradient(device, &self.weights.maps[i].0, grad)
    }

    /// The output, and nothing kept on the way.
    fn alone(&self, device: &CudaDevice, x: &Tensor, cached: Option<Attend<'_>>) -> Result<Tensor> {
        let setting = &self.setting;
        let (first, second) = if setting.parallel {
            let [first, second] = pair(x, &self.weights.norms, setting.eps)?;
            (first, Some(second))
        } else {
            (self.norm(0, x)?, None)
        };
        let qkv = self.map(device, 0, &first, None)?.tensor();
        let attended = match cached {
            Some(attend) => attend(&qkv)?.contiguous()?,
            None => {
                turn(&qkv, &setting.rotary, setting.heads, 1.0)?;
                self.shape.forward(&qkv)?.0.tensor()
            }
        };
        drop((first, qkv));
        let y = self.map(device, 1, &attended, Some(x))?.tensor();
        let hidden = self.map(device, 2, &second.map_or_else(|| self.norm(1, &y), Ok)?, None)?.tensor();
        activate_into(&hidden, address(&hidden)?, setting.activation)?;
        Ok(self.map(device, 3, &hidden, Some(&y))?.tensor())
    }

    /// The output of a parallel layer, and what its backward needs.
    fn remembering(&self, device: &CudaDevice, x: &Tensor) -> Result<(Buffer, Kept)> {
        let setting = &self.setting;
        let [first, second] = pair(x, &self.weights.norms, setting.eps)?;
        let turned = self.map(device, 0, &first, None)?.tensor();
        turn(&turned, &setting.rotary, setting.heads, 1.0)?;
        let (mixed, norm) = self.shape.forward(&turned)?;
        let mixed = mixed.tensor();
        let after = self.map(device, 1, &mixed, Some(x))?.tensor();
        let hidden = self.map(device, 2, &second, None)?.tensor();
        let active = self.buffer(device, self.size(2)?.outputs, x)?;
        activate_into(&hidden, active.address()?, setting.activation)?;
        let y = self.map(device, 3, &active.tensor(), Some(&after))?;
        Ok((y, Kept { turned, mixed, norm, hidden }))
    }

    /// From the slope of the output to that of x.
    fn backward(&self, x: &Tensor, grad: &Tensor, kept: &Kept) -> Result<Tensor> {
        let (device, setting) = (x.device().as_cuda_device()?, &self.setting);
        let d_hidden = self.slope(device, 3, grad)?;
        slope_into(&kept.hidden, &d_hidden, &d_hidden, setting.activation)?;
        let d_second = self.slope(device, 2, &d_hidden)?;
        let d_mixed = self.slope(device, 1, grad)?;
        let d_packed = self.shape.backward(&kept.turned, &kept.mixed, &d_mixed, &kept.norm)?;
        turn(&d_packed, &setting.rotary, setting.heads, -1.0)?;
        let d_first = self.slope(device, 0, &d_packed)?;
        let [(first, _), (second, _)] = &self.weights.norms;
        pair_backward(x, [first, second], [&d_first, &d_second], grad, setting.eps)
    }
}
