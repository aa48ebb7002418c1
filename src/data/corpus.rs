//! Reading and tokenizing text.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use rayon::prelude::*;
use tokenizers::Tokenizer;

use super::input;
use super::quotes::Quotes;

/// Stands on a line of its own between documents, and is one special token.
pub const SEPARATOR: &str = "<|endoftext|>";

/// A tokenized corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// All documents one after the other, the separator's token between them.
    pub tokens: Vec<u32>,
    /// Number of documents that are not empty.
    pub documents: usize,
    /// Size of the text in bytes of UTF-8, separators included.
    pub bytes: usize,
}

impl TokenSet {
    /// Reads and tokenizes text files, compressed or not; a separator is put between two files where the first does
    /// not end with one. Every token id is checked to be below `vocab_size`.
    ///
    /// # Errors
    /// A file that is missing, empty or not UTF-8; see also [`TokenSet::encode`].
    pub fn read<P: AsRef<Path>>(
        paths: &[P],
        quotes: Quotes,
        tokenizer: &Tokenizer,
        vocab_size: usize,
    ) -> Result<Self> {
        if paths.is_empty() {
            bail!("no corpus file was given");
        }
        let mut text = String::new();
        for path in paths {
            if !text.is_empty() && !text.trim_end().ends_with(SEPARATOR) {
                text.push_str(&format!("\n{SEPARATOR}\n"));
            }
            text.push_str(&read_text(path.as_ref())?);
        }
        Self::encode(&quotes.apply(text), tokenizer, vocab_size).with_context(|| {
            let names: Vec<_> = paths.iter().map(|path| path.as_ref().display().to_string()).collect();
            format!("tokenizing {}", names.join(", "))
        })
    }

    /// Tokenizes a text exactly as the tokenizer encodes it in one piece, separators as special tokens, but
    /// the documents in parallel.
    ///
    /// # Errors
    /// A text without content, separators that the tokenizer does not know, ids of `vocab_size` and above.
    pub fn encode(text: &str, tokenizer: &Tokenizer, vocab_size: usize) -> Result<Self> {
        let documents: Vec<&str> = text.split(SEPARATOR).collect();
        let filled = documents.iter().filter(|document| !document.trim().is_empty()).count();
        if filled == 0 {
            bail!("the corpus is empty");
        }
        let tokenizer = plain(tokenizer)?;
        let tokens = match separator_of(&tokenizer) {
            _ if documents.len() == 1 => encode(&tokenizer, text)?,
            None => bail!("the corpus separates documents by {SEPARATOR}, which the tokenizer does not know"),
            Some(Separator { stands_alone: false, .. }) => encode(&tokenizer, text)?,
            Some(Separator { id, .. }) => {
                let encoded: Vec<_> = documents
                    .par_iter()
                    .map(|document| encode(&tokenizer, document))
                    .collect::<Result<_>>()?;
                encoded.join(&[id][..])
            }
        };
        if let Some((at, id)) = tokens.iter().enumerate().find(|(_, id)| **id as usize >= vocab_size) {
            bail!(
                "token {at} of the corpus has id {id}, but the model's vocabulary has {vocab_size} entries: the tokenizer belongs to another model"
            );
        }
        Ok(TokenSet { tokens, documents: filled, bytes: text.len() })
    }
}

fn read_text(path: &Path) -> Result<String> {
    let what = || format!("reading the corpus {}", path.display());
    let mut bytes = Vec::new();
    input::unpacked(path, Arc::default())
        .and_then(|mut file| Ok(file.read_to_end(&mut bytes)?))
        .with_context(what)?;
    let text = String::from_utf8(bytes).map_err(|e| {
        anyhow!(
            "the corpus {} is not UTF-8 text: byte {} cannot be decoded",
            path.display(),
            e.utf8_error().valid_up_to()
        )
    })?;
    if text.trim().is_empty() {
        bail!("the corpus {} is empty", path.display());
    }
    Ok(text)
}

struct Separator {
    id: u32,
    /// Whether the texts before and after are encoded as they would be by themselves.
    stands_alone: bool,
}

fn separator_of(tokenizer: &Tokenizer) -> Option<Separator> {
    tokenizer.get_added_tokens_decoder().into_iter().find(|(_, token)| token.content == SEPARATOR).map(
        |(id, token)| Separator { id, stands_alone: !(token.lstrip || token.rstrip || token.single_word) },
    )
}

/// The tokenizer without truncation and padding.
pub(super) fn plain(tokenizer: &Tokenizer) -> Result<Tokenizer> {
    let mut tokenizer = tokenizer.clone();
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| anyhow!("switching the tokenizer's truncation off: {e}"))?;
    Ok(tokenizer)
}

pub(super) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode_fast(text, false).map_err(|e| anyhow!("the tokenizer failed: {e}"))?;
    Ok(encoding.get_ids().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::sync::LazyLock;
    use tokenizers::AddedToken;

    const VOCAB: usize = 4096;
    static TOKENIZER: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::from_file("data/teacher/tokenizer.json").unwrap());

    fn whole(text: &str) -> Vec<u32> {
        TOKENIZER.encode(text, false).unwrap().get_ids().to_vec()
    }

    #[test]
    fn the_embedded_corpus_is_encoded_as_in_one_piece() {
        let set = TokenSet::read(
            &["data/corpus/valid.txt", "data/corpus/train.txt"],
            Quotes::Kept,
            &TOKENIZER,
            VOCAB,
        )
        .unwrap();
        let [valid, train] =
            ["valid", "train"].map(|name| fs::read_to_string(format!("data/corpus/{name}.txt")).unwrap());
        let text = format!("{valid}\n{SEPARATOR}\n{train}");
        assert_eq!((set.documents, set.bytes), (9, text.len()));
        assert!(set.tokens == whole(&text));
        assert_eq!(TOKENIZER.decode(&set.tokens, false).unwrap(), text);
    }

    #[test]
    fn a_separator_that_strips_is_left_to_the_tokenizer() {
        let mut tokenizer = TOKENIZER.clone();
        tokenizer.add_special_tokens([AddedToken::from(SEPARATOR, true).lstrip(true).rstrip(true)]).unwrap();
        let text = format!("one \n {SEPARATOR} \n two");
        let expected = tokenizer.encode(text.as_str(), false).unwrap().get_ids().to_vec();
        assert_eq!(TokenSet::encode(&text, &tokenizer, VOCAB).unwrap().tokens, expected);
    }

    #[test]
    fn truncation_and_padding_of_the_tokenizer_do_not_apply() {
        let mut tokenizer = TOKENIZER.clone();
        let truncation = tokenizers::TruncationParams { max_length: 2, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).unwrap();
        let text = "a text of some more than two tokens";
        assert_eq!(TokenSet::encode(text, &tokenizer, VOCAB).unwrap().tokens, whole(text));
    }

    #[test]
    fn bad_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let good = file("good.txt", b"some words");
        for (path, expected) in [
            (folder.path().join("missing.txt"), "missing.txt"),
            (file("empty.txt", b" \n"), "empty.txt is empty"),
            (file("binary.txt", b"abc\xff"), "binary.txt is not UTF-8 text: byte 3"),
            (folder.path().to_owned(), "reading the corpus"),
        ] {
            let error = TokenSet::read(&[good.clone(), path], Quotes::Kept, &TOKENIZER, VOCAB).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
        let nothing: [&Path; 0] = [];
        assert!(
            TokenSet::read(&nothing, Quotes::Kept, &TOKENIZER, VOCAB)
                .unwrap_err()
                .to_string()
                .contains("no corpus file")
        );

        let only = file("only.txt", format!("\n{SEPARATOR}\n").as_bytes());
        let error = format!("{:#}", TokenSet::read(&[only], Quotes::Kept, &TOKENIZER, VOCAB).unwrap_err());
        assert!(error.contains("only.txt") && error.contains("corpus is empty"), "{error}");
    }

    #[test]
    fn a_compressed_text_is_read_and_its_quotation_marks_made_ascii() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt.zst");
        fs::write(&path, zstd::encode_all("“It’s night.”".as_bytes(), 1).unwrap()).unwrap();
        for (quotes, expected) in [(Quotes::Kept, "“It’s night.”"), (Quotes::Ascii, "\"It's night.\"")]
        {
            let set = TokenSet::read(&[&path], quotes, &TOKENIZER, VOCAB).unwrap();
            assert_eq!(set.tokens, whole(expected));
        }
    }

    #[test]
    fn a_tokenizer_that_does_not_fit_is_an_error() {
        let error = TokenSet::encode("zebra words", &TOKENIZER, 10).unwrap_err().to_string();
        assert!(error.contains("vocabulary has 10 entries"), "{error}");

        let unaware = Tokenizer::new(tokenizers::models::bpe::BPE::default());
        let error = TokenSet::encode(&format!("a{SEPARATOR}b"), &unaware, VOCAB).unwrap_err().to_string();
        assert!(error.contains("the tokenizer does not know"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn documents_in_parallel_change_nothing(
            pieces in prop::collection::vec("(\\PC|\n| ){0,12}", 1..5), lines: bool,
        ) {
            let separator = if lines { format!("\n{SEPARATOR}\n") } else { SEPARATOR.to_owned() };
            let text = pieces.join(&separator);
            match TokenSet::encode(&text, &TOKENIZER, VOCAB) {
                Ok(set) => prop_assert_eq!(set.tokens, whole(&text)),
                Err(_) => prop_assert!(text.replace(SEPARATOR, "").trim().is_empty()),
            }
        }
    }
}
