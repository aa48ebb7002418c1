//! What every optimizer shares: named parameters, their gradients, and clipping by the global norm.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use super::descent::refill;
use super::{AdamW, AdamWOptions, MOMENTUM, Muon};
use crate::ops::adamw::squared_norm;

/// A rule that moves parameters against their gradients.
pub trait Optimizer {
    /// One update with learning rate `lr`; gradients whose global norm exceeds `clip` are scaled down to it.
    /// Returns the norm before clipping.
    ///
    /// # Errors
    /// If the norm is not finite or a parameter received no gradient; no parameter is touched then.
    fn step(&mut self, gradients: &GradStore, lr: f64, clip: Option<f64>) -> Result<f64>;

    /// What it remembers of its parameters, by names that begin with what it is: `m.embed_in.weight`.
    fn tensors(&self) -> Vec<(String, Tensor)>;

    /// Goes back to where it was after `steps` updates, when it gave these tensors.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    fn restore(&mut self, steps: u64, tensors: &HashMap<String, Tensor>) -> Result<()>;
}

/// The optimizers that a training can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// [`AdamW`](super::AdamW) for everything.
    AdamW,
    /// [`Muon`](super::Muon) for matrices, AdamW for the rest.
    Muon,
}

impl Rule {
    /// The optimizer itself. Muon takes the matrices whose names are `chosen`, and leaves the rest to AdamW.
    ///
    /// # Errors
    /// If a coefficient lies outside its range or a parameter is given twice.
    pub fn of(
        self,
        parameters: &[(String, Var)],
        chosen: impl Fn(&str) -> bool,
        adamw: AdamWOptions,
    ) -> Result<Box<dyn Optimizer + Send>> {
        Ok(match self {
            Self::AdamW => Box::new(AdamW::new(parameters, adamw)?),
            Self::Muon => Box::new(Muon::new(parameters, chosen, MOMENTUM, adamw)?),
        })
    }
}

impl FromStr for Rule {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "adamw" => Ok(Self::AdamW),
            "muon" => Ok(Self::Muon),
            _ => bail!("unknown optimizer '{name}': it is 'adamw' or 'muon'"),
        }
    }
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
        distinct(parameters)?;
        let slot = |(name, parameter): &(String, Var)| {
            Ok(Slot { name: name.clone(), parameter: parameter.clone(), memory: memory(parameter)? })
        };
        Ok(Self(parameters.iter().map(slot).collect::<Result<_>>()?))
    }

    /// Part of every parameter's memory, where it has that part, named after the parameter: `m.embed_in.weight`.
    pub fn named<'a>(
        &'a self,
        kind: &'a str,
        part: impl Fn(&'a M) -> Option<&'a Var> + 'a,
    ) -> impl Iterator<Item = (String, &'a Var)> {
        self.0.iter().filter_map(move |slot| Some((format!("{kind}.{}", slot.name), part(&slot.memory)?)))
    }

    /// Every parameter with its gradient.
    ///
    /// # Errors
    /// If a parameter received none.
    pub fn pairs<'a>(&'a self, gradients: &'a GradStore) -> Result<Vec<(&'a Slot<M>, &'a Tensor)>> {
        self.0.iter().map(|slot| Ok((slot, gradient_of(gradients, &slot.name, &slot.parameter)?))).collect()
    }

    /// The gradients of all parameters and what clips them; `others` is the squared norm of gradients of other
    /// parameters that are clipped with these.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn gradients<'a>(
        &'a self,
        others: f64,
        gradients: &'a GradStore,
        clip: Option<f64>,
    ) -> Result<Gradients<'a, M>> {
        let pairs = self.pairs(gradients)?;
        let mut square = others;
        for (_, gradient) in &pairs {
            square += squared_norm(gradient)?;
        }
        let norm = square.sqrt();
        ensure!(norm.is_finite(), "the gradient's norm is {norm}");
        Ok(Gradients { pairs, norm, scale: clipping(norm, clip) })
    }
}

/// The factor that brings gradients of a global norm down to `clip`.
pub(super) fn clipping(norm: f64, clip: Option<f64>) -> f64 {
    clip.filter(|clip| norm > *clip).map_or(1.0, |clip| clip / norm)
}

/// # Errors
/// If a parameter is given twice.
pub(super) fn distinct(parameters: &[(String, Var)]) -> Result<()> {
    let mut seen = HashSet::new();
    parameters.iter().try_for_each(|(name, parameter)| {
        ensure!(seen.insert(parameter.id()), "parameter {name} is given twice");
        Ok(())
    })
}

/// # Errors
/// If the parameter received none.
pub(super) fn gradient_of<'a>(gradients: &'a GradStore, name: &str, parameter: &Var) -> Result<&'a Tensor> {
    gradients.get(parameter).with_context(|| format!("parameter {name} received no gradient"))
}

/// A tensor of a checkpoint.
///
/// # Errors
/// If it is missing.
pub(super) fn saved<'a>(tensors: &'a HashMap<String, Tensor>, name: &str) -> Result<&'a Tensor> {
    tensors.get(name).with_context(|| format!("the checkpoint holds no {name}"))
}

/// An f32 tensor of zeros beside a parameter.
pub(super) fn zeros(parameter: &Var) -> Result<Var> {
    Ok(Var::zeros(parameter.shape(), DType::F32, parameter.device())?)
}

/// Gives named variables the values they are saved under.
pub(super) fn refill_all<'a>(
    variables: impl Iterator<Item = (String, &'a Var)>,
    tensors: &HashMap<String, Tensor>,
) -> Result<()> {
    for (name, variable) in variables {
        refill(variable, saved(tensors, &name)?).context(name)?;
    }
    Ok(())
}
