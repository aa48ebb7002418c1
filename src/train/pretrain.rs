//! Training a Pythia from scratch, or further: next-token cross-entropy.

use anyhow::{Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use super::{AdamWOptions, Descent, Entry, Rule, Schedule, check, language_gradient};
use crate::pythia::Pythia;

/// Everything that defines a pretraining but its data and its model.
#[derive(Clone, Debug, PartialEq)]
pub struct PretrainOptions {
    /// Optimizer steps.
    pub steps: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Learning rate at the end as a share of the peak, reached by a cosine.
    pub final_lr: f64,
    /// The optimizer. Muon takes the layers' matrices alone: rows of the embedding and the unembedding belong to one
    /// token each, and no direction is shared by all of them.
    pub optimizer: Rule,
    /// AdamW's β₁ and β₂.
    pub betas: (f64, f64),
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm; larger gradients are scaled down to it.
    pub clip: f64,
    /// Parts that a batch is computed in, one after the other.
    pub accumulate: usize,
    /// Format the layers compute in; weights, moments and gradients are f32.
    pub dtype: DType,
    /// Decay of an average of the weights, which replaces them at the end.
    pub ema: Option<f64>,
}

impl Default for PretrainOptions {
    fn default() -> Self {
        Self {
            steps: 1000,
            lr: 1e-3,
            warmup: 100,
            final_lr: 0.1,
            optimizer: Rule::AdamW,
            betas: (0.9, 0.95),
            weight_decay: 0.0,
            clip: 1.0,
            accumulate: 1,
            dtype: DType::F32,
            ema: None,
        }
    }
}

impl PretrainOptions {
    fn validate(&self) -> Result<()> {
        check::positive("lr", self.lr)?;
        check::positive("clip", self.clip)?;
        ensure!(
            (0.0..=1.0).contains(&self.final_lr),
            "final_lr = {}, but it must lie in 0..1",
            self.final_lr
        );
        ensure!(self.steps >= 1, "steps = 0, but training needs at least one step");
        ensure!(self.accumulate >= 1, "accumulate = 0, but a batch has at least one part");
        Ok(())
    }
}

/// A language model in training.
pub struct Pretrainer {
    /// Its options.
    pub options: PretrainOptions,
    /// Weights are the variables of the descent.
    model: Pythia,
    descent: Descent,
}

impl Pretrainer {
    /// Starts from the model's weights, of which it takes a copy in f32.
    ///
    /// # Errors
    /// If an option lies outside its range, or memory is short.
    pub fn new(model: &Pythia, options: PretrainOptions) -> Result<Self> {
        options.validate()?;
        let model = model.map(|w| Ok(Var::from_tensor(&w.detach().to_dtype(DType::F32)?)?.into_inner()))?;
        let variable = |(name, w): (String, &Tensor)| Ok((name, Var::from_tensor(w)?));
        let parameters: Vec<(String, Var)> =
            model.tensors().into_iter().map(variable).collect::<Result<_>>()?;
        let PretrainOptions { betas, weight_decay, .. } = options;
        let adamw = AdamWOptions { betas, weight_decay, ..AdamWOptions::default() };
        let optimizer = options.optimizer.of(&parameters, |name| name.contains(".layers."), adamw)?;
        let schedule = Schedule::cosine(options.lr, options.warmup, options.steps, options.final_lr);
        let descent = Descent::new(parameters, optimizer, schedule, options.clip, options.ema)?;
        Ok(Self { model, descent, options })
    }

    /// One optimizer step.
    ///
    /// # Shapes
    /// `ids` (B, T + 1) on the CPU; B is a multiple of the option `accumulate`.
    ///
    /// # Errors
    /// If the loss or a gradient is not finite; the weights are then those of the last good step.
    pub fn step(&mut self, ids: &Tensor) -> Result<Entry> {
        let (batch, parts) = (ids.dim(0)?, self.options.accumulate);
        ensure!(
            batch.is_multiple_of(parts),
            "accumulate = {parts} does not divide the batch of {batch} windows"
        );
        let share = batch / parts;
        let (mut loss, mut gradients) = self.part(&ids.narrow(0, 0, share)?)?;
        for part in 1..parts {
            let (more, other) = self.part(&ids.narrow(0, part * share, share)?)?;
            loss = (loss + more)?;
            gradients.extend(other)?;
        }
        self.descent.update(f64::from(loss.to_scalar::<f32>()?), &gradients)
    }

    fn part(&self, ids: &Tensor) -> Result<(Tensor, GradStore)> {
        language_gradient(&self.model, self.options.dtype, ids, 1.0 / self.options.accumulate as f64)
    }

    /// Describes the training: what it reads is described by `data`.
    pub fn fingerprint(&self, data: &str) -> String {
        format!("{:?} {:?} {data}", self.options, self.model.config)
    }

    /// What it carries from step to step.
    pub fn descent(&self) -> &Descent {
        &self.descent
    }

    /// The same, to go on from a checkpoint.
    pub fn descent_mut(&mut self) -> &mut Descent {
        &mut self.descent
    }

    /// The model as it stands, on plain tensors of the compute dtype; later steps do not change it.
    ///
    /// # Errors
    /// When memory is short.
    pub fn model(&self) -> Result<Pythia> {
        self.model.map(|w| w.detach().to_dtype(self.options.dtype)?.copy())
    }

    /// The trained model in f32, with averaged weights where an average was kept.
    ///
    /// # Errors
    /// When memory is short.
    pub fn finish(self) -> Result<Pythia> {
        self.descent.finish()?;
        self.model.map(|w| w.detach().copy())
    }
}
