//! What the steps of a training learn from.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Tensor;

use crate::data::{Ahead, LatentBatch, LatentCache};

/// What one step learns from.
#[derive(Debug)]
pub enum Lesson {
    /// (B, T): tokens that the teacher is to read.
    Tokens(Tensor),
    /// What it made of some tokens earlier, at these boundaries.
    Latents(Vec<usize>, LatentBatch),
}

/// All lessons of a training. Which one a step takes depends on the seed and the step alone.
pub enum Lessons {
    /// Windows of a text.
    Text(Ahead),
    /// Windows of a cache.
    Latents {
        /// The cache.
        cache: Arc<LatentCache>,
        /// Windows in a batch.
        batch: usize,
        /// Decides the order.
        seed: u64,
    },
}

impl Lessons {
    /// Tokens of one step.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Text(ahead) => {
                let (batch, length) = ahead.sampler().shape();
                batch * length
            }
            Self::Latents { cache, batch, .. } => batch * cache.plan.seq_len,
        }
    }

    /// The lesson of a step, counted from 0.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn of(&self, step: usize) -> Result<Lesson> {
        match self {
            Self::Text(ahead) => Ok(Lesson::Tokens(ahead.tensor(step)?)),
            Self::Latents { cache, batch, seed } => {
                let boundaries = cache.plan.boundaries.clone();
                Ok(Lesson::Latents(boundaries, cache.batch(step as u64, *batch, *seed)?))
            }
        }
    }

    /// Describes the data, for the fingerprint of a training.
    pub fn describe(&self) -> String {
        match self {
            Self::Text(ahead) => format!("{:?}", ahead.sampler()),
            Self::Latents { cache, batch, seed } => format!("{:?} by {batch}, seed {seed}", cache.plan),
        }
    }
}
