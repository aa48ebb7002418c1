//! AdamW over a set of variables, with global gradient clipping.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor, Var, backprop::GradStore};

use super::Options;
use crate::ops::adamw::{Update, adamw, squared_norm};

/// AdamW (Loshchilov & Hutter, arXiv 1711.05101) with f32 moments.
pub struct AdamW {
    slots: Vec<Slot>,
    betas: (f64, f64),
    weight_decay: f64,
    clip: f64,
    step: u64,
}

struct Slot {
    name: String,
    parameter: Var,
    m: Var,
    v: Var,
}

const EPS: f64 = 1e-8;

impl AdamW {
    /// An optimizer of named parameters, with the betas, decay and clip of `options`.
    pub fn new(parameters: &[(String, Var)], options: &Options) -> Result<Self> {
        let slot = |(name, parameter): &(String, Var)| {
            let zero = || Var::zeros(parameter.shape(), DType::F32, parameter.device());
            anyhow::Ok(Slot { name: name.clone(), parameter: parameter.clone(), m: zero()?, v: zero()? })
        };
        let slots = parameters.iter().map(slot).collect::<Result<_>>()?;
        Ok(Self {
            slots,
            betas: options.betas,
            weight_decay: options.weight_decay,
            clip: options.clip,
            step: 0,
        })
    }

    /// Global norm of the gradients, before clipping.
    ///
    /// # Errors
    /// Names a parameter that received no gradient: some operation on its path cut the graph.
    pub fn norm(&self, gradients: &GradStore) -> Result<f64> {
        let mut square = 0.0;
        for slot in &self.slots {
            square += squared_norm(slot.gradient(gradients)?)?;
        }
        Ok(square.sqrt())
    }

    /// One update; gradients whose global norm exceeds the clip are scaled down to it.
    ///
    /// # Errors
    /// If the norm is not finite (no parameter is touched then) or a parameter received no gradient.
    pub fn step(&mut self, gradients: &GradStore, lr: f64) -> Result<f64> {
        let norm = self.norm(gradients)?;
        ensure!(norm.is_finite(), "the gradient's norm is {norm}");
        self.step += 1;
        let update = Update {
            lr,
            beta1: self.betas.0,
            beta2: self.betas.1,
            eps: EPS,
            weight_decay: self.weight_decay,
            step: self.step,
            gradient_scale: if norm > self.clip { self.clip / norm } else { 1.0 },
        };
        for slot in &self.slots {
            adamw(&slot.parameter, slot.gradient(gradients)?, &slot.m, &slot.v, &update)?;
        }
        Ok(norm)
    }
}

impl Slot {
    fn gradient<'a>(&self, gradients: &'a GradStore) -> Result<&'a Tensor> {
        gradients
            .get(&self.parameter)
            .with_context(|| format!("parameter {} received no gradient", self.name))
    }
}
