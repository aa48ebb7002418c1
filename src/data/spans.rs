//! Windows that lie inside documents.

use anyhow::{Context, Result, ensure};

use super::Tokens;

/// The windows of a corpus that run over no document's end: each document is cut into as many as it holds, side by
/// side from its start. What is left at its end, and documents shorter than a window, are not read.
#[derive(Debug)]
pub struct Spans {
    /// Position of the first token of each document that holds a window.
    starts: Vec<u64>,
    /// Windows in front of each of them, and behind the last the number of all.
    before: Vec<u64>,
    /// Tokens from one window to the next.
    stride: usize,
}

impl Spans {
    /// Windows of `length` tokens, `stride` apart.
    ///
    /// # Errors
    /// A corpus that does not know its documents, or in which none is long enough.
    pub fn new(corpus: &dyn Tokens, length: usize, stride: usize) -> Result<Self> {
        let lengths = corpus
            .document_lengths()
            .context("only tokens that `lft data prepare` wrote know where documents end")?;
        let (mut starts, mut before, mut at, mut count) = (Vec::new(), vec![0], 0, 0);
        for document in lengths {
            let document = document as usize;
            if document >= length {
                count += ((document - length) / stride + 1) as u64;
                starts.push(at as u64);
                before.push(count);
            }
            at += document;
        }
        ensure!(count > 0, "no document holds a window of {length} tokens: use a smaller seq_len");
        Ok(Self { starts, before, stride })
    }

    /// Number of windows.
    pub fn count(&self) -> u64 {
        self.before[self.before.len() - 1]
    }

    /// Where a window starts.
    ///
    /// # Panics
    /// If there is no such window.
    pub fn start(&self, window: u64) -> usize {
        let document = self.before.partition_point(|&before| before <= window) - 1;
        self.starts[document] as usize + (window - self.before[document]) as usize * self.stride
    }
}
