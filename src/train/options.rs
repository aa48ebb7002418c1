//! Everything that defines a training run but its data.

use anyhow::{Result, ensure};

use super::Objective;
use crate::ode::Method;

/// Options of one student's training; the defaults are those of the reference runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The training algorithm.
    pub method: Objective,
    /// Optimizer steps.
    pub steps: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Learning rate at the end as a share of the peak, reached by a cosine.
    pub final_lr: f64,
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
    /// Seed of the times that are drawn.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            method: Objective::Fw,
            steps: 1000,
            lr: 1e-3,
            warmup: 100,
            final_lr: 0.02,
            betas: (0.9, 0.95),
            weight_decay: 0.0,
            clip: 1.0,
            walk: 3,
            solver: Method::Midpoint,
            alpha: 0.1,
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
        let positive = |name: &str, x: f64| {
            ensure!(x.is_finite() && x > 0.0, "{name} = {x}, but it must be a positive number");
            Ok(())
        };
        let share = |name: &str, x: f64| {
            ensure!((0.0..1.0).contains(&x), "{name} = {x}, but it must lie in 0 ≤ {name} < 1");
            Ok(())
        };
        positive("lr", self.lr)?;
        positive("clip", self.clip)?;
        share("beta1", self.betas.0)?;
        share("beta2", self.betas.1)?;
        ensure!(
            (0.0..=1.0).contains(&self.final_lr),
            "final_lr = {}, but it must lie in 0..1",
            self.final_lr
        );
        ensure!(
            self.weight_decay >= 0.0,
            "weight_decay = {}, but it must not be negative",
            self.weight_decay
        );
        ensure!(self.alpha >= 0.0, "alpha = {}, but it must not be negative", self.alpha);
        ensure!(self.walk >= 1, "walk = 0, but a walk needs at least one step");
        ensure!(self.steps >= 1, "steps = 0, but training needs at least one step");
        Ok(())
    }
}
