//! Stochastic gradient descent with momentum.

use std::collections::HashMap;

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use super::optimizer::{Gradients, Optimizer, Slots, refill_all, zeros};

/// `v ← μ·v + g`, `w ← w − lr·v` (Polyak's heavy ball, as in Sutskever et al., ICML 2013) with f32 memory.
pub struct Sgd {
    slots: Slots<Option<Var>>,
    momentum: f64,
}

impl Sgd {
    /// An optimizer of named parameters; `momentum` is μ, and 0 is plain gradient descent.
    ///
    /// # Errors
    /// Unless 0 ≤ `momentum` < 1, or if a parameter is given twice.
    pub fn new(parameters: &[(String, Var)], momentum: f64) -> Result<Self> {
        super::check::share("momentum", momentum)?;
        let memory = |parameter: &Var| (momentum > 0.0).then(|| zeros(parameter)).transpose();
        Ok(Self { slots: Slots::new(parameters, memory)?, momentum })
    }
}

impl Sgd {
    fn memory(&self) -> impl Iterator<Item = (String, &Var)> {
        self.slots.named("velocity", Option::as_ref)
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, gradients: &GradStore, lr: f64, clip: Option<f64>) -> Result<f64> {
        let Gradients { pairs, norm, scale } = self.slots.gradients(0.0, gradients, clip)?;
        for (slot, gradient) in pairs {
            let mut direction = (gradient.detach().to_dtype(DType::F32)? * scale)?;
            if let Some(velocity) = &slot.memory {
                direction = ((velocity.as_detached_tensor() * self.momentum)? + direction)?;
                velocity.set(&direction)?;
            }
            let w = slot.parameter.as_detached_tensor();
            let next = (w.to_dtype(DType::F32)? - (direction * lr)?)?;
            slot.parameter.set(&next.to_dtype(w.dtype())?)?;
        }
        Ok(norm)
    }
    fn tensors(&self) -> Vec<(String, Tensor)> {
        self.memory().map(|(name, velocity)| (name, velocity.as_detached_tensor())).collect()
    }

    fn restore(&mut self, _steps: u64, tensors: &HashMap<String, Tensor>) -> Result<()> {
        refill_all(self.memory(), tensors)
    }
}
