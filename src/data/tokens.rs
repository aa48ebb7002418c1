//! What samplers need of a corpus: its tokens by position.

use super::TokenSet;

/// Tokens of many documents, one after the other.
pub trait Tokens: Send + Sync {
    /// Number of tokens.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of documents.
    fn documents(&self) -> usize;

    /// Appends tokens `start..start + count` to `out`.
    ///
    /// # Panics
    /// If there are not so many.
    fn read(&self, start: usize, count: usize, out: &mut Vec<u32>);

    /// Lengths of the documents in order, their end-of-text tokens included; None where they are not known.
    fn document_lengths(&self) -> Option<Vec<u32>> {
        None
    }
}

impl Tokens for TokenSet {
    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn documents(&self) -> usize {
        self.documents
    }

    fn read(&self, start: usize, count: usize, out: &mut Vec<u32>) {
        out.extend_from_slice(&self.tokens[start..start + count]);
    }
}
