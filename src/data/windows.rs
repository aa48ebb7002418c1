//! Windows for evaluation: all of the text, in order.

use anyhow::{Result, bail};

use super::{Tokens, check_window};

/// The first `limit` contiguous windows of `seq_len` inputs, none overlapping, each followed by the token
/// that comes next: window w holds tokens `w·seq_len ..= (w+1)·seq_len`. All of them without a limit, and as
/// many as there are when the corpus holds fewer. The rest of the corpus that fills no window is left out.
///
/// # Errors
/// A corpus shorter than one window; `seq_len` or `limit` of 0.
pub fn windows(
    corpus: &dyn Tokens,
    seq_len: usize,
    limit: Option<usize>,
) -> Result<impl ExactSizeIterator<Item = Vec<u32>>> {
    check_window(corpus.len(), seq_len.saturating_add(1))?;
    if seq_len == 0 {
        bail!("seq_len must be at least 1, not 0");
    }
    if limit == Some(0) {
        bail!("an evaluation needs at least one window, not 0");
    }
    let available = (corpus.len() - 1) / seq_len;
    let count = limit.map_or(available, |limit| limit.min(available));
    Ok((0..count).map(move |w| {
        let mut ids = Vec::with_capacity(seq_len + 1);
        corpus.read(w * seq_len, seq_len + 1, &mut ids);
        ids
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::TokenSet;
    use proptest::prelude::*;

    fn counting(n: u32) -> TokenSet {
        TokenSet { tokens: (0..n).collect(), documents: 1, bytes: 0 }
    }

    #[test]
    fn impossible_windows_are_explained_with_numbers() {
        let message = |n, seq_len, limit| windows(&counting(n), seq_len, limit).err().unwrap().to_string();
        assert!(message(255, 256, Some(64)).contains("255 tokens"));
        assert!(message(255, 0, None).contains("seq_len"));
        assert!(message(255, 5, Some(0)).contains("at least one window"));
    }

    proptest! {
        #[test]
        fn windows_are_a_prefix_in_order(n in 2u32..400, part in 0.0..1.0f64, limit in prop::option::of(1usize..20)) {
            let seq_len = 1 + (part * f64::from(n - 2)) as usize;
            let corpus = counting(n);
            let found: Vec<Vec<u32>> = windows(&corpus, seq_len, limit).unwrap().collect();
            prop_assert_eq!(found.len(), ((n as usize - 1) / seq_len).min(limit.unwrap_or(usize::MAX)));
            for (w, window) in found.iter().enumerate() {
                prop_assert_eq!(&window[..], &corpus.tokens[w * seq_len..=(w + 1) * seq_len]);
            }
        }
    }
}
