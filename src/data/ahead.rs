//! Preparing the next batch while the caller works on this one.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Result;
use candle_core::Tensor;

use super::Sampler;

/// The batches of a sampler. Whoever takes that of one step finds that of the next one ready.
pub struct Ahead {
    sampler: Sampler,
    next: Mutex<Option<(u64, JoinHandle<Vec<u32>>)>>,
}

impl Ahead {
    /// The batches of `sampler`.
    pub fn of(sampler: Sampler) -> Self {
        Self { sampler, next: Mutex::new(None) }
    }

    /// Where they come from.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// [`Sampler::batch`], in any order of steps.
    pub fn batch(&self, step: u64) -> Vec<u32> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = next.take().filter(|(at, _)| *at == step).and_then(|(_, work)| work.join().ok());
        let batch = ready.unwrap_or_else(|| self.sampler.batch(step));
        let sampler = self.sampler.clone();
        // Without a thread the next batch is made when it is asked for.
        let work = thread::Builder::new().spawn(move || sampler.batch(step + 1));
        *next = work.ok().map(|work| (step + 1, work));
        batch
    }

    /// [`Sampler::tensor`], in any order of steps.
    ///
    /// # Errors
    /// As there.
    pub fn tensor(&self, step: usize) -> Result<Tensor> {
        self.sampler.shaped(self.batch(step as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::TokenSet;

    #[test]
    fn batches_are_the_samplers_in_any_order_of_steps() -> anyhow::Result<()> {
        let corpus = Arc::new(TokenSet { tokens: (0..500).collect(), documents: 1, bytes: 0 });
        let sampler = Sampler::new(corpus, 7, 3, 11)?;
        let ahead = Ahead::of(sampler.clone());
        for step in [0, 1, 2, 5, 6, 3, 3, 4] {
            assert_eq!(ahead.batch(step), sampler.batch(step), "step {step}");
        }
        Ok(())
    }
}
