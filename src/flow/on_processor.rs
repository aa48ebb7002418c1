//! The velocity field as one operation on the processor.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use candle_core::Tensor;

use super::time::Modulation;
pub(super) use crate::ops::field::Sum;
use crate::ops::field::{Setting, Weights, field};
use crate::pythia::{Layer, LayerContext};

/// The layer's weights as the operation takes them, kept between evaluations where they are known not to change, so that
/// the evaluations of a walk gather the weights' gradients in one place.
#[derive(Default)]
pub(super) struct OnProcessor(Mutex<Kept>);

#[derive(Default)]
enum Kept {
    /// They may change: each evaluation takes them anew.
    #[default]
    Nothing,
    /// They do not change until further notice.
    Wanted,
    Weights(Box<Weights>),
}

impl OnProcessor {
    /// Says that the weights stay as they are from now on, or that they may change again.
    pub fn keep_weights(&self, keep: bool) {
        *self.kept() = if keep { Kept::Wanted } else { Kept::Nothing };
    }

    /// `factor·length⊙u(x) [+ x]`; `None` where the operation does not cover the layer or its operands.
    pub fn field(
        &self,
        layer: &Layer,
        context: &LayerContext,
        x: &Tensor,
        modulation: &Modulation,
        sum: &Sum,
    ) -> Result<Option<Tensor>> {
        if !x.device().is_cpu() || !context.parallel {
            return Ok(None);
        }
        let LayerContext { heads, eps, activation, ref rotary, .. } = *context;
        let setting = Setting { rotary: rotary.clone(), heads, eps, activation };
        Ok(field(x, &modulation.projection, &self.weights(layer)?, sum, &setting)?)
    }

    fn weights(&self, layer: &Layer) -> Result<Weights> {
        let mut kept = self.kept();
        if let Kept::Weights(weights) = &*kept {
            return Ok(weights.as_ref().clone());
        }
        let maps = [&layer.query_key_value, &layer.dense, &layer.dense_h_to_4h, &layer.dense_4h_to_h];
        let norms = [&layer.input_layernorm, &layer.post_attention_layernorm];
        let norms = norms.map(|norm| (&norm.weight, &norm.bias));
        let weights = Weights::new(norms, maps.map(|map| (&map.weight, map.bias.as_ref())))?;
        if matches!(*kept, Kept::Wanted) {
            *kept = Kept::Weights(Box::new(weights.clone()));
        }
        Ok(weights)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
