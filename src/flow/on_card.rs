//! The velocity field as one operation on a CUDA card.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use candle_core::{DType, Tensor};

use super::lowrank::LowRank;
use crate::ops::Activation;
pub(super) use crate::ops::cuda::{Base, Stage};
use crate::ops::cuda::{Factors, FieldSetting, Maps, walk};
use crate::pythia::{Layer, LayerContext};

/// What an evaluation needs of the field's parameters alone, kept between evaluations while they are known not to change.
/// Clones share it.
#[derive(Clone, Default)]
pub(super) struct OnCard(Arc<Mutex<Option<Kept>>>);

/// What is kept of parameters that do not change until further notice, made by the first evaluation.
#[derive(Default)]
struct Kept(Option<Box<Gathered>>);

/// The layer's maps, and the factors of their low-rank updates where they have some.
#[derive(Clone)]
struct Gathered {
    maps: Maps,
    factors: Option<Factors>,
}

impl OnCard {
    /// Says that the parameters stay as they are from now on.
    pub fn keep(&self) {
        *self.kept() = Some(Kept::default());
    }

    /// Says that the parameters may change again.
    pub fn release(&self) {
        *self.kept() = None;
    }

    /// The end of a walk from x over the stages, whose modulations are the rows of `projection` (S·G, 6·D); `updates` are the
    /// low-rank updates with their strengths (1, 4·r), the same in all stages. `None` where the operation does not cover the
    /// layer or its operands: weights that differ between examples, for one.
    pub fn walk(
        &self,
        (layer, context): (&Layer, &LayerContext),
        updates: Option<(&LowRank, &Tensor)>,
        compute: DType,
        x: &Tensor,
        projection: &Tensor,
        stages: &[Stage],
    ) -> Result<Option<Tensor>> {
        let differ = updates.is_some_and(|(_, scales)| scales.dims()[0] > 1);
        if !x.device().is_cuda() || !context.parallel || context.activation != Activation::Gelu || differ {
            return Ok(None);
        }
        let Gathered { maps, factors } =
            self.gathered(layer, updates.map(|(low_rank, _)| low_rank), compute)?;
        let maps = match (factors, updates) {
            (Some(factors), Some((_, scales))) => maps.updated(&factors, &scales.contiguous()?)?,
            _ => Some(maps),
        };
        let Some(maps) = maps else { return Ok(None) };
        let setting = FieldSetting { rotary: context.rotary.clone(), heads: context.heads, eps: context.eps };
        Ok(walk(&x.contiguous()?, &projection.contiguous()?, &maps, stages, &setting)?)
    }

    fn gathered(&self, layer: &Layer, low_rank: Option<&LowRank>, compute: DType) -> Result<Gathered> {
        let mut kept = self.kept();
        if let Some(Kept(Some(weights))) = &*kept {
            return Ok(weights.as_ref().clone());
        }
        let maps = [&layer.query_key_value, &layer.dense, &layer.dense_h_to_4h, &layer.dense_4h_to_h];
        let norms = [&layer.input_layernorm, &layer.post_attention_layernorm];
        let norms = norms.map(|norm| (&norm.weight, &norm.bias));
        let maps = Maps::new(norms, maps.map(|map| (&map.weight, map.bias.as_ref())), compute)?;
        let gathered = Gathered { maps, factors: low_rank.map(LowRank::factors).transpose()? };
        if let Some(kept) = &mut *kept {
            kept.0 = Some(Box::new(gathered.clone()));
        }
        Ok(gathered)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
