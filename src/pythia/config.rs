//! The architecture of a GPT-NeoX model.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ops::Activation;

/// Numbers and switches that define a GPT-NeoX model, named as in Hugging Face's `config.json`.
///
/// Reading accepts the old spelling (`rotary_pct`, `rotary_emb_base`, `torch_dtype`) and the new
/// (`rope_parameters`, `dtype`), fills absent keys with Hugging Face's defaults and ignores unknown ones.
/// Writing produces a file that either generation of `transformers` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Config {
    /// Residual width D.
    pub hidden_size: usize,
    /// Width of the MLP between its two projections.
    pub intermediate_size: usize,
    /// Layers L.
    pub num_hidden_layers: usize,
    /// Attention heads H; they divide D.
    pub num_attention_heads: usize,
    /// Rows V of the embedding, at least the tokenizer's size (Pythia pads it).
    pub vocab_size: usize,
    /// Longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// The eps under the square root of every layer norm.
    pub layer_norm_eps: f64,
    /// Share of each head's channels that the rotary embedding turns (`rotary_pct`, `partial_rotary_factor`).
    pub rotary_fraction: f64,
    /// Base of the rotary frequencies (`rotary_emb_base`).
    pub rope_theta: f64,
    /// Attention and MLP read the same input (Pythia) instead of one after the other.
    pub use_parallel_residual: bool,
    /// The head reuses the embedding matrix.
    pub tie_word_embeddings: bool,
    /// The attention's two projections carry biases.
    pub attention_bias: bool,
    /// Non-linearity of the MLP.
    pub hidden_act: Activation,
    /// Standard deviation of freshly drawn weight matrices.
    pub initializer_range: f64,
    /// First token of a text, where the model knows one.
    pub bos_token_id: Option<u32>,
    /// Token that ends a text, where the model knows one.
    pub eos_token_id: Option<u32>,
    /// Number format as the file states it; informative only, the weight files have the last word.
    pub dtype: Option<String>,
}

impl Default for Config {
    /// Hugging Face's defaults for absent keys (the shape of GPT-NeoX-20B).
    fn default() -> Self {
        Self {
            hidden_size: 6144,
            intermediate_size: 24576,
            num_hidden_layers: 44,
            num_attention_heads: 64,
            vocab_size: 50432,
            max_position_embeddings: 2048,
            layer_norm_eps: 1e-5,
            rotary_fraction: 0.25,
            rope_theta: 10000.0,
            use_parallel_residual: true,
            tie_word_embeddings: false,
            attention_bias: true,
            hidden_act: Activation::Gelu,
            initializer_range: 0.02,
            bos_token_id: Some(0),
            eos_token_id: Some(2),
            dtype: None,
        }
    }
}

/// Number of weights of a model and of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// All weights; tied embeddings count once.
    pub total: usize,
    /// All but the embedding and the unembedding matrix.
    pub non_embedding: usize,
    /// Weights of one layer.
    pub per_layer: usize,
}

impl Config {
    /// Channels C of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Channels of a head that the rotary frequencies are computed from, `⌊C·rotary_fraction⌋`.
    ///
    /// An odd number r is legal: `transformers` then has (r+1)/2 frequencies and turns r + 1 channels.
    pub fn rotary_dims(&self) -> usize {
        (self.head_dim() as f64 * self.rotary_fraction) as usize
    }

    /// Counts the weights: `total = V·D·(1 or 2) + L·per_layer + 2·D`.
    pub fn parameters(&self) -> Parameters {
        let (d, inner) = (self.hidden_size, self.intermediate_size);
        let attention_biases = if self.attention_bias { 4 * d } else { 0 };
        let per_layer = 4 * d + (4 * d * d + attention_biases) + (2 * d * inner + inner + d);
        let non_embedding = self.num_hidden_layers * per_layer + 2 * d;
        let matrices = if self.tie_word_embeddings { 1 } else { 2 };
        Parameters { total: matrices * self.vocab_size * d + non_embedding, non_embedding, per_layer }
    }

    /// Checks that a model with these numbers can exist.
    ///
    /// # Errors
    /// Names the first impossible key, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        // Upper bounds lie far above any published model; they keep a damaged file from
        // asking for terabytes or from overflowing the products below.
        within("hidden_size", self.hidden_size, 1 << 17)?;
        within("intermediate_size", self.intermediate_size, 1 << 20)?;
        within("num_hidden_layers", self.num_hidden_layers, 1 << 12)?;
        within("num_attention_heads", self.num_attention_heads, 1 << 12)?;
        within("vocab_size", self.vocab_size, 1 << 24)?;
        within("max_position_embeddings", self.max_position_embeddings, 1 << 20)?;
        ensure!(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "`num_attention_heads` is {}, which does not divide `hidden_size` {}",
            self.num_attention_heads,
            self.hidden_size
        );
        between("layer_norm_eps", self.layer_norm_eps, f64::MIN_POSITIVE, 1.0)?;
        between("rotary_pct (partial_rotary_factor)", self.rotary_fraction, 0.0, 1.0)?;
        between("rotary_emb_base (rope_theta)", self.rope_theta, f64::MIN_POSITIVE, 1e12)?;
        between("initializer_range", self.initializer_range, 0.0, 100.0)?;
        let turned = self.rotary_dims().next_multiple_of(2);
        ensure!(
            turned <= self.head_dim(),
            "`rotary_pct` (`partial_rotary_factor`) is {}, which turns {turned} channels of a head that has only {}; \
             an even number of at most {} is possible",
            self.rotary_fraction,
            self.head_dim(),
            self.head_dim() / 2 * 2
        );
        Ok(())
    }
}

fn within(key: &str, value: usize, most: usize) -> Result<()> {
    ensure!((1..=most).contains(&value), "`{key}` is {value}, but must lie in 1..={most}");
    Ok(())
}

fn between(key: &str, value: f64, least: f64, most: f64) -> Result<()> {
    // Written so that NaN fails too.
    let fits = value >= least && value <= most;
    let range = if least == f64::MIN_POSITIVE { "greater than 0 and" } else { "at least 0 and" };
    ensure!(fits, "`{key}` is {value}, but must be {range} at most {most}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pythia_410m() -> Config {
        Config {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            vocab_size: 50304,
            ..Config::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut Config)) -> String {
        let mut config = pythia_410m();
        change(&mut config);
        config.validate().expect_err("an impossible configuration").to_string()
    }

    #[test]
    fn counts_the_parameters_of_pythia_410m() {
        let count = pythia_410m().parameters();
        assert_eq!(
            count,
            Parameters { total: 405_334_016, non_embedding: 302_311_424, per_layer: 12_596_224 }
        );
    }

    #[test]
    fn counts_absent_biases_and_tied_embeddings() {
        let lean = Config { attention_bias: false, tie_word_embeddings: true, ..pythia_410m() };
        let full = pythia_410m().parameters();
        let saved = 24 * 4 * 1024;
        assert_eq!(lean.parameters().non_embedding, full.non_embedding - saved);
        assert_eq!(lean.parameters().total, full.total - saved - 50304 * 1024);
    }

    #[test]
    fn accepts_real_and_borderline_models() {
        pythia_410m().validate().unwrap();
        Config::default().validate().unwrap();
        // 12 channels a head at 25 % make 3, which `transformers` rounds up to 2 pairs.
        let odd = Config { hidden_size: 48, num_attention_heads: 4, ..pythia_410m() };
        assert_eq!(odd.rotary_dims(), 3);
        odd.validate().unwrap();
        Config { rotary_fraction: 0.0, ..pythia_410m() }.validate().unwrap();
    }

    #[test]
    fn refuses_impossible_numbers_by_name_and_value() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 10] = [
            (|c| c.hidden_size = 0, "`hidden_size` is 0, but must lie in 1..="),
            (|c| c.num_hidden_layers = 0, "`num_hidden_layers` is 0"),
            (|c| c.vocab_size = usize::MAX, "`vocab_size` is 18446744073709551615"),
            (
                |c| c.num_attention_heads = 3,
                "`num_attention_heads` is 3, which does not divide `hidden_size` 1024",
            ),
            (|c| c.layer_norm_eps = -1e-5, "`layer_norm_eps` is -0.00001, but must be greater than 0"),
            (|c| c.layer_norm_eps = f64::NAN, "`layer_norm_eps` is NaN"),
            (
                |c| c.rotary_fraction = 1.5,
                "partial_rotary_factor)` is 1.5, but must be at least 0 and at most 1",
            ),
            (|c| c.rope_theta = 0.0, "rope_theta)` is 0, but must be greater than 0"),
            (|c| c.initializer_range = f64::INFINITY, "`initializer_range` is inf"),
            (
                |c| {
                    c.hidden_size = 48;
                    c.rotary_fraction = 1.0;
                },
                "turns 4 channels of a head that has only 3; an even number of at most 2",
            ),
        ];
        for (change, expected) in cases {
            let message = refusal(change);
            assert!(message.contains(expected), "{message:?} should contain {expected:?}");
        }
    }
}
