//! Windows for evaluation: all of the text, in order.

use std::slice::ChunksExact;

use anyhow::{Result, bail};

use super::check_window;
use super::corpus::TokenSet;

/// The first `limit` contiguous windows of `seq_len` tokens, none overlapping; all of them without a limit,
/// and as many as there are when the corpus holds fewer. The rest of the corpus that fills no window is left out.
///
/// # Errors
/// A corpus shorter than one window; `seq_len` or `limit` of 0.
pub fn windows(corpus: &TokenSet, seq_len: usize, limit: Option<usize>) -> Result<ChunksExact<'_, u32>> {
    check_window(corpus.tokens.len(), seq_len)?;
    if limit == Some(0) {
        bail!("an evaluation needs at least one window, not 0");
    }
    let available = corpus.tokens.len() / seq_len;
    let count = limit.map_or(available, |limit| limit.min(available));
    Ok(corpus.tokens[..count * seq_len].chunks_exact(seq_len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counting(n: u32) -> TokenSet {
        TokenSet { tokens: (0..n).collect(), documents: 1, bytes: 0 }
    }

    #[test]
    fn impossible_windows_are_explained_with_numbers() {
        let message = |n, seq_len, limit| windows(&counting(n), seq_len, limit).unwrap_err().to_string();
        assert!(message(255, 256, Some(64)).contains("255 tokens"));
        assert!(message(255, 0, None).contains("seq_len"));
        assert!(message(255, 5, Some(0)).contains("at least one window"));
    }

    proptest! {
        #[test]
        fn windows_are_a_prefix_in_order(n in 1u32..400, part in 0.0..1.0f64, limit in prop::option::of(1usize..20)) {
            let seq_len = 1 + (part * f64::from(n - 1)) as usize;
            let corpus = counting(n);
            let found = windows(&corpus, seq_len, limit).unwrap();
            prop_assert_eq!(found.len(), (n as usize / seq_len).min(limit.unwrap_or(usize::MAX)));
            let flat: Vec<u32> = found.flatten().copied().collect();
            prop_assert_eq!(&flat[..], &corpus.tokens[..flat.len()]);
        }
    }
}
