//! The velocity field: one Pythia layer with time conditioning (paper, section 3; DiT's adaLN-Zero).

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::kv_cache::KvCache;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Block;
use super::field::Field;
use super::init::{Init, normal};
use super::time::{FREQUENCIES, Modulation, TimeConditioning, instant};
use crate::ode;
use crate::ops;
use crate::pythia::{Config, Layer, LayerContext, Pythia};

/// `u(x, t) = α₁⊙Attn(mod₁(x)) + α₂⊙MLP(mod₂(x))` with `mod_i(x) = LN_i(x)⊙(1+γ_i) + β_i`: a layer's
/// output minus its input, conditioned on time. With a sequential teacher the MLP reads
/// `x + α₁⊙Attn(mod₁(x))` instead of `x`.
///
/// Weights are f32 variables; [`parameters`](Self::parameters) names them as they are saved.
pub struct VelocityField {
    block: Block,
    layer: Layer,
    context: LayerContext,
    time: TimeConditioning,
    parameters: Vec<(String, Var)>,
}

impl VelocityField {
    /// A field for a block of the teacher.
    ///
    /// With [`Init::Zero`] the layer's weights are drawn from the teacher's initial distribution, or copied
    /// from teacher layer `layer` where one is named; the gates are zero. With [`Init::Teacher`] the weights
    /// are those of `layer` (default: the block's middle layer) and the gates n − m.
    ///
    /// # Errors
    /// If `layer` lies outside the teacher.
    pub fn new(teacher: &Pythia, block: Block, init: Init, layer: Option<usize>, seed: u64) -> Result<Self> {
        let config = &teacher.config;
        let source = match (init, layer) {
            (Init::Zero, None) => None,
            (Init::Teacher, None) => Some((block.m + block.n) / 2),
            (_, Some(layer)) => Some(layer),
        };
        if let Some(layer) = source {
            let layers = config.num_hidden_layers;
            ensure!(
                layer < layers,
                "layer {layer} does not exist: the teacher's layers are 0..{}",
                layers - 1
            );
        }
        let source = source.map(|i| teacher.layer(i).tensors().into_iter().collect::<Vec<_>>());
        let gate = if init == Init::Teacher { block.layers() as f64 } else { 0.0 };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let device = teacher.device().clone();
        Self::assemble(config, block, &device, |name, shape| match &source {
            Some(tensors) if !name.starts_with("time.") && !name.starts_with("adaln.") => {
                let found = tensors.iter().find(|(own, _)| own == name);
                let (_, tensor) = found.with_context(|| format!("the teacher's layer has no {name}"))?;
                Ok(tensor.to_dtype(DType::F32)?.copy()?)
            }
            _ => initial(name, shape, gate, config, &mut rng, &device),
        })
    }

    /// Assembles a field; `tensor(name, shape)` supplies the initial value of each parameter.
    pub(super) fn assemble(
        config: &Config,
        block: Block,
        device: &Device,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        let d = config.hidden_size;
        let mut parameters: Vec<(String, Var)> = Vec::new();
        let mut parameter = |name: &str, shape: &[usize]| {
            let var = Var::from_tensor(&tensor(name, shape)?)?;
            let value = var.as_tensor().clone();
            parameters.push((name.to_string(), var));
            anyhow::Ok(value)
        };
        let layer = Layer::build(config, &mut parameter)?;
        let mut affine = |name: &str, outputs: usize, inputs: usize| {
            let weight = parameter(&format!("{name}.weight"), &[outputs, inputs])?;
            anyhow::Ok((weight, parameter(&format!("{name}.bias"), &[outputs])?))
        };
        let time = TimeConditioning {
            mlp_in: affine("time.mlp_in", d, FREQUENCIES)?,
            mlp_out: affine("time.mlp_out", d, d)?,
            adaln: affine("adaln", 6 * d, d)?,
        };
        let context = LayerContext::new(config, device)?;
        Ok(Self { block, layer, context, time, parameters })
    }

    /// The same field without the record for gradients. It shares its weights with this one, so that training
    /// shows in both; evaluating it keeps nothing of what happens inside.
    pub fn detach(&self) -> Self {
        Self {
            block: self.block,
            layer: self.layer.detach(),
            context: self.context.clone(),
            time: self.time.detach(),
            parameters: self.parameters.clone(),
        }
    }

    /// The block this field stands for.
    pub fn block(&self) -> Block {
        self.block
    }

    /// Residual width D.
    pub fn width(&self) -> usize {
        self.layer.input_layernorm.weight.elem_count()
    }

    /// Every trainable tensor with the name under which it is saved, in a fixed order.
    pub fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    /// Number of trainable values.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|(_, v)| v.elem_count()).sum()
    }

    /// The velocity at one time for all examples.
    ///
    /// # Shapes
    /// `x` (B, T, D), result the same.
    pub fn at(&self, x: &Tensor, t: f64) -> Result<Tensor> {
        self.velocity(x, &instant(t, x.device())?)
    }

    /// The same for the next tokens after those that `cache` has seen at this evaluation; they join it.
    pub(super) fn at_cached(&self, x: &Tensor, t: f64, cache: &mut KvCache) -> Result<Tensor> {
        let modulation = self.time.forward(&instant(t, x.device())?)?;
        self.evaluate(x, &modulation, &modulation.gates, |layer, normal, context| {
            layer.attention_cached(normal, context, cache)
        })
    }

    /// One evaluation, counted as such.
    fn evaluate(
        &self,
        x: &Tensor,
        modulation: &Modulation,
        gates: &Tensor,
        attention: impl FnOnce(&Layer, &Tensor, &LayerContext) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        ode::evaluation(|| self.output(x, modulation, gates, attention))
    }

    fn output(
        &self,
        x: &Tensor,
        modulation: &Modulation,
        gates: &Tensor,
        attention: impl FnOnce(&Layer, &Tensor, &LayerContext) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let (layer, context) = (&self.layer, &self.context);
        let norm = |branch: usize, x: &Tensor| {
            let weights = if branch == 0 { &layer.input_layernorm } else { &layer.post_attention_layernorm };
            let (scale, shift) = modulation.norm(branch, &weights.weight, &weights.bias)?;
            anyhow::Ok(ops::layer_norm(x, &scale, &shift, context.eps)?)
        };
        let attended = attention(layer, &norm(0, x)?, context)?;
        let seen = if context.parallel {
            x.clone()
        } else {
            (x + attended.broadcast_mul(&modulation.gates.narrow(1, 0, 1)?)?)?
        };
        let mlp = layer.mlp(&norm(1, &seen)?, context)?;
        Ok(ops::gated_sum(&attended, &mlp, gates)?)
    }
}

impl Field for VelocityField {
    fn velocity(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        let modulation = self.time.forward(t)?;
        self.evaluate(x, &modulation, &modulation.gates, Layer::attention)
    }

    /// The step length goes into the gates, where it costs nothing.
    fn scaled_velocity(&self, x: &Tensor, t: &Tensor, d: &Tensor) -> Result<Tensor> {
        let modulation = self.time.forward(t)?;
        let gates = modulation.gates.broadcast_mul(&d.reshape(((), 1, 1))?)?;
        self.evaluate(x, &modulation, &gates, Layer::attention)
    }
}

/// Weight matrices are normal with the teacher's initial deviation (the time MLP with DiT's 0.02), norms
/// are one, biases zero; the adaLN projection is zero but for the gates' bias.
fn initial(
    name: &str,
    shape: &[usize],
    gate: f64,
    config: &Config,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Result<Tensor> {
    let zeros = || Tensor::zeros(shape, DType::F32, device);
    Ok(match name {
        "adaln.weight" => zeros()?,
        "adaln.bias" => {
            let d = shape[0] / 6;
            let values = (0..6 * d).map(|i| if i < 4 * d { 0.0 } else { gate as f32 }).collect();
            Tensor::from_vec(values, shape, device)?
        }
        _ if name.ends_with("layernorm.weight") => Tensor::ones(shape, DType::F32, device)?,
        _ if name.ends_with(".bias") => zeros()?,
        _ if name.starts_with("time.") => normal(rng, shape, 0.02, device)?,
        _ => normal(rng, shape, config.initializer_range, device)?,
    })
}
