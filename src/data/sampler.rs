//! Seeded windows for training.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::permutation::{Permutation, mix};
use super::spans::Spans;
use super::{Tokens, check_window};

/// In which order a training sees the windows of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Every window starts at a position drawn uniformly and with replacement.
    Random,
    /// Epoch after epoch, every window once in a new shuffled order. Windows lie side by side; where the first one
    /// starts is drawn anew for each epoch.
    Shuffled,
}

impl FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "random" => Ok(Self::Random),
            "shuffled" => Ok(Self::Shuffled),
            _ => bail!("unknown order '{name}': it is 'random' or 'shuffled'"),
        }
    }
}

/// Batches of windows. What a step reads depends on the seed and the step alone, so that a resumed
/// training, or one that looks at steps in another order, sees the same data.
#[derive(Clone)]
pub struct Sampler {
    corpus: Arc<dyn Tokens>,
    seq_len: usize,
    /// Tokens read of a window: `seq_len`, or one more.
    length: usize,
    batch: usize,
    seed: u64,
    order: Order,
    /// Where windows may lie; anywhere when None.
    spans: Option<Arc<Spans>>,
}

impl Sampler {
    /// Windows at random; [`Sampler::ordered`] changes that.
    ///
    /// # Errors
    /// A corpus shorter than `seq_len` tokens; `seq_len` or `batch` of 0.
    pub fn new(corpus: Arc<dyn Tokens>, seq_len: usize, batch: usize, seed: u64) -> Result<Self> {
        check_window(corpus.len(), seq_len)?;
        if batch == 0 {
            bail!("batch must be at least 1, not 0");
        }
        Ok(Sampler { corpus, seq_len, length: seq_len, batch, seed, order: Order::Random, spans: None })
    }

    /// The same windows in another order.
    #[must_use]
    pub fn ordered(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// Each window with the token that follows its last, as training on the next token needs.
    ///
    /// # Errors
    /// A corpus of just one window.
    pub fn predicting(self) -> Result<Self> {
        check_window(self.corpus.len(), self.seq_len + 1)?;
        Ok(Self { length: self.seq_len + 1, ..self })
    }

    /// The same but that windows run over no document's end. To be called behind [`Sampler::predicting`].
    ///
    /// # Errors
    /// Those of [`Spans::new`].
    pub fn within_documents(self) -> Result<Self> {
        let spans = Spans::new(self.corpus.as_ref(), self.length, self.seq_len)?;
        Ok(Self { spans: Some(Arc::new(spans)), ..self })
    }

    /// The shape of a batch: (batch, seq_len), or (batch, seq_len + 1) where the next token is read too.
    pub fn shape(&self) -> (usize, usize) {
        (self.batch, self.length)
    }

    /// The windows of one step as token ids on the CPU.
    ///
    /// # Shapes
    /// as [`Sampler::shape`].
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn tensor(&self, step: u64) -> Result<Tensor> {
        self.shaped(self.batch(step))
    }

    /// Ids that [`Sampler::batch`] gave, with their shape.
    pub(super) fn shaped(&self, ids: Vec<u32>) -> Result<Tensor> {
        Ok(Tensor::from_vec(ids, self.shape(), &Device::Cpu)?)
    }

    /// The windows of one step.
    ///
    /// # Shapes
    /// as [`Sampler::shape`], row-major.
    pub fn batch(&self, step: u64) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.batch * self.length);
        match self.order {
            Order::Random => {
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                rng.set_stream(step);
                for _ in 0..self.batch {
                    let start = match &self.spans {
                        Some(spans) => spans.start(rng.random_range(0..spans.count())),
                        None => rng.random_range(0..=self.corpus.len() - self.length),
                    };
                    self.corpus.read(start, self.length, &mut ids);
                }
            }
            Order::Shuffled => {
                let first = step.wrapping_mul(self.batch as u64);
                for row in 0..self.batch as u64 {
                    self.corpus.read(self.shuffled(first.wrapping_add(row)), self.length, &mut ids);
                }
            }
        }
        ids
    }

    /// Where the `index`-th window of a shuffled training starts.
    fn shuffled(&self, index: u64) -> usize {
        if let Some(spans) = &self.spans {
            let count = spans.count();
            return spans.start(Permutation::new(count, self.seed, index / count).at(index % count));
        }
        let spare = self.corpus.len() - self.length;
        // As many in every epoch, whatever its offset.
        let count = ((spare + 1) / self.seq_len).max(1) as u64;
        let (epoch, within) = (index / count, index % count);
        let room = spare - (count as usize - 1) * self.seq_len;
        let offset = mix(mix(self.seed ^ 0x6f66_6673_6574) ^ epoch) % (room as u64 + 1);
        let window = Permutation::new(count, self.seed, epoch).at(within);
        offset as usize + window as usize * self.seq_len
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (batch, length) = self.shape();
        let tokens = self.corpus.len();
        let within = if self.spans.is_some() { " within documents" } else { "" };
        write!(
            f,
            "Sampler({batch} × {length} of {tokens} tokens{within}, {:?}, seed {})",
            self.order, self.seed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::TokenSet;
    use proptest::prelude::*;

    /// Documents of these lengths.
    struct Cut(Vec<u32>);

    impl Tokens for Cut {
        fn len(&self) -> usize {
            self.0.iter().sum::<u32>() as usize
        }

        fn documents(&self) -> usize {
            self.0.len()
        }

        fn read(&self, start: usize, count: usize, out: &mut Vec<u32>) {
            let documents = self.0.iter().zip(0..);
            let tokens: Vec<u32> = documents.flat_map(|(length, i)| i * 1000..i * 1000 + length).collect();
            out.extend_from_slice(&tokens[start..start + count]);
        }

        fn document_lengths(&self) -> Option<Vec<u32>> {
            Some(self.0.clone())
        }
    }

    fn counting(n: u32) -> Arc<TokenSet> {
        Arc::new(TokenSet { tokens: (0..n).collect(), documents: 1, bytes: 0 })
    }

    #[test]
    fn impossible_windows_are_explained_with_numbers() {
        let message = |seq_len, batch| Sampler::new(counting(10), seq_len, batch, 0).unwrap_err().to_string();
        assert!(message(11, 1).contains("10 tokens") && message(11, 1).contains("seq_len = 11"));
        assert!(message(0, 1).contains("seq_len must be at least 1"));
        assert!(message(5, 0).contains("batch must be at least 1"));
        let whole = Sampler::new(counting(10), 10, 2, 0).unwrap();
        assert_eq!(whole.batch(7).len(), 20);
        assert!(whole.predicting().unwrap_err().to_string().contains("seq_len = 11"));
        assert!("shuffle".parse::<Order>().unwrap_err().to_string().contains("'shuffled'"));
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
            n in 2u32..500, part in 0.0..1.0f64, batch in 1usize..9, seed: u64, step: u64,
            shuffled: bool, predicting: bool,
        ) {
            let seq_len = 1 + (part * f64::from(n - 2)) as usize;
            let sampler = || {
                let order = if shuffled { Order::Shuffled } else { Order::Random };
                let sampler = Sampler::new(counting(n), seq_len, batch, seed).unwrap().ordered(order);
                if predicting { sampler.predicting().unwrap() } else { sampler }
            };
            let first = sampler();
            first.batch(step.wrapping_add(1));
            let ids = first.batch(step);
            let (_, length) = first.shape();
            prop_assert_eq!(ids.len(), batch * length);
            for window in ids.chunks(length) {
                prop_assert!(window.windows(2).all(|pair| pair[1] == pair[0] + 1));
            }
            prop_assert_eq!(&ids, &sampler().batch(step));
        }

        #[test]
        fn an_epoch_reads_every_window_once(n in 1u32..400, part in 0.0..1.0f64, seed: u64, epoch in 0u64..4) {
            let seq_len = 1 + (part * f64::from(n - 1)) as usize;
            let sampler = Sampler::new(counting(n), seq_len, 1, seed).unwrap().ordered(Order::Shuffled);
            let count = (n as usize - seq_len + 1).div_euclid(seq_len).max(1) as u64;
            let mut seen: Vec<u32> =
                (epoch * count..(epoch + 1) * count).flat_map(|step| sampler.batch(step)).collect();
            seen.sort_unstable();
            let tokens = seen.len();
            seen.dedup();
            prop_assert_eq!(seen.len(), tokens);
            prop_assert!(n as usize - tokens < 2 * seq_len, "{} of {} tokens", tokens, n);
        }

        #[test]
        fn windows_within_documents_cross_no_end(
            lengths in prop::collection::vec(1u32..30, 1..20), seq_len in 1usize..8, seed: u64, shuffled: bool,
        ) {
            let corpus = Arc::new(Cut(lengths.clone()));
            let order = if shuffled { Order::Shuffled } else { Order::Random };
            let sampler = Sampler::new(corpus, seq_len, 1, seed);
            let Ok(sampler) = sampler.and_then(Sampler::predicting).and_then(Sampler::within_documents) else {
                prop_assert!(lengths.iter().all(|&length| (length as usize) < seq_len + 1) || lengths.len() == 1
                    || lengths.iter().sum::<u32>() as usize <= seq_len);
                return Ok(());
            };
            let sampler = sampler.ordered(order);
            let count: usize = lengths.iter().map(|&length| (length as usize - 1) / seq_len).sum();
            let mut starts = Vec::new();
            for step in 0..count as u64 {
                let window = sampler.batch(step);
                prop_assert_eq!(window.len(), seq_len + 1);
                // Tokens of a document count up from a thousand times its number.
                prop_assert!(window.windows(2).all(|pair| pair[1] == pair[0] + 1), "{:?}", window);
                starts.push(window[0]);
            }
            starts.sort_unstable();
            starts.dedup();
            prop_assert!(!shuffled || starts.len() == count);
        }

        #[test]
        fn steps_and_seeds_differ(seed: u64, step in 0u64..1000) {
            for order in [Order::Random, Order::Shuffled] {
                let batch = |seed, step| {
                    Sampler::new(counting(1 << 20), 1, 4, seed).unwrap().ordered(order).batch(step)
                };
                prop_assert_ne!(batch(seed, step), batch(seed, step + 1));
                prop_assert_ne!(batch(seed, step), batch(seed.wrapping_add(1), step));
            }
        }
    }
}
