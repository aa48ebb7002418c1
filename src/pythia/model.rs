//! The whole model: embedding, residual layers, final norm, unembedding.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use tokenizers::Tokenizer;

use super::weights::Weights;
use super::{Cache, Config, Layer, LayerContext, Norm, checkpoint, hub, tokenizer};
use crate::ops::{self, Rotary};

mod checks;
#[cfg(feature = "cuda")]
pub(super) mod decode;
#[cfg(test)]
mod tests;

/// A GPT-NeoX language model on plain tensors of one dtype on one device.
#[derive(Clone)]
pub struct Pythia {
    /// Its architecture.
    pub config: Config,
    /// Its tokenizer, where the checkpoint brings one. Shared: the copies that a training step makes of a model must not copy
    /// its vocabulary.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// (V, D)
    embed_in: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: Norm,
    /// (V, D); the same tensor as `embed_in` where the two are tied.
    embed_out: Tensor,
    context: LayerContext,
}

impl Pythia {
    /// Loads a Hugging Face folder, or a model of the hub by its id (`org/name`, `org/name@revision`).
    ///
    /// Weights of any floating-point format are converted to `dtype` one tensor at a time.
    ///
    /// # Errors
    /// Names the file, and for weights the tensor with its expected and found shape; a hub id also fails
    /// without network. A tokenizer whose ids exceed the vocabulary is refused.
    pub fn load(path_or_hub_id: &str, dtype: DType, device: &Device) -> Result<Self> {
        let folder = hub::resolve(path_or_hub_id)?;
        let config = Config::read(&folder.join(checkpoint::CONFIG))?;
        let tokenizer = tokenizer::load(&folder, config.vocab_size)?;
        let weights = Weights::open(&folder)?;
        Self::build(config, tokenizer, device, |name, shape| weights.read(name, shape, dtype, device))
    }

    /// Assembles a model; `tensor(name, shape)` supplies each weight under its Hugging Face name.
    ///
    /// # Errors
    /// Those of `tensor`, and a configuration that cannot exist.
    pub fn build(
        config: Config,
        tokenizer: Option<Tokenizer>,
        device: &Device,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        config.validate()?;
        let (v, d) = (config.vocab_size, config.hidden_size);
        let embed_in = tensor("gpt_neox.embed_in.weight", &[v, d])?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                Layer::build(&config, |name, shape| tensor(&format!("gpt_neox.layers.{i}.{name}"), shape))
            })
            .collect::<Result<_>>()?;
        let final_layer_norm = Norm {
            weight: tensor("gpt_neox.final_layer_norm.weight", &[d])?,
            bias: tensor("gpt_neox.final_layer_norm.bias", &[d])?,
        };
        let embed_out =
            if config.tie_word_embeddings { embed_in.clone() } else { tensor("embed_out.weight", &[v, d])? };
        let (context, tokenizer) = (LayerContext::new(&config, device)?, tokenizer.map(Arc::new));
        Ok(Self { config, tokenizer, embed_in, layers, final_layer_norm, embed_out, context })
    }

    /// The same embedding, final norm and unembedding around another chain of layers.
    pub fn with_layers(&self, layers: Vec<Layer>) -> Self {
        let config = Config { num_hidden_layers: layers.len(), ..self.config.clone() };
        Self { config, layers, ..self.clone() }
    }

    /// The same model with each weight replaced by what `f` makes of it, of the same shape; tied embeddings stay tied.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn map(&self, mut f: impl FnMut(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        let embed_in = f(&self.embed_in)?;
        let tied = self.config.tie_word_embeddings;
        let embed_out = if tied { embed_in.clone() } else { f(&self.embed_out)? };
        let layers = self.layers.iter().map(|layer| layer.map(&mut f)).collect::<candle_core::Result<_>>()?;
        let final_layer_norm = self.final_layer_norm.map(&mut f)?;
        Ok(Self { embed_in, embed_out, layers, final_layer_norm, ..self.clone() })
    }

    /// The same model in another number format or on another device.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub fn to(&self, dtype: DType, device: &Device) -> Result<Self> {
        let moved = self.map(|weight| weight.to_dtype(dtype)?.to_device(device))?;
        Ok(Self { context: LayerContext::new(&self.config, device)?, ..moved })
    }

    /// The model with some layers left out.
    ///
    /// # Errors
    /// A layer that it does not have, or none left.
    pub fn without(&self, layers: &[usize]) -> Result<Self> {
        let all = self.layers.len();
        if let Some(layer) = layers.iter().find(|layer| **layer >= all) {
            bail!("layer {layer} does not exist: the model's layers are 0..{}", all - 1);
        }
        let kept = (0..all).filter(|i| !layers.contains(i)).map(|i| self.layers[i].clone());
        let kept: Vec<Layer> = kept.collect();
        ensure!(!kept.is_empty(), "a model needs at least one layer");
        Ok(self.with_layers(kept))
    }

    /// Every weight under its Hugging Face name; tied embeddings once.
    pub fn tensors(&self) -> Vec<(String, &Tensor)> {
        let layers = self.layers.iter().enumerate().flat_map(|(i, layer)| {
            let named = layer.tensors().into_iter();
            named.map(move |(name, tensor)| (format!("gpt_neox.layers.{i}.{name}"), tensor))
        });
        let ends = [
            ("gpt_neox.embed_in.weight", &self.embed_in),
            ("gpt_neox.final_layer_norm.weight", &self.final_layer_norm.weight),
            ("gpt_neox.final_layer_norm.bias", &self.final_layer_norm.bias),
        ];
        let head = (!self.config.tie_word_embeddings).then_some(("embed_out.weight", &self.embed_out));
        let ends = ends.into_iter().chain(head).map(|(name, tensor)| (name.to_string(), tensor));
        ends.chain(layers).collect()
    }

    /// Embeds tokens: boundary 0.
    ///
    /// The ids are looked at on the host first; keep them on the CPU, they are moved to the model.
    ///
    /// # Shapes
    /// `ids` (B, T) u32 or i64, result (B, T, D).
    ///
    /// # Errors
    /// Another rank or dtype, no tokens, more than `max_position_embeddings`, an id outside the vocabulary.
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        self.embed_from(ids, 0)
    }

    fn embed_from(&self, ids: &Tensor, start: usize) -> Result<Tensor> {
        let [batch, tokens] = ids.dims() else {
            bail!("token ids must have the shape (batch, tokens), got {:?}", ids.dims());
        };
        ensure!(*batch > 0 && *tokens > 0, "there are no tokens: the ids have the shape {:?}", ids.dims());
        self.check_length(start + tokens)?;
        let ids = self.check_ids(ids)?.to_device(self.device())?;
        Ok(ops::embedding(&self.embed_in, &ids)?.reshape((*batch, *tokens, self.config.hidden_size))?)
    }

    /// The residual stream at a boundary.
    ///
    /// # Shapes
    /// `ids` (B, T), result (B, T, D).
    ///
    /// # Errors
    /// Those of [`Pythia::embed`], and a boundary outside 0..=L.
    pub fn hidden(&self, ids: &Tensor, boundary: usize) -> Result<Tensor> {
        self.check_boundaries(0, boundary)?;
        self.run(&self.embed(ids)?, 0, boundary)
    }

    /// Carries latents from one boundary to a later one through layers `from..to`.
    ///
    /// # Shapes
    /// `x` (B, T, D), result the same.
    ///
    /// # Errors
    /// Boundaries outside `0 ≤ from ≤ to ≤ L`, latents of another shape or dtype than the model's.
    pub fn run(&self, x: &Tensor, from: usize, to: usize) -> Result<Tensor> {
        self.check_boundaries(from, to)?;
        self.check_length(self.check_latents(x)?)?;
        if let Some(y) = self.context.frozen(x, &self.layers[from..to])? {
            return Ok(y);
        }
        let mut x = x.clone();
        for layer in &self.layers[from..to] {
            x = layer.forward(&x, &self.context)?;
        }
        Ok(x)
    }

    /// [`Pythia::run`] for the next T tokens after those that the cache has seen; they join it.
    ///
    /// # Errors
    /// Those of [`Pythia::run`], and a cache made for another number of layers.
    pub fn run_cached(&self, x: &Tensor, from: usize, to: usize, cache: &mut Cache) -> Result<Tensor> {
        self.check_boundaries(from, to)?;
        let (seen, made_for) = (cache.len(), cache.layers.len());
        ensure!(
            made_for == self.layers.len(),
            "the cache has {made_for} layers, the model {}",
            self.layers.len()
        );
        self.check_latents(x)?;
        self.check_length(seen)?;
        let mut x = x.clone();
        for (layer, cache) in self.layers[from..to].iter().zip(&mut cache.layers[from..to]) {
            self.check_length(cache.seen() + x.dim(1)?)?;
            x = layer.forward_cached(&x, &self.context, cache)?;
        }
        Ok(x)
    }

    /// Embeds the next tokens after those that the cache has seen; see [`Pythia::embed`].
    ///
    /// # Errors
    /// Those of [`Pythia::embed`].
    pub fn embed_cached(&self, ids: &Tensor, cache: &Cache) -> Result<Tensor> {
        self.embed_from(ids, cache.len())
    }

    /// The final layer norm, which turns boundary L into the input of the unembedding.
    ///
    /// # Shapes
    /// `x` (B, T, D), result the same.
    ///
    /// # Errors
    /// Latents of another shape or dtype than the model's.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        self.check_latents(x)?;
        Ok(self.final_layer_norm.forward(x, self.config.layer_norm_eps)?)
    }

    /// The embedding matrix (V, D).
    pub fn embed_weight(&self) -> &Tensor {
        &self.embed_in
    }

    /// The unembedding matrix (V, D).
    pub fn unembed_weight(&self) -> &Tensor {
        &self.embed_out
    }

    /// Logits of latents at boundary L: final norm and unembedding.
    ///
    /// # Shapes
    /// `x` (B, T, D), result (B, T, V).
    ///
    /// # Errors
    /// Latents of another shape or dtype than the model's.
    pub fn head(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(&self.final_norm(x)?, &self.embed_out, None)?)
    }

    /// Logits of whole sequences.
    ///
    /// # Shapes
    /// `ids` (B, T), result (B, T, V).
    ///
    /// # Errors
    /// Those of [`Pythia::embed`].
    pub fn logits(&self, ids: &Tensor) -> Result<Tensor> {
        self.head(&self.hidden(ids, self.layers.len())?)
    }

    /// All layers in order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Layer `i`, which carries boundary i to boundary i + 1.
    ///
    /// # Panics
    /// If `i ≥ L`; [`Pythia::layers`] allows to ask first.
    pub fn layer(&self, i: usize) -> &Layer {
        &self.layers[i]
    }

    /// What the layers share.
    pub fn context(&self) -> &LayerContext {
        &self.context
    }

    /// Tables of the rotary embedding.
    pub fn rotary(&self) -> &Rotary {
        &self.context.rotary
    }

    /// The device that holds the weights.
    pub fn device(&self) -> &Device {
        self.embed_in.device()
    }

    /// The number format of weights and latents.
    pub fn dtype(&self) -> DType {
        self.embed_in.dtype()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If the checkpoint came without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_deref().context("this model has no tokenizer: its folder holds no tokenizer.json")
    }
}

impl fmt::Debug for Pythia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pythia")
            .field("config", &self.config)
            .field("dtype", &self.dtype())
            .finish_non_exhaustive()
    }
}
