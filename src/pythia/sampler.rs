//! Choosing the next token.

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How to continue a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Tokens to produce at most.
    pub max_tokens: usize,
    /// Divides the logits; none or 0 takes the most likely token (greedy).
    pub temperature: Option<f64>,
    /// Draw only from the k most likely tokens.
    pub top_k: Option<usize>,
    /// Draw only from the smallest set of most likely tokens whose probabilities reach p (nucleus).
    pub top_p: Option<f64>,
    /// Seed of the draws.
    pub seed: u64,
    /// Token that ends the text; it is the last one returned.
    pub stop_at: Option<u32>,
}

impl Default for Sampling {
    /// 128 greedy tokens.
    fn default() -> Self {
        Self { max_tokens: 128, temperature: None, top_k: None, top_p: None, seed: 0, stop_at: None }
    }
}

/// Draws tokens as a [`Sampling`] asks; the same seed and logits give the same tokens on every machine.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// Checks the options and starts the random stream.
    ///
    /// # Errors
    /// A negative or non-finite temperature, `top_k` 0, `top_p` outside (0, 1].
    pub fn new(sampling: &Sampling) -> Result<Self> {
        let temperature = sampling.temperature.unwrap_or(0.0);
        ensure!(
            temperature.is_finite() && temperature >= 0.0,
            "temperature is {temperature}, but must be at least 0"
        );
        ensure!(sampling.top_k != Some(0), "top_k is 0, but must be at least 1");
        if let Some(p) = sampling.top_p {
            ensure!(p > 0.0 && p <= 1.0, "top_p is {p}, but must be greater than 0 and at most 1");
        }
        let rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        Ok(Self { temperature, top_k: sampling.top_k, top_p: sampling.top_p, rng })
    }

    /// Chooses a token: temperature first, then top-k, then top-p among what is left.
    ///
    /// # Errors
    /// Logits that are empty, NaN or infinitely large.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        ensure!(!logits.is_empty(), "there are no logits to choose from");
        let largest = first_largest(logits)
            .context("the model's logits hold NaN or infinity, so no token can be chosen")?;
        if self.temperature == 0.0 {
            return Ok(largest as u32);
        }
        // Descending by logit, equal ones by id, so that ties do not depend on the sort.
        let mut order: Vec<usize> = (0..logits.len()).collect();
        let descending = |&i: &usize, &j: &usize| logits[j].total_cmp(&logits[i]).then(i.cmp(&j));
        if let Some(k) = self.top_k.filter(|&k| k < order.len()) {
            order.select_nth_unstable_by(k, descending);
            order.truncate(k);
        }
        order.sort_unstable_by(descending);
        let most = logits[order[0]];
        let mut weights: Vec<f64> =
            order.iter().map(|&i| (f64::from(logits[i] - most) / self.temperature).exp()).collect();
        if let Some(p) = self.top_p {
            weights.truncate(nucleus(&weights, p));
        }
        Ok(order[self.draw(&weights)] as u32)
    }

    /// An index with probability proportional to its weight.
    fn draw(&mut self, weights: &[f64]) -> usize {
        let mut left = self.rng.random::<f64>() * weights.iter().sum::<f64>();
        for (i, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return i;
            }
        }
        // Rounding can leave a sliver; it belongs to the most likely token.
        0
    }
}

/// The first index of the largest logit; `None` where one is NaN or infinitely large.
fn first_largest(logits: &[f32]) -> Option<usize> {
    const BLOCK: usize = 64;
    let (mut first, mut largest) = (0, f32::NEG_INFINITY);
    for (i, block) in logits.chunks(BLOCK).enumerate() {
        // Few blocks hold anything larger. This has no early end, so that many are compared at a time.
        if !block.iter().fold(false, |any, logit| any | (*logit > largest) | logit.is_nan()) {
            continue;
        }
        for (j, &logit) in block.iter().enumerate() {
            if logit.is_nan() || logit == f32::INFINITY {
                return None;
            }
            if logit > largest {
                (first, largest) = (i * BLOCK + j, logit);
            }
        }
    }
    Some(first)
}

/// How many of the descending weights it takes to reach the share `p` of their sum.
fn nucleus(weights: &[f64], p: f64) -> usize {
    let goal = p * weights.iter().sum::<f64>();
    let mut reached = 0.0;
    let before_goal = weights.iter().take_while(|&&weight| {
        let before = reached < goal;
        reached += weight;
        before
    });
    before_goal.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of the probabilities ½, ¼, ⅛, ⅛ in another order.
    const LOGITS: [f32; 4] = [-2.079_441_5, -std::f32::consts::LN_2, -2.079_441_5, -1.386_294_4];

    fn sampling(temperature: f64) -> Sampling {
        Sampling { temperature: Some(temperature), ..Sampling::default() }
    }

    fn frequencies(sampling: Sampling) -> [f64; 4] {
        let mut sampler = Sampler::new(&sampling).unwrap();
        let mut counts = [0.0; 4];
        for _ in 0..40_000 {
            counts[sampler.choose(&LOGITS).unwrap() as usize] += 1.0 / 40_000.0;
        }
        counts
    }

    fn assert_close(found: [f64; 4], expected: [f64; 4]) {
        for (f, e) in found.iter().zip(expected) {
            // Four standard errors of a frequency over 40,000 draws are at most 0.01.
            assert!(
                (f - e).abs() < 0.01 && (*f == 0.0) == (e == 0.0),
                "{found:?} should be near {expected:?}"
            );
        }
    }

    #[test]
    fn zero_temperature_is_greedy_and_takes_the_first_of_equals() {
        for temperature in [None, Some(0.0)] {
            let mut sampler = Sampler::new(&Sampling { temperature, ..Sampling::default() }).unwrap();
            assert_eq!(sampler.choose(&LOGITS).unwrap(), 1);
            assert_eq!(sampler.choose(&[1.0, 3.0, 3.0]).unwrap(), 1);
            assert_eq!(sampler.choose(&[f32::NEG_INFINITY; 3]).unwrap(), 0);
        }
    }

    #[test]
    fn greedy_finds_the_first_largest_and_what_is_broken_anywhere() {
        let mut sampler = Sampler::new(&Sampling::default()).unwrap();
        for place in [0, 1, 63, 64, 65, 127, 128, 200, 300] {
            let mut logits: Vec<f32> = (0..301).map(|i| (i as f32).sin()).collect();
            logits[300] = 2.0;
            logits[place] = 2.0;
            assert_eq!(sampler.choose(&logits).unwrap(), place as u32);
            for broken in [f32::NAN, -f32::NAN, f32::INFINITY] {
                logits[place] = broken;
                assert!(sampler.choose(&logits).is_err(), "{broken} at {place}");
            }
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        assert_close(frequencies(sampling(1.0)), [0.125, 0.5, 0.125, 0.25]);
        // Temperature ½ squares the probabilities.
        assert_close(frequencies(sampling(0.5)), [1.0, 16.0, 1.0, 4.0].map(|w| w / 22.0));
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let cut = |top_k, top_p| frequencies(Sampling { top_k, top_p, ..sampling(1.0) });
        assert_close(cut(Some(2), None), [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        assert_close(cut(None, Some(0.74)), [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        assert_close(cut(None, Some(0.01)), [0.0, 1.0, 0.0, 0.0]);
        // Of the two most likely, the first alone holds ⅔ ≥ 0.6.
        assert_close(cut(Some(2), Some(0.6)), [0.0, 1.0, 0.0, 0.0]);
        assert_close(cut(Some(9), Some(1.0)), [0.125, 0.5, 0.125, 0.25]);
    }

    #[test]
    fn refuses_impossible_options_and_broken_logits() {
        let refusal = |sampling| Sampler::new(&sampling).unwrap_err().to_string();
        assert!(refusal(sampling(-1.0)).contains("temperature is -1"));
        assert!(refusal(sampling(f64::NAN)).contains("temperature is NaN"));
        assert!(refusal(Sampling { top_k: Some(0), ..Sampling::default() }).contains("top_k is 0"));
        assert!(refusal(Sampling { top_p: Some(1.5), ..Sampling::default() }).contains("top_p is 1.5"));
        let mut sampler = Sampler::new(&sampling(1.0)).unwrap();
        assert!(sampler.choose(&[0.0, f32::NAN]).unwrap_err().to_string().contains("NaN"));
        assert!(sampler.choose(&[]).is_err());
        assert_eq!(sampler.choose(&[f32::NEG_INFINITY, 0.0]).unwrap(), 1);
    }
}
