//! What every optimizer shares: named parameters, their gradients, and clipping by the global norm.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use crate::ops::adamw::squared_norm;

/// A rule that moves parameters against their gradients.
pub trait Optimizer {
    /// One update with learning rate `lr`; gradients whose global norm exceeds `clip` are scaled down to it.
    /// Returns the norm before clipping.
    ///
    /// # Errors
    /// If the norm is not finite or a parameter received no gradient; no parameter is touched then.
    fn step(&mut self, gradients: &GradStore, lr: f64, clip: Option<f64>) -> Result<f64>;
}

/// Named parameters, each with what the optimizer remembers of it.
pub(super) struct Slots<M>(Vec<Slot<M>>);

/// One parameter.
pub(super) struct Slot<M> {
    name: String,
    pub parameter: Var,
    pub memory: M,
}

/// The gradients of one step.
pub(super) struct Gradients<'a, M> {
    /// Every parameter with its gradient.
    pub pairs: Vec<(&'a Slot<M>, &'a Tensor)>,
    /// Global norm before clipping.
    pub norm: f64,
    /// The factor on the gradients that clips them.
    pub scale: f64,
}

impl<M> Slots<M> {
    /// `memory` makes the initial memory of each parameter.
    ///
    /// # Errors
    /// If a parameter is given twice, and those of `memory`.
    pub fn new(parameters: &[(String, Var)], memory: impl Fn(&Var) -> Result<M>) -> Result<Self> {
        let mut seen = HashSet::new();
        let slot = |(name, parameter): &(String, Var)| {
            ensure!(seen.insert(parameter.id()), "parameter {name} is given twice");
            Ok(Slot { name: name.clone(), parameter: parameter.clone(), memory: memory(parameter)? })
        };
        Ok(Self(parameters.iter().map(slot).collect::<Result<_>>()?))
    }

    /// Every parameter with its gradient.
    ///
    /// # Errors
    /// If a parameter received none.
    pub fn pairs<'a>(&'a self, gradients: &'a GradStore) -> Result<Vec<(&'a Slot<M>, &'a Tensor)>> {
        self.0.iter().map(|slot| Ok((slot, slot.gradient(gradients)?))).collect()
    }

    /// The gradients of all parameters and what clips them.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn gradients<'a>(&'a self, gradients: &'a GradStore, clip: Option<f64>) -> Result<Gradients<'a, M>> {
        let pairs = self.pairs(gradients)?;
        let mut square = 0.0;
        for (_, gradient) in &pairs {
            square += squared_norm(gradient)?;
        }
        let norm = square.sqrt();
        ensure!(norm.is_finite(), "the gradient's norm is {norm}");
        let scale = clip.filter(|clip| norm > *clip).map_or(1.0, |clip| clip / norm);
        Ok(Gradients { pairs, norm, scale })
    }
}

impl<M> Slot<M> {
    fn gradient<'a>(&self, gradients: &'a GradStore) -> Result<&'a Tensor> {
        let gradient = gradients.get(&self.parameter);
        gradient.with_context(|| format!("parameter {} received no gradient", self.name))
    }
}

/// An f32 tensor of zeros beside a parameter.
pub(super) fn zeros(parameter: &Var) -> Result<Var> {
    Ok(Var::zeros(parameter.shape(), DType::F32, parameter.device())?)
}
