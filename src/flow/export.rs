//! Unrolling is export: a student with k Euler steps as an ordinary model with k layers in the block's place.

use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::Tensor;

use super::{Integration, Student, equal_times};
use crate::ode::Method;
use crate::pythia::{Layer, Pythia};

impl Student {
    /// The student with its flow unrolled: the teacher's layers 0..m, one ordinary layer for each Euler step,
    /// the teacher's layers n..L. Its logits are the student's.
    ///
    /// # Errors
    /// Another solver than Euler, an adaptive number of steps, and a sequential teacher unless k = 1.
    pub fn unroll(&self, integration: &Integration) -> Result<Pythia> {
        let method = integration.method;
        ensure!(
            method == Method::Euler,
            "a step of {method} evaluates the flow more than once and adds up the results, which no single layer \
             does: only Euler steps unroll. Evaluate the student with solver = \"euler\" to see what that costs, or \
             train it through Euler steps (method = \"kl\", kl_solver = \"euler\", kl_steps = k)"
        );
        let k = integration.steps.unwrap_or(0);
        let times = match self.velocity.learned_times(k) {
            Some(times) => times?,
            None => equal_times(k, self.teacher.device())?,
        };
        let dtype = self.teacher.dtype();
        let step = |interval: &[Tensor]| -> Result<Layer> {
            let length = (&interval[1] - &interval[0])?;
            let layer = self.velocity.folded(&interval[0], &length)?;
            // Copies, because the field's own weights may be trained further.
            Ok(layer.map(&mut |weight| weight.detach().to_dtype(dtype)?.copy())?)
        };
        let layers = self.teacher.layers();
        let mut unrolled = layers[..self.block.m].to_vec();
        for interval in times.windows(2) {
            unrolled.push(step(interval)?);
        }
        unrolled.extend_from_slice(&layers[self.block.n..]);
        Ok(self.teacher.with_layers(unrolled))
    }

    /// Writes the unrolled student as a Hugging Face folder with configuration and tokenizer. Weights beyond
    /// `shard_bytes` are split over several files with an index.
    ///
    /// # Errors
    /// Those of [`unroll`](Self::unroll), and a folder that cannot be written.
    pub fn export(&self, folder: &Path, integration: &Integration, shard_bytes: usize) -> Result<Pythia> {
        let unrolled = self.unroll(integration)?;
        unrolled.save_sharded(folder, shard_bytes)?;
        Ok(unrolled)
    }
}
