//! Tokenized documents on their way into shards.

use std::path::Path;

use anyhow::Result;
use tokenizers::Tokenizer;

use super::corpus::encode;
use super::manifest::{Part, Places, Plan, Shard, Split};
use crate::atomic;

/// A tokenized document; without tokens if it has no text.
pub struct Document {
    pub tokens: Vec<u32>,
    split: Split,
}

impl Document {
    /// Tokenizes a text and decides on which side it falls.
    ///
    /// # Errors
    /// A text that the tokenizer cannot represent.
    pub fn new(text: String, tokenizer: &Tokenizer, plan: &Plan) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self { tokens: Vec::new(), split: Split::Train });
        }
        // The text as it came decides, so that a change of its quotation marks holds out the same documents.
        let split = side(&text, plan.holdout);
        let mut tokens = encode(tokenizer, &plan.quotes.apply(text))?;
        tokens.push(plan.end_of_text);
        Ok(Self { tokens, split })
    }
}

/// On which side a document falls.
fn side(text: &str, holdout: f64) -> Split {
    let hash = blake3::hash(text.as_bytes());
    let head = u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i]));
    if (head as f64 / u64::MAX as f64) < holdout { Split::Valid } else { Split::Train }
}

/// Collects documents and writes a shard whenever one is full.
pub struct Writer<'a> {
    folder: &'a Path,
    plan: &'a Plan,
    shards: Vec<Shard>,
    /// Documents of all inputs seen so far.
    pub read: u64,
    open: [Open; 2],
}

/// The tokens of one split that are not written yet.
#[derive(Default)]
struct Open {
    tokens: Vec<u8>,
    lengths: Vec<u8>,
    part: Part,
}

impl<'a> Writer<'a> {
    /// Goes on behind complete shards.
    pub fn new(folder: &'a Path, plan: &'a Plan, shards: Vec<Shard>) -> Self {
        let read = shards.last().map_or(0, |shard| shard.read);
        Self { folder, plan, shards, read, open: Default::default() }
    }

    /// Takes the next document of the inputs.
    ///
    /// # Errors
    /// When a shard cannot be written.
    pub fn add(&mut self, document: Document) -> Result<()> {
        self.read += 1;
        if document.tokens.is_empty() {
            return Ok(());
        }
        let open = &mut self.open[document.split as usize];
        let bytes = self.plan.token_bytes;
        open.tokens.extend(document.tokens.iter().flat_map(|id| id.to_le_bytes().into_iter().take(bytes)));
        open.lengths.extend((document.tokens.len() as u32).to_le_bytes());
        open.part.tokens += document.tokens.len();
        open.part.documents += 1;
        let full = self.open[Split::Train as usize].part.tokens >= self.plan.shard_tokens;
        if full { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let places = Places::new(self.folder, self.shards.len());
        for split in Split::ALL {
            let open = &mut self.open[split as usize];
            let mut hasher = blake3::Hasher::new();
            hasher.update(&open.tokens).update(&open.lengths);
            open.part.blake3 = hasher.finalize().to_hex().to_string();
            atomic::write(&places.tokens(split), |file| Ok(file.write_all(&open.tokens)?))?;
            atomic::write(&places.documents(split), |file| Ok(file.write_all(&open.lengths)?))?;
        }
        let [train, valid] = std::mem::take(&mut self.open).map(|open| open.part);
        let shard = Shard { read: self.read, train, valid };
        places.write_record(&shard)?;
        self.shards.push(shard);
        Ok(())
    }

    /// Writes the last shard; all of them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<Vec<Shard>> {
        if self.open.iter().any(|open| open.part.documents > 0) {
            self.write()?;
        }
        Ok(self.shards)
    }
}
