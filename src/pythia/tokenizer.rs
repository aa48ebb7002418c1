//! The tokenizer beside a checkpoint.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use tokenizers::Tokenizer;

use super::checkpoint;

/// Loads a folder's `tokenizer.json`; None if it has none.
///
/// # Errors
/// A file that is no tokenizer, or one with ids beyond the embedding's `vocab_size` rows.
pub fn load(folder: &Path, vocab_size: usize) -> Result<Option<Tokenizer>> {
    let path = folder.join(checkpoint::TOKENIZER);
    if !path.is_file() {
        return Ok(None);
    }
    let tokenizer = Tokenizer::from_file(&path)
        .map_err(|error| anyhow!("{} is no tokenizer: {error}", path.display()))?;
    let largest = largest_id(&tokenizer).unwrap_or(0);
    ensure!(
        (largest as usize) < vocab_size,
        "{}: a tokenizer that does not fit the vocabulary: its largest id is {largest}, but the model has only \
         {vocab_size} embeddings (ids 0..={})",
        path.display(),
        vocab_size - 1
    );
    Ok(Some(tokenizer))
}

/// The largest id that a tokenizer can produce; None if it knows no token.
pub fn largest_id(tokenizer: &Tokenizer) -> Option<u32> {
    tokenizer.get_vocab(true).into_values().max()
}

/// Token ids of a text. No special tokens are added; those written out in the text are recognised.
///
/// # Errors
/// Text that the tokenizer cannot represent.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding =
        tokenizer.encode_fast(text, false).map_err(|error| anyhow!("cannot tokenize the text: {error}"))?;
    Ok(encoding.get_ids().to_vec())
}

/// The text of token ids, special tokens written out.
///
/// # Errors
/// Ids that the tokenizer cannot turn into text.
pub fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String> {
    tokenizer.decode(ids, false).map_err(|error| anyhow!("cannot turn token ids into text: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn teacher() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/teacher")
    }

    #[test]
    fn a_text_survives_the_round_trip() {
        let tokenizer = load(&teacher(), 4096).unwrap().expect("the embedded teacher has a tokenizer");
        let text = "It was a dark night.<|endoftext|>Naïve café — no.";
        let ids = encode(&tokenizer, text).unwrap();
        assert!(ids.contains(&0), "the end-of-text mark is one token");
        assert_eq!(decode(&tokenizer, &ids).unwrap(), text);
    }

    #[test]
    fn absence_is_no_error() {
        assert!(load(tempfile::tempdir().unwrap().path(), 10).unwrap().is_none());
    }

    #[test]
    fn refuses_a_tokenizer_that_does_not_fit() {
        let message = load(&teacher(), 4095).unwrap_err().to_string();
        assert!(
            message.contains("a tokenizer that does not fit the vocabulary: its largest id is 4095"),
            "{message}"
        );
    }

    #[test]
    fn refuses_a_broken_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        assert!(load(folder.path(), 10).unwrap_err().to_string().contains("tokenizer.json is no tokenizer"));
    }
}
