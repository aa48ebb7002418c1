//! A whole layer whose weights are trained: forward, and a backward that makes each gradient once, in f32.
//!
//! On candle's graph every weight would be rounded by an operation of its own, whose gradient is cleared, added to and
//! widened again, and so would every slope between the layer's parts.

use candle_core::{DType, Result, Tensor};

use super::layer::{Evaluated, Kept, LayerSetting, LayerWeights};
use super::layer_norm::pair;
use super::memory::{Buffer, address};
use super::mlp::Gradients;
use super::reduce::column_sums;
use crate::ops::Activation;

/// A layer that was evaluated, and what its backward needs.
pub struct Trained {
    layer: Evaluated,
    x: Tensor,
    kept: Kept,
}

/// The output of a parallel layer with exact GELU for `x` (B, T, D), and its way back; `None` where a kernel does not fit.
/// Nothing is recorded on candle's graph.
pub fn trained(
    x: &Tensor,
    weights: LayerWeights,
    setting: LayerSetting,
) -> Result<Option<(Tensor, Trained)>> {
    let inner = weights.maps[2].0.dim(0)?;
    if !setting.parallel || setting.activation != Activation::Gelu || !inner.is_multiple_of(4) {
        return Ok(None);
    }
    let Some(layer) = Evaluated::of(x, weights, setting)? else { return Ok(None) };
    let (y, kept) = layer.remembering(x)?;
    Ok(Some((y.tensor(), Trained { layer, x: x.clone(), kept })))
}

impl Trained {
    /// From the slope of the output to that of x, in its dtype, and the gradients of the weights in f32, in the order of
    /// [`LayerWeights::tensors`].
    pub fn backward(self, grad: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let Self { layer, x, kept } = self;
        let [first, second] = pair(&x, &layer.weights.norms, layer.setting.eps)?;
        let width = x.dim(2)?;
        let weight = |i: usize| -> Result<Tensor> {
            let size = layer.size(i)?;
            Ok(Buffer::new(&layer.device, (size.outputs, size.inputs), DType::F32)?.tensor())
        };
        let dw = [weight(0)?, weight(1)?, weight(2)?, weight(3)?];
        let product = |i: usize, input: &Tensor, grad: &Tensor| {
            layer.size(i)?.write_weight_gradient(
                &layer.device,
                input,
                grad,
                DType::F32,
                (address(&dw[i])?, false),
            )
        };

        let d_up_bias = Buffer::new(&layer.device, layer.size(2)?.outputs, DType::F32)?;
        let gradients = Gradients {
            input: &second,
            up: (address(&dw[2])?, false),
            up_bias: Some((d_up_bias.address()?, false)),
            down: (address(&dw[3])?, false),
        };
        let d_second = layer.mlp().backward(&layer.device, &kept.hidden, grad, Some(&gradients))?;
        // Both branches end in the sum, so their last biases have one gradient.
        let d_last_bias = column_sums(grad, width, DType::F32)?;

        product(1, &kept.mixed, grad)?;
        let d_packed = layer.attention_backward(grad, &kept)?;
        product(0, &first, &d_packed)?;
        let d_packed_bias = column_sums(&d_packed, 3 * width, DType::F32)?;
        let d_first = layer.slope(0, &d_packed)?;

        let (dx, norms) = layer.norms(&x, [&d_first, &d_second]).input_and_weights(grad)?;
        let mut all: Vec<Tensor> = (0..4).map(|i| norms.get(i)).collect::<Result<_>>()?;
        let biases = [d_packed_bias, d_last_bias.clone(), d_up_bias.tensor(), d_last_bias];
        for ((dw, db), (_, bias)) in dw.into_iter().zip(biases).zip(&layer.weights.maps) {
            all.push(dw);
            all.extend(bias.is_some().then_some(db));
        }
        Ok((dx, all))
    }
}
