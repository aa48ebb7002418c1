//! The velocity field: one Pythia layer with time conditioning (paper, section 3; DiT's adaLN-Zero).

#[cfg(feature = "cuda")]
mod carry;
mod fold;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, TensorId, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Block;
use super::extras::Extras;
#[cfg(feature = "cuda")]
use super::field::Stage;
use super::field::{Field, sum};
use super::init::{Init, initial};
use super::learned_times::LearnedTimes;
use super::lowrank::LowRank;
use super::moments::Moments;
#[cfg(feature = "cuda")]
use super::on_card::OnCard;
use super::on_processor::{self, OnProcessor};
use super::time::{FREQUENCIES, Modulation, TimeConditioning, instant};
use crate::ode;
use crate::ops;
use crate::pythia::cache::LayerCache;
use crate::pythia::{Affine, Config, Layer, LayerContext, Pythia};

/// `u(x, t) = α₁⊙Attn(mod₁(x)) + α₂⊙MLP(mod₂(x))` with `mod_i(x) = LN_i(x)⊙(1+γ_i) + β_i`: a layer's
/// output minus its input, conditioned on time. With a sequential teacher the MLP reads
/// `x + α₁⊙Attn(mod₁(x))` instead of `x`.
///
/// Weights are f32 variables; [`parameters`](Self::parameters) names them as they are saved.
pub struct VelocityField {
    block: Block,
    extras: Extras,
    layer: Layer,
    context: LayerContext,
    /// None when the field is plain.
    time: Option<TimeConditioning>,
    low_rank: Option<LowRank>,
    times: Option<LearnedTimes>,
    parameters: Vec<(String, Var)>,
    config: Config,
    /// What the branches are computed in; the stream, the time conditioning and the weights themselves are f32.
    compute: DType,
    moments: Moments,
    processor: OnProcessor,
    #[cfg(feature = "cuda")]
    card: OnCard,
}

/// What the field makes of a time: one row G for each time.
#[derive(Clone)]
pub(super) struct Conditioned {
    pub(super) modulation: Modulation,
    /// (G, 4·r): strengths of the low-rank updates.
    pub(super) scales: Option<Tensor>,
}

impl VelocityField {
    /// A field for a block of the teacher, as in the paper.
    ///
    /// # Errors
    /// As [`extended`](Self::extended).
    pub fn new(teacher: &Pythia, block: Block, init: Init, layer: Option<usize>, seed: u64) -> Result<Self> {
        Self::extended(teacher, block, init, layer, seed, Extras::default())
    }

    /// A field for a block of the teacher.
    ///
    /// With [`Init::Zero`] the layer's weights are drawn from the teacher's initial distribution, or copied
    /// from teacher layer `layer` where one is named; the gates are zero. With [`Init::Teacher`] the weights
    /// are those of `layer` (default: the block's middle layer) and the gates n − m.
    ///
    /// # Errors
    /// If `layer` lies outside the teacher.
    pub fn extended(
        teacher: &Pythia,
        block: Block,
        init: Init,
        layer: Option<usize>,
        seed: u64,
        extras: Extras,
    ) -> Result<Self> {
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
        Self::assemble(config, block, extras, &device, compute_dtype(teacher), |name, shape| match &source {
            Some(tensors)
                if name.starts_with("attention.")
                    || name.starts_with("mlp.")
                    || name.contains("layernorm") =>
            {
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
        extras: Extras,
        device: &Device,
        compute: DType,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        let mut parameters: Vec<(String, Var)> = Vec::new();
        let parameter = |name: &str, shape: &[usize]| {
            let var = Var::from_tensor(&tensor(name, shape)?)?;
            let value = var.as_tensor().clone();
            parameters.push((name.to_string(), var));
            anyhow::Ok(value)
        };
        let field = Self::over(config, block, extras, LayerContext::new(config, device)?, parameter)?;
        Ok(Self { parameters, compute, ..field })
    }

    /// The same field on other tensors in place of its parameters, in their order; it has no parameters of its own.
    ///
    /// # Errors
    /// Too few tensors.
    pub(super) fn on(&self, tensors: &[Tensor]) -> Result<Self> {
        let mut tensors = tensors.iter();
        let field = Self::over(&self.config, self.block, self.extras, self.context.clone(), |name, _| {
            tensors.next().cloned().with_context(|| format!("there is no tensor for {name}"))
        })?;
        Ok(Self { compute: self.compute, ..field })
    }

    /// The same field with the same parameters, whose branches are computed in another format.
    ///
    /// # Errors
    /// When memory is short.
    pub fn computing_in(&self, dtype: DType) -> Result<Self> {
        let tensors: Vec<Tensor> = self.parameters.iter().map(|(_, v)| v.as_tensor().clone()).collect();
        Ok(Self { parameters: self.parameters.clone(), compute: dtype, ..self.on(&tensors)? })
    }

    /// Puts the parts together; `parameter(name, shape)` supplies each tensor.
    fn over(
        config: &Config,
        block: Block,
        extras: Extras,
        context: LayerContext,
        mut parameter: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        let d = config.hidden_size;
        let layer = Layer::build(config, &mut parameter)?;
        let mut affine = |name: &str, outputs: usize, inputs: usize| {
            let weight = parameter(&format!("{name}.weight"), &[outputs, inputs])?;
            anyhow::Ok((weight, parameter(&format!("{name}.bias"), &[outputs])?))
        };
        let Extras { rank, learn_times, plain } = extras;
        ensure!(
            !plain || rank == 0,
            "a plain field knows no time, which its low-rank updates would depend on"
        );
        let time = match plain {
            true => None,
            false => Some(TimeConditioning {
                mlp_in: affine("time.mlp_in", d, FREQUENCIES)?,
                mlp_out: affine("time.mlp_out", d, d)?,
                adaln: affine("adaln", 6 * d, d)?,
            }),
        };
        let low_rank = (rank > 0).then(|| LowRank::build(config, rank, &mut parameter)).transpose()?;
        let times = (learn_times > 0)
            .then(|| parameter("times.lengths", &[learn_times]).map(LearnedTimes::new))
            .transpose()?;
        let (parameters, config) = (Vec::new(), config.clone());
        Ok(Self {
            block,
            extras,
            layer,
            context,
            time,
            low_rank,
            times,
            parameters,
            config,
            compute: DType::F32,
            moments: Moments::default(),
            processor: OnProcessor::default(),
            #[cfg(feature = "cuda")]
            card: OnCard::default(),
        })
    }

    /// The same field without the record for gradients. It shares its weights with this one, so that training
    /// shows in both; evaluating it keeps nothing of what happens inside.
    pub fn detach(&self) -> Self {
        Self {
            block: self.block,
            config: self.config.clone(),
            extras: self.extras,
            layer: self.layer.detach(),
            context: self.context.clone(),
            time: self.time.as_ref().map(TimeConditioning::detach),
            low_rank: self.low_rank.as_ref().map(LowRank::detach),
            times: self.times.as_ref().map(LearnedTimes::detach),
            parameters: self.parameters.clone(),
            compute: self.compute,
            moments: Moments::default(),
            processor: OnProcessor::default(),
            #[cfg(feature = "cuda")]
            card: self.card.clone(),
        }
    }

    /// The block this field stands for.
    pub fn block(&self) -> Block {
        self.block
    }

    /// What it has beyond the paper's field.
    pub fn extras(&self) -> Extras {
        self.extras
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

    /// The trained times of an integration in k steps, if there are some for this k.
    ///
    /// # Shapes
    /// k + 1 tensors (1).
    pub fn learned_times(&self, k: usize) -> Option<Result<Vec<Tensor>>> {
        self.times.as_ref().filter(|times| times.steps() == k).map(LearnedTimes::times)
    }

    /// The velocity at one time for all examples.
    ///
    /// # Shapes
    /// `x` (B, T, D), result the same.
    pub fn at(&self, x: &Tensor, t: f64) -> Result<Tensor> {
        self.velocity(x, &instant(t, x.device())?)
    }

    /// The same for the next tokens after those that `cache` has seen at this evaluation; they join it.
    pub(super) fn at_cached(&self, x: &Tensor, t: f64, cache: &mut LayerCache) -> Result<Tensor> {
        let conditioned = self.condition(&instant(t, x.device())?)?;
        self.evaluate(x, &conditioned, &conditioned.modulation.gates, |context, qkv| {
            context.attend_cached(qkv, cache)
        })
    }

    /// What the field makes of several times of one length G each, all at once: products of so few rows cost no more for
    /// many times than for one, and the gradients of the weights behind them are made once. Empty for other times.
    fn condition_all(&self, times: &[Tensor]) -> Result<Vec<(TensorId, Conditioned)>> {
        let (Some(time), Some(first)) = (&self.time, times.first()) else { return Ok(Vec::new()) };
        let groups = first.elem_count();
        if times.iter().any(|t| t.elem_count() != groups) {
            return Ok(Vec::new());
        }
        let condition = time.condition(&Tensor::cat(times, 0)?)?;
        let projection = time.projection(&condition)?;
        let scales = self.low_rank.as_ref().map(|low_rank| low_rank.scales(&condition)).transpose()?;
        let rows = |all: &Tensor, i: usize| all.narrow(0, i * groups, groups);
        let one = |(i, t): (usize, &Tensor)| {
            let modulation = Modulation::new(&rows(&projection, i)?)?;
            Ok((
                t.id(),
                Conditioned { modulation, scales: scales.as_ref().map(|all| rows(all, i)).transpose()? },
            ))
        };
        times.iter().enumerate().map(one).collect()
    }

    fn condition(&self, t: &Tensor) -> Result<Conditioned> {
        if let Some(known) = self.moments.find(t) {
            return Ok(known);
        }
        let Some(time) = &self.time else {
            return Ok(Conditioned {
                modulation: Modulation::plain(self.width(), t.device())?,
                scales: None,
            });
        };
        let condition = time.condition(t)?;
        let scales = self.low_rank.as_ref().map(|low_rank| low_rank.scales(&condition)).transpose()?;
        Ok(Conditioned { modulation: time.modulation(&condition)?, scales })
    }

    /// The velocity of whole sequences, times a length for each example where there is one: it goes into the gates,
    /// where it costs nothing.
    fn whole(&self, x: &Tensor, conditioned: &Conditioned, length: Option<&Tensor>) -> Result<Tensor> {
        ode::evaluation(|| {
            #[cfg(feature = "cuda")]
            if let Some(u) = self.on_card(x, conditioned, length, (1.0, false))? {
                return Ok(u);
            }
            if let Some(u) = self.on_processor(x, conditioned, length, (1.0, false))? {
                return Ok(u);
            }
            let gates = &conditioned.modulation.gates;
            let gates = match length {
                Some(length) => gates.broadcast_mul(&length.reshape(((), 1, 1))?)?,
                None => gates.clone(),
            };
            self.evaluate(x, conditioned, &gates, LayerContext::attend)
        })
    }

    /// The same times `factor`, and added to x if wanted, as one operation on the processor.
    fn on_processor(
        &self,
        x: &Tensor,
        conditioned: &Conditioned,
        length: Option<&Tensor>,
        (factor, on_x): (f64, bool),
    ) -> Result<Option<Tensor>> {
        if conditioned.scales.is_some() || self.compute != DType::F32 {
            return Ok(None);
        }
        let sum = on_processor::Sum { length: length.cloned(), factor, on_x };
        self.processor.field(&self.layer, &self.context, x, &conditioned.modulation, &sum)
    }

    /// One evaluation, counted as such.
    fn evaluate(
        &self,
        x: &Tensor,
        conditioned: &Conditioned,
        gates: &Tensor,
        attend: impl FnOnce(&LayerContext, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        ode::evaluation(|| self.output(x, conditioned, gates, attend))
    }

    fn output(
        &self,
        x: &Tensor,
        conditioned: &Conditioned,
        gates: &Tensor,
        attend: impl FnOnce(&LayerContext, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let (layer, context, modulation) = (&self.layer, &self.context, &conditioned.modulation);
        let norm = |branch: usize, x: &Tensor| {
            let weights = if branch == 0 { &layer.input_layernorm } else { &layer.post_attention_layernorm };
            let (scale, shift) = modulation.norm(branch, &weights.weight, &weights.bias)?;
            anyhow::Ok(ops::layer_norm_to(x, &scale, &shift, context.eps, self.compute)?)
        };
        let project = |i: usize, affine: &Affine, x: &Tensor| {
            let y = affine.forward(x)?;
            match (&self.low_rank, &conditioned.scales) {
                (Some(low_rank), Some(scales)) => Ok((y + low_rank.apply(i, x, scales)?)?),
                _ => anyhow::Ok(y),
            }
        };
        let qkv = project(0, &layer.query_key_value, &norm(0, x)?)?;
        let attended = project(1, &layer.dense, &attend(context, &qkv)?)?;
        let seen = if context.parallel {
            x.clone()
        } else {
            (x + attended.to_dtype(x.dtype())?.broadcast_mul(&modulation.gates.narrow(1, 0, 1)?)?)?
        };
        let inner = context.activation.apply(&project(2, &layer.dense_h_to_4h, &norm(1, &seen)?)?)?;
        let mlp = project(3, &layer.dense_4h_to_h, &inner)?;
        Ok(ops::gated_sum(&attended, &mlp, gates)?)
    }
}

impl Field for VelocityField {
    fn velocity(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        self.whole(x, &self.condition(t)?, None)
    }

    fn scaled_velocity(&self, x: &Tensor, t: &Tensor, d: &Tensor) -> Result<Tensor> {
        self.whole(x, &self.condition(t)?, Some(d))
    }

    fn advance(&self, base: &Tensor, (x, t): (&Tensor, &Tensor), d: &Tensor, c: f64) -> Result<Tensor> {
        let conditioned = self.condition(t)?;
        let on_x = base.id() == x.id();
        let part = self.on_processor(x, &conditioned, Some(d), (c, on_x))?;
        #[cfg(feature = "cuda")]
        let part =
            part.map_or_else(|| self.on_card(x, &conditioned, Some(d), (c, on_x)), |sum| Ok(Some(sum)))?;
        match part {
            Some(sum) if on_x => Ok(sum),
            Some(part) => Ok((base + part)?),
            None => sum(base, self.whole(x, &conditioned, Some(d))?, c),
        }
    }

    #[cfg(feature = "cuda")]
    fn carry(&self, x0: &Tensor, stages: &[Stage]) -> Result<Option<Tensor>> {
        self.carry_on_card(x0, stages)
    }

    fn unchanged(&self, times: &[Tensor], body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        self.moments.keep(self.condition_all(times)?);
        self.processor.keep_weights(true);
        #[cfg(feature = "cuda")]
        self.card.keep();
        let result = body();
        self.moments.release();
        self.processor.keep_weights(false);
        #[cfg(feature = "cuda")]
        self.card.release();
        result
    }
}

/// Branches are computed in bf16 where a teacher in bf16 lives on a CUDA card, which multiplies it many times faster
/// than f32; everywhere else in f32.
pub(super) fn compute_dtype(teacher: &Pythia) -> DType {
    if teacher.device().is_cuda() && teacher.dtype() == DType::BF16 { DType::BF16 } else { DType::F32 }
}
