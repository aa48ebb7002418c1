//! Continuing a text token by token.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};

use super::sampler::{Sampler, Sampling};
use super::{Cache, Pythia};

/// A language model that can be asked for one token after the other.
///
/// [`Pythia`] is one; so is any model that keeps its own memory of the tokens seen, for instance a student
/// whose middle layers are a flow.
pub trait Decoder {
    /// What the model remembers of the tokens seen so far.
    type Cache;

    /// The memory before the first token.
    fn new_cache(&self) -> Self::Cache;

    /// Longest sequence in tokens, prompt and continuation together.
    fn context_length(&self) -> usize;

    /// Reads the next T tokens and predicts the one after them.
    ///
    /// # Shapes
    /// `ids` (1, T) u32, result (V), the logits of the next token.
    ///
    /// # Errors
    /// Token ids outside the vocabulary, or more tokens than the context holds.
    fn step(&self, ids: &Tensor, cache: &mut Self::Cache) -> Result<Tensor>;
}

impl Decoder for Pythia {
    type Cache = Cache;

    fn new_cache(&self) -> Cache {
        Cache::new(self.layers().len())
    }

    fn context_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn step(&self, ids: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(logits) = self.step_on_card(ids, cache)? {
            return Ok(logits);
        }
        let x = self.embed_cached(ids, cache)?;
        let x = self.run_cached(&x, 0, self.layers().len(), cache)?;
        // Only the last position predicts something new.
        Ok(self.head(&x.narrow(1, x.dim(1)? - 1, 1)?)?.flatten_all()?)
    }
}

/// Continues `prompt` and returns the new tokens; `on_token` sees each as it is chosen.
///
/// # Errors
/// An empty prompt, a prompt and `max_tokens` beyond the model's context, impossible sampling options,
/// and whatever the model or `on_token` refuses.
pub fn generate<D: Decoder>(
    model: &D,
    prompt: &[u32],
    sampling: &Sampling,
    mut on_token: impl FnMut(u32) -> Result<()>,
) -> Result<Vec<u32>> {
    let mut sampler = Sampler::new(sampling)?;
    let (given, asked, context) = (prompt.len(), sampling.max_tokens, model.context_length());
    ensure!(given > 0, "the prompt is empty: generation needs at least one token to continue");
    ensure!(given <= context, "the prompt has {given} tokens, more than the model's context of {context}");
    ensure!(
        asked <= context - given,
        "a prompt of {given} tokens and max_tokens {asked} exceed the model's context of {context}; \
         max_tokens can be at most {}",
        context - given
    );
    let mut cache = model.new_cache();
    let mut unread = prompt.to_vec();
    let mut chosen = Vec::new();
    while chosen.len() < asked {
        let ids = Tensor::from_slice(&unread, (1, unread.len()), &Device::Cpu)?;
        let logits = model.step(&ids, &mut cache)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let token = sampler.choose(&logits)?;
        on_token(token)?;
        chosen.push(token);
        if sampling.stop_at == Some(token) {
            break;
        }
        unread = vec![token];
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pythia::Config;

    /// Predicts the successor of the last token, modulo 5.
    struct Counter;

    impl Decoder for Counter {
        type Cache = Vec<u32>;

        fn new_cache(&self) -> Vec<u32> {
            Vec::new()
        }

        fn context_length(&self) -> usize {
            12
        }

        fn step(&self, ids: &Tensor, seen: &mut Vec<u32>) -> Result<Tensor> {
            seen.extend(ids.flatten_all()?.to_vec1::<u32>()?);
            let next = (seen[seen.len() - 1] + 1) % 5;
            let logits: Vec<f32> = (0..5).map(|id| if id == next { 1.0 } else { 0.0 }).collect();
            Ok(Tensor::from_vec(logits, 5, &Device::Cpu)?)
        }
    }

    fn greedy(max_tokens: usize, stop_at: Option<u32>) -> Sampling {
        Sampling { max_tokens, stop_at, ..Sampling::default() }
    }

    #[test]
    fn any_decoder_can_be_driven() {
        let mut heard = Vec::new();
        let tokens = generate(&Counter, &[1, 2], &greedy(4, None), |token| {
            heard.push(token);
            Ok(())
        });
        assert_eq!(tokens.unwrap(), [3, 4, 0, 1]);
        assert_eq!(heard, [3, 4, 0, 1]);
    }

    #[test]
    fn stops_at_the_end_of_text() {
        assert_eq!(generate(&Counter, &[2], &greedy(9, Some(0)), |_| Ok(())).unwrap(), [3, 4, 0]);
        assert_eq!(generate(&Counter, &[2], &greedy(0, None), |_| Ok(())).unwrap(), [0u32; 0]);
    }

    #[test]
    fn says_what_does_not_fit_the_context() {
        let refusal =
            |prompt: &[u32], max| generate(&Counter, prompt, &greedy(max, None), |_| Ok(())).unwrap_err();
        assert!(refusal(&[], 1).to_string().contains("the prompt is empty"));
        assert!(refusal(&[1; 13], 0).to_string().contains("13 tokens, more than the model's context of 12"));
        assert!(refusal(&[1; 10], 3).to_string().contains("max_tokens can be at most 2"));
    }

    #[test]
    fn an_error_of_the_listener_ends_the_loop() {
        let stopped = generate(&Counter, &[1], &greedy(4, None), |_| anyhow::bail!("enough"));
        assert_eq!(stopped.unwrap_err().to_string(), "enough");
    }

    #[test]
    fn sampled_text_depends_only_on_the_seed() {
        let config = Config {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            vocab_size: 50,
            initializer_range: 0.5,
            ..Config::default()
        };
        let model = Pythia::random(config, 3, DType::F32, &Device::Cpu).unwrap();
        let text = |seed| {
            let sampling = Sampling { temperature: Some(1.5), seed, ..greedy(24, None) };
            generate(&model, &[1, 2, 3], &sampling, |_| Ok(())).unwrap()
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }
}
