//! Everything that defines a training run but its data.

use anyhow::{Result, ensure};
use candle_core::DType;

use super::{AdamWOptions, Curriculum, Objective, Rule, check};
use crate::ode::Method;

/// Options of one student's training; the defaults are those of the reference runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The training algorithm, or several one after the other.
    pub curriculum: Curriculum,
    /// Optimizer steps.
    pub steps: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Learning rate at the end as a share of the peak, reached by a cosine.
    pub final_lr: f64,
    /// The optimizer.
    pub optimizer: Rule,
    /// AdamW's β₁ and β₂.
    pub betas: (f64, f64),
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm; larger gradients are scaled down to it.
    pub clip: f64,
    /// Solver steps k of a walk (FW and hybrid).
    pub walk: usize,
    /// Solver of a walk (FW and hybrid).
    pub solver: Method,
    /// Weight of the FM term (hybrid).
    pub alpha: f64,
    /// Weight of the KL of the next token, added to whatever the algorithm is.
    pub kl_weight: f64,
    /// Steps k of the integration that losses of the next token are taken through.
    pub kl_steps: usize,
    /// Solver of that integration.
    pub kl_solver: Method,
    /// Format that the field's branches are computed in; as the field has it when None.
    pub dtype: Option<DType>,
    /// Parts that a batch is computed in, one after the other.
    pub accumulate: usize,
    /// Decay of an average of the weights, which replaces them at the end.
    pub ema: Option<f64>,
    /// Whether activations of the field are computed again in the backward pass instead of being kept.
    pub recompute: bool,
    /// Seed of the times that are drawn.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            curriculum: Objective::Fw.into(),
            steps: 1000,
            lr: 1e-3,
            warmup: 100,
            final_lr: 0.02,
            optimizer: Rule::AdamW,
            betas: (0.9, 0.95),
            weight_decay: 0.0,
            clip: 1.0,
            walk: 3,
            solver: Method::Midpoint,
            alpha: 0.1,
            kl_weight: 0.0,
            kl_steps: 1,
            kl_solver: Method::Midpoint,
            dtype: None,
            accumulate: 1,
            ema: None,
            recompute: false,
            seed: 0,
        }
    }
}

impl Options {
    /// Checks every number.
    ///
    /// # Errors
    /// Names the first option outside its range.
    pub fn validate(&self) -> Result<()> {
        check::positive("lr", self.lr)?;
        check::positive("clip", self.clip)?;
        self.adamw().validate()?;
        ensure!(
            (0.0..=1.0).contains(&self.final_lr),
            "final_lr = {}, but it must lie in 0..1",
            self.final_lr
        );
        check::not_negative("alpha", self.alpha)?;
        check::not_negative("kl_weight", self.kl_weight)?;
        ensure!(self.kl_steps >= 1, "kl_steps = 0, but an integration needs at least one step");
        ensure!(self.accumulate >= 1, "accumulate = 0, but a batch has at least one part");
        ensure!(self.walk >= 1, "walk = 0, but a walk needs at least one step");
        ensure!(self.steps >= 1, "steps = 0, but training needs at least one step");
        Ok(())
    }

    /// The objective of a step, counted from 0.
    pub fn objective(&self, step: usize) -> Objective {
        self.curriculum.objective(step, self.steps)
    }

    /// Whether a step, counted from 0, compares the student's logits with the teacher's.
    pub fn compares_logits(&self, step: usize) -> bool {
        self.kl_weight > 0.0 || self.objective(step) == Objective::Kl
    }

    /// Whether every step has a loss of the next token.
    pub(super) fn always_integrates(&self) -> bool {
        self.kl_weight > 0.0
            || self.curriculum.objectives().all(|o| matches!(o, Objective::Kl | Objective::Lm))
    }

    /// What tables call this training: `fw`, `fw+kl`, `fm:0.3,kl:0.7`.
    pub fn label(&self) -> String {
        let walks = self.curriculum.objectives().any(|objective| objective != Objective::Kl);
        format!("{}{}", self.curriculum, if walks && self.kl_weight > 0.0 { "+kl" } else { "" })
    }

    /// The part that concerns the optimizer.
    pub(super) fn adamw(&self) -> AdamWOptions {
        AdamWOptions { betas: self.betas, weight_decay: self.weight_decay, ..AdamWOptions::default() }
    }
}
