//! Seeded random windows for training.

use std::sync::Arc;

use anyhow::{Result, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::check_window;
use super::corpus::TokenSet;

/// Batches of random windows. What a step reads depends on the seed and the step alone, so that a resumed
/// training, or one that looks at steps in another order, sees the same data.
#[derive(Debug, Clone)]
pub struct Sampler {
    corpus: Arc<TokenSet>,
    seq_len: usize,
    batch: usize,
    seed: u64,
}

impl Sampler {
    /// # Errors
    /// A corpus shorter than `seq_len` tokens; `seq_len` or `batch` of 0.
    pub fn new(corpus: Arc<TokenSet>, seq_len: usize, batch: usize, seed: u64) -> Result<Self> {
        check_window(corpus.tokens.len(), seq_len)?;
        if batch == 0 {
            bail!("batch must be at least 1, not 0");
        }
        Ok(Sampler { corpus, seq_len, batch, seed })
    }

    /// The shape of a batch: (batch, seq_len).
    pub fn shape(&self) -> (usize, usize) {
        (self.batch, self.seq_len)
    }

    /// The windows of one step, each starting at a position drawn uniformly and with replacement.
    ///
    /// # Shapes
    /// (batch, seq_len), row-major.
    pub fn batch(&self, step: u64) -> Vec<u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(step);
        let last_start = self.corpus.tokens.len() - self.seq_len;
        let mut ids = Vec::with_capacity(self.batch * self.seq_len);
        for _ in 0..self.batch {
            let start = rng.random_range(0..=last_start);
            ids.extend_from_slice(&self.corpus.tokens[start..start + self.seq_len]);
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counting(n: u32) -> Arc<TokenSet> {
        Arc::new(TokenSet { tokens: (0..n).collect(), documents: 1, bytes: 0 })
    }

    #[test]
    fn impossible_windows_are_explained_with_numbers() {
        let message = |seq_len, batch| Sampler::new(counting(10), seq_len, batch, 0).unwrap_err().to_string();
        assert!(message(11, 1).contains("10 tokens") && message(11, 1).contains("seq_len = 11"));
        assert!(message(0, 1).contains("seq_len must be at least 1"));
        assert!(message(5, 0).contains("batch must be at least 1"));
        assert_eq!(Sampler::new(counting(10), 10, 2, 0).unwrap().batch(7).len(), 20);
    }

    #[test]
    fn every_position_is_drawn() {
        let sampler = Sampler::new(counting(10), 4, 8, 3).unwrap();
        let mut starts: Vec<u32> = (0..40).flat_map(|step| sampler.batch(step)).step_by(4).collect();
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts, (0..=6).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn batches_are_windows_and_a_function_of_seed_and_step(
            n in 1u32..500, part in 0.0..1.0f64, batch in 1usize..9, seed: u64, step: u64,
        ) {
            let seq_len = 1 + (part * f64::from(n - 1)) as usize;
            let sampler = Sampler::new(counting(n), seq_len, batch, seed).unwrap();
            sampler.batch(step.wrapping_add(1));
            let ids = sampler.batch(step);
            prop_assert_eq!(ids.len(), batch * seq_len);
            for window in ids.chunks(seq_len) {
                prop_assert!(window.windows(2).all(|pair| pair[1] == pair[0] + 1));
            }
            prop_assert_eq!(&ids, &Sampler::new(counting(n), seq_len, batch, seed).unwrap().batch(step));
        }

        #[test]
        fn steps_and_seeds_differ(seed: u64, step: u64) {
            let batch = |seed, step| Sampler::new(counting(1 << 20), 1, 4, seed).unwrap().batch(step);
            prop_assert_ne!(batch(seed, step), batch(seed, step.wrapping_add(1)));
            prop_assert_ne!(batch(seed, step), batch(seed.wrapping_add(1), step));
        }
    }
}
