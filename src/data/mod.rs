//! Text as tokens, and the windows of it that training and evaluation read.

mod bpe;
mod corpus;
mod folder;
pub mod input;
mod latents;
#[cfg(test)]
mod latents_tests;
mod manifest;
mod permutation;
mod prepare;
#[cfg(test)]
mod prepare_tests;
mod quotes;
mod sampler;
mod shards;
mod spans;
mod tokens;
mod windows;

pub use bpe::train_bpe;
pub use corpus::{SEPARATOR, TokenSet};
pub use folder::TokenFolder;
pub use latents::{LatentBatch, LatentCache, LatentPlan};
pub use manifest::{Manifest, Split};
pub use permutation::Permutation;
pub use prepare::{PrepareOptions, Prepared, Source, Stage, prepare, tokenizer_hash};
pub use quotes::Quotes;
pub use sampler::{Order, Sampler};
pub use tokens::Tokens;
pub use windows::windows;

use anyhow::{Result, bail};

/// A corpus must hold at least one window, and a window at least one token.
fn check_window(tokens: usize, seq_len: usize) -> Result<()> {
    if seq_len == 0 {
        bail!("seq_len must be at least 1, not 0");
    }
    if tokens < seq_len {
        bail!(
            "the corpus has {tokens} tokens, less than one window of seq_len = {seq_len}: use more text or a smaller seq_len"
        );
    }
    Ok(())
}
