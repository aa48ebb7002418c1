//! Training a tokenizer.

use anyhow::{Result, anyhow, ensure};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::SEPARATOR;

/// Every byte is a token, beside the end of text.
const SMALLEST: usize = 257;

/// Trains a byte-level BPE tokenizer (Sennrich et al., arXiv 1508.07909, on bytes as in GPT-2): any text survives
/// encoding and decoding. Token 0 is the end of text.
///
/// # Errors
/// A vocabulary below 257 tokens, and documents without text.
pub fn train_bpe(documents: impl Iterator<Item = String> + Send, vocabulary: usize) -> Result<Tokenizer> {
    ensure!(
        vocabulary >= SMALLEST,
        "a vocabulary of {vocabulary} is too small: byte-level BPE needs at least {SMALLEST} tokens"
    );
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    let trainer = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(SEPARATOR, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = TrainerWrapper::from(trainer);
    let failed = |error| anyhow!("cannot train the tokenizer: {error}");
    tokenizer.train(&mut trainer, documents).map_err(failed)?;
    ensure!(
        tokenizer.get_vocab_size(true) > SMALLEST,
        "cannot train the tokenizer: the documents hold no text"
    );
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_and_common_words_become_tokens() {
        let documents =
            || ["the night and the day", "the rest of the night"].map(str::to_owned).into_iter().cycle();
        let tokenizer = train_bpe(documents().take(50), 270).unwrap();
        assert_eq!(tokenizer.token_to_id(SEPARATOR), Some(0));
        assert_eq!(tokenizer.get_vocab_size(true), 270);
        let text = "Naïve “café” — \u{1F600} the night<|endoftext|>the";
        let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        assert!(ids.contains(&0));
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        assert_eq!(tokenizer.encode(" the night", false).unwrap().len(), 2);
        let again = train_bpe(documents().take(50), 270).unwrap();
        assert_eq!(again.to_string(false).unwrap(), tokenizer.to_string(false).unwrap());
    }

    #[test]
    fn impossible_vocabularies_are_refused() {
        assert!(train_bpe(std::iter::empty(), 100).unwrap_err().to_string().contains("at least 257"));
        assert!(train_bpe(std::iter::empty(), 300).unwrap_err().to_string().contains("no text"));
    }
}
