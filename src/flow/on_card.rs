//! The velocity field as one operation on a CUDA card.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use candle_core::{DType, Tensor};

use super::time::Modulation;
use crate::ops::Activation;
pub(super) use crate::ops::cuda::Sum;
use crate::ops::cuda::{FieldSetting, Maps, field};
use crate::pythia::{Layer, LayerContext};

/// The layer's weights as the operation takes them, kept between evaluations where they are known not to change.
/// Clones share them.
#[derive(Clone, Default)]
pub(super) struct OnCard(Arc<Mutex<Kept>>);

#[derive(Default)]
enum Kept {
    /// They may change: each evaluation gathers them anew.
    #[default]
    Nothing,
    /// They do not change until further notice.
    Wanted,
    Maps(Box<Maps>),
}

impl OnCard {
    /// Says that the weights stay as they are from now on, or that they may change again.
    pub fn keep_maps(&self, keep: bool) {
        *self.kept() = if keep { Kept::Wanted } else { Kept::Nothing };
    }

    /// `factor·length⊙u(x) [+ x]`; `None` where the operation does not cover the layer or its operands.
    pub fn field(
        &self,
        layer: &Layer,
        context: &LayerContext,
        compute: DType,
        x: &Tensor,
        modulation: &Modulation,
        sum: &Sum,
    ) -> Result<Option<Tensor>> {
        if !x.device().is_cuda() || !context.parallel || context.activation != Activation::Gelu {
            return Ok(None);
        }
        let setting = FieldSetting { rotary: context.rotary.clone(), heads: context.heads, eps: context.eps };
        Ok(field(&x.contiguous()?, &modulation.projection, &self.maps(layer, compute)?, sum, &setting)?)
    }

    fn maps(&self, layer: &Layer, compute: DType) -> Result<Maps> {
        let mut kept = self.kept();
        if let Kept::Maps(maps) = &*kept {
            return Ok(maps.as_ref().clone());
        }
        let maps = [&layer.query_key_value, &layer.dense, &layer.dense_h_to_4h, &layer.dense_4h_to_h];
        let norms = [&layer.input_layernorm, &layer.post_attention_layernorm];
        let norms = norms.map(|norm| (&norm.weight, &norm.bias));
        let maps = Maps::new(norms, maps.map(|map| (&map.weight, map.bias.as_ref())), compute)?;
        if matches!(*kept, Kept::Wanted) {
            *kept = Kept::Maps(Box::new(maps.clone()));
        }
        Ok(maps)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
