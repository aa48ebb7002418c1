//! AdamW over a set of variables.

use std::collections::HashMap;

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::optimizer::{Gradients, Optimizer, Slots, refill_all, zeros};
#[cfg(feature = "cuda")]
use crate::ops::adamw::{ClippedSlot, clipped_adamw};
use crate::ops::adamw::{Update, adamw};

/// The coefficients of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the first and second moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0 }
    }
}

impl AdamWOptions {
    /// # Errors
    /// Names the first coefficient outside its range.
    pub fn validate(&self) -> Result<()> {
        super::check::share("beta1", self.betas.0)?;
        super::check::share("beta2", self.betas.1)?;
        super::check::positive("eps", self.eps)?;
        super::check::not_negative("weight_decay", self.weight_decay)
    }
}

/// AdamW (Loshchilov & Hutter, arXiv 1711.05101) with f32 moments.
pub struct AdamW {
    slots: Slots<[Var; 2]>,
    options: AdamWOptions,
    step: u64,
}

impl AdamW {
    /// An optimizer of named parameters.
    ///
    /// # Errors
    /// If a coefficient lies outside its range or a parameter is given twice.
    pub fn new(parameters: &[(String, Var)], options: AdamWOptions) -> Result<Self> {
        options.validate()?;
        let slots = Slots::new(parameters, |parameter| Ok([zeros(parameter)?, zeros(parameter)?]))?;
        Ok(Self { slots, options, step: 0 })
    }

    fn memory(&self) -> impl Iterator<Item = (String, &Var)> {
        self.slots.named("m", |[m, _]| Some(m)).chain(self.slots.named("v", |[_, v]| Some(v)))
    }
}

#[cfg(feature = "cuda")]
impl AdamW {
    /// The whole step as a few kernels on a CUDA card; `None` where the parameters are elsewhere.
    fn step_on_card(
        &mut self,
        others: f64,
        gradients: &GradStore,
        lr: f64,
        clip: Option<f64>,
    ) -> Result<Option<f64>> {
        let AdamWOptions { betas: (beta1, beta2), eps, weight_decay } = self.options;
        let step = self.step + 1;
        let update = Update { lr, beta1, beta2, eps, weight_decay, step, gradient_scale: 1.0 };
        let pairs = self.slots.pairs(gradients)?;
        let slots = pairs.into_iter().map(|(slot, gradient)| {
            let [first, second] = &slot.memory;
            Ok(ClippedSlot { parameter: &slot.parameter, gradient: gradient.contiguous()?, first, second })
        });
        let slots: Vec<ClippedSlot<'_>> = slots.collect::<Result<_>>()?;
        let Some(norm) = clipped_adamw(&slots, &update, others, clip.unwrap_or(f64::INFINITY))? else {
            return Ok(None);
        };
        let norm = f64::from(norm.squeeze(0)?.to_scalar::<f32>()?);
        anyhow::ensure!(norm.is_finite(), "the gradient's norm is {norm}");
        self.step = step;
        Ok(Some(norm))
    }
}

impl AdamW {
    /// One update of parameters whose gradients are clipped with those of other parameters, of squared norm `others`.
    /// Returns the norm of all.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub(super) fn step_beside(
        &mut self,
        others: f64,
        gradients: &GradStore,
        lr: f64,
        clip: Option<f64>,
    ) -> Result<f64> {
        #[cfg(feature = "cuda")]
        if let Some(norm) = self.step_on_card(others, gradients, lr, clip)? {
            return Ok(norm);
        }
        let Gradients { pairs, norm, scale } = self.slots.gradients(others, gradients, clip)?;
        let AdamWOptions { betas: (beta1, beta2), eps, weight_decay } = self.options;
        self.step += 1;
        let update = Update { lr, beta1, beta2, eps, weight_decay, step: self.step, gradient_scale: scale };
        for (slot, gradient) in pairs {
            let [m, v] = &slot.memory;
            adamw(&slot.parameter, gradient, m, v, &update)?;
        }
        Ok(norm)
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, gradients: &GradStore, lr: f64, clip: Option<f64>) -> Result<f64> {
        self.step_beside(0.0, gradients, lr, clip)
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        self.memory().map(|(name, moment)| (name, moment.as_detached_tensor())).collect()
    }

    fn restore(&mut self, steps: u64, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.step = steps;
        refill_all(self.memory(), tensors)
    }
}
