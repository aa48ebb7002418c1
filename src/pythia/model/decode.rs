//! The next token of one sequence on a CUDA card, over the buffers of its cache.

use std::fmt;

use anyhow::Result;
use candle_core::{Tensor, TensorId};

use super::Pythia;
use crate::ops::cuda::{ModelWeights, TokenStep};
use crate::pythia::cache::LayerCache;
use crate::pythia::{Cache, Layer};

/// A model's step over the buffers of one cache.
pub struct Prepared {
    /// The weights and buffers that it was made for.
    operands: Vec<TensorId>,
    /// None where the kernels do not fit them.
    step: Option<TokenStep>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("step", &self.step).finish_non_exhaustive()
    }
}

impl Pythia {
    /// [`Decoder::step`](crate::pythia::Decoder::step) for one token of one sequence; `None` where its kernels do not cover it.
    ///
    /// # Shapes
    /// `ids` (1, 1), result (V) in f32.
    ///
    /// # Errors
    /// Those of [`Pythia::embed_cached`].
    pub(in crate::pythia) fn step_on_card(&self, ids: &Tensor, cache: &mut Cache) -> Result<Option<Tensor>> {
        let (seen, layers) = (cache.len(), cache.layers.len());
        let together = cache.layers.iter().all(|layer| layer.seen() == seen);
        let ours = layers == self.layers.len() && together && self.context.parallel;
        if ids.dims() != [1, 1] || !self.device().is_cuda() || !ours {
            return Ok(None);
        }
        self.check_length(seen + 1)?;
        let token = self.check_ids(ids)?.to_vec1::<u32>()?[0];
        let shape = (1, self.config.num_attention_heads, self.config.head_dim());
        let room = |layer: &mut LayerCache| layer.reserve(1, shape, self.dtype(), self.device());
        let buffers = cache.layers.iter_mut().map(room).collect::<candle_core::Result<Vec<_>>>()?;
        let operands = || self.operands().chain(buffers.iter().flatten()).map(Tensor::id);
        let prepared = match cache.prepared.take() {
            Some(prepared) if operands().eq(prepared.operands.iter().copied()) => prepared,
            _ => {
                let operands = operands().collect();
                Prepared { operands, step: TokenStep::over(self.on_card(), buffers)? }
            }
        };
        let Some(step) = &mut cache.prepared.insert(prepared).step else { return Ok(None) };
        let logits = step.run(token, seen)?;
        cache.layers.iter_mut().for_each(LayerCache::advance);
        Ok(Some(logits))
    }

    fn on_card(&self) -> ModelWeights {
        let norm = &self.final_layer_norm;
        ModelWeights {
            embed: self.embed_in.clone(),
            layers: self.layers.iter().map(|layer| layer.on_card(&self.context).0).collect(),
            norm: (norm.weight.clone(), norm.bias.clone()),
            unembed: self.embed_out.clone(),
            setting: self.context.on_card(),
        }
    }

    /// Every weight, in a fixed order.
    fn operands(&self) -> impl Iterator<Item = &Tensor> {
        let norm = &self.final_layer_norm;
        let ends = [&self.embed_in, &norm.weight, &norm.bias, &self.embed_out];
        ends.into_iter().chain(self.layers.iter().flat_map(Layer::operands))
    }
}
