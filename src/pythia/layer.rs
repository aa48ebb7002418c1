//! One residual layer of GPT-NeoX.

use candle_core::{Device, Result, Tensor};

use super::cache::LayerCache;
use super::{Affine, Config, Norm};
use crate::ops::{self, Activation, Rotary};

/// Weights of one layer, named as in Hugging Face checkpoints.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Norm in front of the attention.
    pub input_layernorm: Norm,
    /// Norm in front of the MLP.
    pub post_attention_layernorm: Norm,
    /// Packed projection D → H·3·C; each head's query, key and value lie side by side.
    pub query_key_value: Affine,
    /// The attention's output projection D → D.
    pub dense: Affine,
    /// The MLP's first projection.
    pub dense_h_to_4h: Affine,
    /// The MLP's second projection.
    pub dense_4h_to_h: Affine,
}

/// What all layers of a model share.
#[derive(Clone, Debug)]
pub struct LayerContext {
    /// Heads H.
    pub heads: usize,
    /// The eps of the layer norms.
    pub eps: f64,
    /// Parallel (Pythia) or sequential residual.
    pub parallel: bool,
    /// Non-linearity of the MLP.
    pub activation: Activation,
    /// Tables of the rotary embedding.
    pub rotary: Rotary,
}

impl LayerContext {
    /// The shared part of a model, with rotary tables for its longest sequence.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        let positions = config.max_position_embeddings;
        Ok(Self {
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            parallel: config.use_parallel_residual,
            activation: config.hidden_act,
            rotary: Rotary::new(config.rotary_dims(), config.rope_theta, positions, device)?,
        })
    }

    /// Causal attention of packed queries, keys and values, before the output projection.
    ///
    /// # Shapes
    /// `qkv` (B, T, 3·D), result (B, T, D).
    pub fn attend(&self, qkv: &Tensor) -> Result<Tensor> {
        ops::attention::causal(qkv, &self.rotary, self.heads)
    }

    /// Carries latents over layers one after the other, as one operation; `None` where that does not cover them.
    ///
    /// # Shapes
    /// `x` (B, T, D), result the same.
    pub fn frozen(&self, x: &Tensor, layers: &[Layer]) -> Result<Option<Tensor>> {
        if layers.is_empty() || !x.device().is_cpu() {
            return Ok(None);
        }
        let Self { heads, eps, parallel, activation, ref rotary } = *self;
        let setting = ops::field::Setting { rotary: rotary.clone(), heads, eps, activation };
        let weights: Vec<_> = layers.iter().map(Layer::weights).collect();
        ops::frozen::frozen(x, &weights, &setting, parallel)
    }

    #[cfg(feature = "cuda")]
    pub(super) fn on_card(&self) -> ops::cuda::LayerSetting {
        let Self { heads, eps, parallel, activation, rotary } = self.clone();
        ops::cuda::LayerSetting { rotary, heads, eps, activation, parallel }
    }

    /// The same for the next T tokens after those that `cache` has seen; they join it.
    ///
    /// # Shapes
    /// as [`attend`](Self::attend).
    pub fn attend_cached(&self, qkv: &Tensor, cache: &mut LayerCache) -> Result<Tensor> {
        let start = cache.seen();
        let (q, k, v) = ops::attention::split(qkv, &self.rotary, self.heads, start)?;
        let (k, v) = cache.append(&k, &v)?;
        ops::attention::attend(&q, &k, &v)
    }
}

impl Layer {
    /// Assembles a layer; `tensor(name, shape)` supplies each weight.
    ///
    /// # Errors
    /// Those of `tensor`.
    pub fn build(
        config: &Config,
        mut tensor: impl FnMut(&str, &[usize]) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Self> {
        let (d, inner) = (config.hidden_size, config.intermediate_size);
        let attention_bias = config.attention_bias;
        let mut affine = |name: &str, rows: usize, columns: usize, bias: bool| {
            let weight = tensor(&format!("{name}.weight"), &[rows, columns])?;
            let bias = bias.then(|| tensor(&format!("{name}.bias"), &[rows])).transpose()?;
            anyhow::Ok(Affine { weight, bias })
        };
        let query_key_value = affine("attention.query_key_value", 3 * d, d, attention_bias)?;
        let dense = affine("attention.dense", d, d, attention_bias)?;
        let dense_h_to_4h = affine("mlp.dense_h_to_4h", inner, d, true)?;
        let dense_4h_to_h = affine("mlp.dense_4h_to_h", d, inner, true)?;
        let mut norm = |name: &str| {
            let weight = tensor(&format!("{name}.weight"), &[d])?;
            anyhow::Ok(Norm { weight, bias: tensor(&format!("{name}.bias"), &[d])? })
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            query_key_value,
            dense,
            dense_h_to_4h,
            dense_4h_to_h,
        })
    }

    /// Every weight with its name inside the layer (`attention.dense.weight`, …).
    pub fn tensors(&self) -> Vec<(String, &Tensor)> {
        let norms = [
            ("input_layernorm", &self.input_layernorm),
            ("post_attention_layernorm", &self.post_attention_layernorm),
        ];
        let affines = [
            ("attention.query_key_value", &self.query_key_value),
            ("attention.dense", &self.dense),
            ("mlp.dense_h_to_4h", &self.dense_h_to_4h),
            ("mlp.dense_4h_to_h", &self.dense_4h_to_h),
        ];
        let norms = norms.into_iter().map(|(name, norm)| (name, &norm.weight, Some(&norm.bias)));
        let affines = affines.into_iter().map(|(name, affine)| (name, &affine.weight, affine.bias.as_ref()));
        norms
            .chain(affines)
            .flat_map(|(name, weight, bias)| {
                let bias = bias.map(|bias| (format!("{name}.bias"), bias));
                std::iter::once((format!("{name}.weight"), weight)).chain(bias)
            })
            .collect()
    }

    fn weights(&self) -> ops::frozen::LayerWeights<'_> {
        let norms = [&self.input_layernorm, &self.post_attention_layernorm];
        let maps = [&self.query_key_value, &self.dense, &self.dense_h_to_4h, &self.dense_4h_to_h];
        ops::frozen::LayerWeights {
            norms: norms.map(|norm| (&norm.weight, &norm.bias)),
            maps: maps.map(|map| (&map.weight, map.bias.as_ref())),
        }
    }

    /// Every weight, in a fixed order.
    #[cfg(feature = "cuda")]
    pub(super) fn operands(&self) -> impl Iterator<Item = &Tensor> {
        let ops::frozen::LayerWeights { norms, maps } = self.weights();
        let norms = norms.into_iter().flat_map(|(scale, shift)| [scale, shift]);
        norms.chain(maps.into_iter().flat_map(|(weight, bias)| std::iter::once(weight).chain(bias)))
    }

    /// The same layer with each weight replaced by what `f` makes of it.
    pub fn map(&self, f: &mut impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            input_layernorm: self.input_layernorm.map(f)?,
            post_attention_layernorm: self.post_attention_layernorm.map(f)?,
            query_key_value: self.query_key_value.map(f)?,
            dense: self.dense.map(f)?,
            dense_h_to_4h: self.dense_h_to_4h.map(f)?,
            dense_4h_to_h: self.dense_4h_to_h.map(f)?,
        })
    }

    /// The same weights without the record for gradients.
    pub fn detach(&self) -> Self {
        Self {
            input_layernorm: self.input_layernorm.detach(),
            post_attention_layernorm: self.post_attention_layernorm.detach(),
            query_key_value: self.query_key_value.detach(),
            dense: self.dense.detach(),
            dense_h_to_4h: self.dense_h_to_4h.detach(),
            dense_4h_to_h: self.dense_4h_to_h.detach(),
        }
    }

    /// Carries latents over the layer, whole sequences at once:
    /// parallel `x + attn(ln₁(x)) + mlp(ln₂(x))`, sequential `h = x + attn(ln₁(x))`, `h + mlp(ln₂(h))`.
    ///
    /// # Shapes
    /// `x` (B, T, D), result the same.
    pub fn forward(&self, x: &Tensor, context: &LayerContext) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(y) = self.forward_on_card(x, context, None)? {
            return Ok(y);
        }
        let attention = self.attention(&self.input_layernorm.forward(x, context.eps)?, context)?;
        self.residual(x, &attention, context)
    }

    /// The same in one piece on a CUDA card, where no gradient of the weights is wanted; `cached` attends where a cache is
    /// kept.
    #[cfg(feature = "cuda")]
    fn forward_on_card(
        &self,
        x: &Tensor,
        context: &LayerContext,
        cached: Option<ops::cuda::Attend<'_>>,
    ) -> Result<Option<Tensor>> {
        if !x.device().is_cuda() {
            return Ok(None);
        }
        let (weights, setting) = self.on_card(context);
        ops::cuda::layer(x, weights, setting, cached)
    }

    /// The same on a CUDA card, with a way back of its own that gives gradients of the weights; `None` where its kernels do
    /// not fit.
    #[cfg(feature = "cuda")]
    pub(super) fn forward_trained(
        &self,
        x: &Tensor,
        context: &LayerContext,
    ) -> Result<Option<(Tensor, ops::cuda::Trained)>> {
        let (weights, setting) = self.on_card(context);
        ops::cuda::trained(x, weights, setting)
    }

    #[cfg(feature = "cuda")]
    pub(super) fn on_card(
        &self,
        context: &LayerContext,
    ) -> (ops::cuda::LayerWeights, ops::cuda::LayerSetting) {
        let ops::frozen::LayerWeights { norms, maps } = self.weights();
        let weights = ops::cuda::LayerWeights {
            norms: norms.map(|(scale, shift)| (scale.clone(), shift.clone())),
            maps: maps.map(|(weight, bias)| (weight.clone(), bias.cloned())),
        };
        (weights, context.on_card())
    }

    /// The same for the next T tokens after those that `cache` has seen; they join it.
    ///
    /// # Shapes
    /// `x` (B, T, D), result the same.
    pub fn forward_cached(
        &self,
        x: &Tensor,
        context: &LayerContext,
        cache: &mut LayerCache,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(y) =
            self.forward_on_card(x, context, Some(&mut |qkv| context.attend_cached(qkv, cache)))?
        {
            return Ok(y);
        }
        let attention =
            self.attention_cached(&self.input_layernorm.forward(x, context.eps)?, context, cache)?;
        self.residual(x, &attention, context)
    }

    /// The attention branch of an input that is normalised already.
    ///
    /// # Shapes
    /// `normal` (B, T, D), result the same.
    pub fn attention(&self, normal: &Tensor, context: &LayerContext) -> Result<Tensor> {
        self.dense.forward(&context.attend(&self.query_key_value.forward(normal)?)?)
    }

    /// The attention branch for the next T tokens after those that `cache` has seen; they join it.
    ///
    /// # Shapes
    /// `normal` (B, T, D), result the same.
    pub fn attention_cached(
        &self,
        normal: &Tensor,
        context: &LayerContext,
        cache: &mut LayerCache,
    ) -> Result<Tensor> {
        self.dense.forward(&context.attend_cached(&self.query_key_value.forward(normal)?, cache)?)
    }

    /// The MLP branch of an input that is normalised already.
    ///
    /// # Shapes
    /// `normal` (B, T, D), result the same.
    pub fn mlp(&self, normal: &Tensor, context: &LayerContext) -> Result<Tensor> {
        self.dense_4h_to_h.forward(&context.activation.apply(&self.dense_h_to_4h.forward(normal)?)?)
    }

    fn residual(&self, x: &Tensor, attention: &Tensor, context: &LayerContext) -> Result<Tensor> {
        if context.parallel {
            let normal = self.post_attention_layernorm.forward(x, context.eps)?;
            return ops::residual(x, attention, &self.mlp(&normal, context)?);
        }
        let after = (x + attention)?;
        let normal = self.post_attention_layernorm.forward(&after, context.eps)?;
        after + self.mlp(&normal, context)?
    }
}
