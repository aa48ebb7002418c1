//! One student's training, step by step.

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{AdamW, MOMENTUM, Muon, Optimizer, Options, Rule, Schedule, Targets};
use crate::flow::Student;

/// What one optimizer step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: usize,
    /// The objective on this step's batch, before the update.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate used.
    pub lr: f64,
}

/// The stream that a step, counted from 1, draws its times from: a function of seed and step alone.
pub fn draws(seed: u64, step: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(step);
    rng
}

/// Trains one student on latents that it is given.
pub struct Trainer {
    /// The student.
    pub student: Student,
    /// Its options.
    pub options: Options,
    schedule: Schedule,
    optimizer: Box<dyn Optimizer + Send>,
    step: usize,
}

impl Trainer {
    /// A trainer at step 0.
    ///
    /// # Errors
    /// If an option lies outside its range.
    pub fn new(student: Student, options: Options) -> Result<Self> {
        options.validate()?;
        let learned = student.velocity.extras().learn_times;
        ensure!(
            learned == 0 || (learned == options.kl_steps && options.always_integrates()),
            "the field's learn_times = {learned} is trained by losses of the next token through as many steps: set \
             kl_steps = {learned}, and kl_weight or the methods kl and lm for the whole training"
        );
        let parameters = student.velocity.parameters();
        let optimizer: Box<dyn Optimizer + Send> = match options.optimizer {
            Rule::AdamW => Box::new(AdamW::new(parameters, options.adamw())?),
            Rule::Muon => Box::new(Muon::new(parameters, MOMENTUM, options.adamw())?),
        };
        Ok(Self { schedule: Schedule::new(&options), optimizer, step: 0, student, options })
    }

    /// One step on what the teacher made of a batch. Which times it draws depends on the seed and the step alone.
    ///
    /// # Errors
    /// If the loss or a gradient is not finite; the weights are then those of the last good step.
    pub fn step(&mut self, targets: &Targets) -> Result<StepReport> {
        let objective = self.options.objective(self.step);
        let number = self.step + 1;
        let mut rng = draws(self.options.seed, number as u64);
        let loss = objective.loss(&self.student, targets, &self.options, &mut rng)?;
        let value = f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?);
        let diverged = || {
            format!(
                "{objective} diverged at step {number}: the weights are kept as they were after step {}; \
                 a smaller lr (now {:?}) or clip (now {:?}) may help",
                self.step, self.options.lr, self.options.clip
            )
        };
        ensure!(value.is_finite(), "the loss is {value}: {}", diverged());
        let gradients = loss.backward()?;
        let lr = self.schedule.lr(self.step);
        let grad_norm =
            self.optimizer.step(&gradients, lr, Some(self.options.clip)).with_context(diverged)?;
        self.step = number;
        Ok(StepReport { step: number, loss: value, grad_norm, lr })
    }
}
