//! One student's training, step by step.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Descent, Entry, Options, Schedule, Targets};
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
    descent: Descent,
}

impl Trainer {
    /// A trainer at step 0.
    ///
    /// # Errors
    /// If an option lies outside its range.
    pub fn new(mut student: Student, options: Options) -> Result<Self> {
        options.validate()?;
        if let Some(dtype) = options.dtype {
            student.velocity = Arc::new(student.velocity.computing_in(dtype)?);
        }
        let learned = student.velocity.extras().learn_times;
        ensure!(
            learned == 0 || (learned == options.kl_steps && options.always_integrates()),
            "the field's learn_times = {learned} is trained by losses of the next token through as many steps: set \
             kl_steps = {learned}, and kl_weight or the methods kl and lm for the whole training"
        );
        let parameters = student.velocity.parameters();
        let optimizer = options.optimizer.of(parameters, |_| true, options.adamw())?;
        let schedule = Schedule::new(&options);
        let descent = Descent::new(parameters.to_vec(), optimizer, schedule, options.clip, options.ema)?;
        Ok(Self { student, options, descent })
    }

    /// One step on what the teacher made of a batch. Which times it draws depends on the seed and the step alone.
    ///
    /// # Errors
    /// If the loss or a gradient is not finite; the weights are then those of the last good step.
    pub fn step(&mut self, targets: &Targets) -> Result<Entry> {
        let taken = self.steps_taken();
        let objective = self.options.objective(taken);
        let (batch, parts) = (targets.x0.dim(0)?, self.options.accumulate);
        ensure!(
            batch.is_multiple_of(parts),
            "accumulate = {parts} does not divide the batch of {batch} windows"
        );
        let mut rng = draws(self.options.seed, taken as u64 + 1);
        let mut part = |part: usize| {
            let targets = targets.part(part * (batch / parts), batch / parts)?;
            let loss = objective.loss(&self.student, &targets, &self.options, &mut rng)?;
            let loss = if parts > 1 { (loss / parts as f64)? } else { loss };
            // A card waits for nothing while it is told what to do; reading the loss waits for the card.
            let gradients = loss.backward()?;
            anyhow::Ok((f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?), gradients))
        };
        let (mut loss, mut gradients) = part(0)?;
        for i in 1..parts {
            let (more, other) = part(i)?;
            loss += more;
            gradients.extend(other)?;
        }
        self.descent.update(loss, &gradients).with_context(|| format!("training with {objective}"))
    }

    /// Steps taken.
    pub fn steps_taken(&self) -> usize {
        self.descent.history().len()
    }

    /// Replaces the weights by their average, where one is kept.
    ///
    /// # Errors
    /// When memory is short.
    pub fn finish(&self) -> Result<()> {
        self.descent.finish()
    }

    /// What it carries from step to step.
    pub fn descent(&self) -> &Descent {
        &self.descent
    }

    /// The same, to go on from a checkpoint.
    pub fn descent_mut(&mut self) -> &mut Descent {
        &mut self.descent
    }

    /// Describes the training but for its data.
    pub fn fingerprint(&self) -> String {
        let Student { teacher, velocity, block } = &self.student;
        format!("{:?} block {block} {:?} {:?}", self.options, velocity.extras(), teacher.config)
    }
}
