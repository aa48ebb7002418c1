//! Turning text into token files: parallel, checksummed, and going on where an earlier attempt ended.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, anyhow, ensure};
use rayon::prelude::*;
use tokenizers::Tokenizer;

use super::corpus::plain;
use super::input::{Cut, Documents};
use super::manifest::{InputFile, Manifest, Places, Plan};
use super::quotes::Quotes;
use super::shards::{Document, Writer};
use crate::atomic;

/// Text that is tokenized in one go, in bytes.
const BATCH: usize = 8 << 20;
/// Bytes that are read in one go to know a file again.
const STRETCH: u64 = 256 << 20;

/// Opens a file; the bytes read of it are added to the count.
pub type Opener = Box<dyn Fn(&Path, Arc<AtomicU64>) -> Result<Documents> + Send + Sync>;

/// A file to read, and how.
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Opens it.
    pub open: Opener,
}

/// How to prepare.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// How text is cut into documents.
    pub cut: Cut,
    /// What becomes of typographic quotation marks.
    pub quotes: Quotes,
    /// Token behind every document.
    pub end_of_text: u32,
    /// Share of the documents that is held out. A hash of its text decides for each document, so that equal
    /// documents stay on one side and more input moves none.
    pub holdout: f64,
    /// A shard is full with so many training tokens.
    pub shard_tokens: usize,
}

/// What a preparation is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Reading the inputs, to know them again.
    #[default]
    Checking,
    /// Reading them once more, and tokenizing.
    Tokenizing,
}

/// How far a preparation is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prepared {
    /// What it is doing.
    pub stage: Stage,
    /// Bytes read of the input files in this stage, compressed as they are.
    pub bytes: u64,
    /// Bytes of all input files.
    pub total_bytes: u64,
    /// Tokens written or ready to be written.
    pub tokens: u64,
    /// Shards that were complete at the start.
    pub resumed_shards: usize,
}

/// Tokenizes all documents of the sources in order into `folder`.
///
/// Every document is followed by the end-of-text token; documents of white space alone are left out. Which bytes
/// are written depends on the plan alone, not on the number of threads or on interruptions.
///
/// # Errors
/// Sources that cannot be read, a folder of another plan or one that cannot be written; complete shards stay, and
/// the next call goes on behind them. `watch` may end the work by an error.
pub fn prepare(
    sources: Vec<Source>,
    tokenizer: &Tokenizer,
    folder: &Path,
    options: &PrepareOptions,
    mut watch: impl FnMut(Prepared) -> Result<()>,
) -> Result<Manifest> {
    ensure!(!sources.is_empty(), "there is nothing to prepare: no input was given");
    ensure!(
        (0.0..1.0).contains(&options.holdout),
        "holdout = {}, but it must lie in 0 ≤ holdout < 1",
        options.holdout
    );
    ensure!(options.shard_tokens >= 1, "a shard needs at least one token");
    ensure!(!options.cut.separator.is_empty(), "the separator of documents is empty");
    let tokenizer = plain(tokenizer)?;
    let plan = plan(&sources, &tokenizer, options, &mut watch)?;
    plan.claim(folder)?;

    let mut shards = Vec::new();
    while let Some(shard) = Places::new(folder, shards.len()).read_record()? {
        shards.push(shard);
    }
    let read = Arc::new(AtomicU64::new(0));
    let mut progress = Prepared {
        stage: Stage::Tokenizing,
        bytes: 0,
        total_bytes: plan.inputs.iter().map(|input| input.bytes).sum(),
        tokens: shards.iter().map(|shard| (shard.train.tokens + shard.valid.tokens) as u64).sum(),
        resumed_shards: shards.len(),
    };
    watch(progress)?;
    // One a thread, because a tokenizer guards its cache of words with a lock.
    let tokenizers = vec![tokenizer.clone(); rayon::current_num_threads().max(1)];
    let mut writer = Writer::new(folder, &plan, shards);
    let batches = batches(sources, read.clone(), writer.read);
    while let Ok(batch) = batches.recv() {
        let batch = batch?;
        let own = || &tokenizers[rayon::current_thread_index().unwrap_or(0) % tokenizers.len()];
        let encoded: Vec<Document> =
            batch.into_par_iter().map(|text| Document::new(text, own(), &plan)).collect::<Result<_>>()?;
        for document in encoded {
            progress.tokens += document.tokens.len() as u64;
            writer.add(document)?;
        }
        progress.bytes = read.load(Ordering::Relaxed);
        watch(progress)?;
    }
    let shards = writer.finish()?;
    let manifest = Manifest::new(plan, shards);
    ensure!(manifest.train_tokens > 0, "the inputs hold no text to train on");
    let text = tokenizer.to_string(false).map_err(|error| anyhow!("cannot write the tokenizer: {error}"))?;
    atomic::write(&folder.join("tokenizer.json"), |file| Ok(file.write_all(text.as_bytes())?))?;
    manifest.write(folder)?;
    Ok(manifest)
}

fn plan(
    sources: &[Source],
    tokenizer: &Tokenizer,
    options: &PrepareOptions,
    watch: &mut impl FnMut(Prepared) -> Result<()>,
) -> Result<Plan> {
    let largest = tokenizer.get_vocab(true).into_values().max().context("the tokenizer knows no token")?;
    let size = |source: &Source| std::fs::metadata(&source.path).map_or(0, |metadata| metadata.len());
    let mut progress = Prepared { total_bytes: sources.iter().map(size).sum(), ..Prepared::default() };
    let mut inputs = Vec::with_capacity(sources.len());
    for source in sources {
        let path = source.path.display();
        let mut file = File::open(&source.path).with_context(|| format!("cannot read {path}"))?;
        let mut hasher = blake3::Hasher::new();
        loop {
            let before = hasher.count();
            hasher.update_reader((&mut file).take(STRETCH)).with_context(|| format!("cannot read {path}"))?;
            if hasher.count() == before {
                break;
            }
            progress.bytes += hasher.count() - before;
            watch(progress)?;
        }
        let blake3 = hasher.finalize().to_hex().to_string();
        inputs.push(InputFile { path: path.to_string(), bytes: hasher.count(), blake3 });
    }
    Ok(Plan {
        format: Plan::FORMAT,
        tokenizer_blake3: tokenizer_hash(tokenizer)?,
        vocabulary: largest as usize + 1,
        end_of_text: options.end_of_text,
        token_bytes: if largest <= u32::from(u16::MAX) { 2 } else { 4 },
        cut: options.cut.clone(),
        quotes: options.quotes,
        holdout: options.holdout,
        shard_tokens: options.shard_tokens,
        inputs,
    })
}

/// BLAKE3 of a tokenizer in the form that the `tokenizers` crate writes, without truncation and padding.
///
/// # Errors
/// A tokenizer that cannot be written.
pub fn tokenizer_hash(tokenizer: &Tokenizer) -> Result<String> {
    let text =
        plain(tokenizer)?.to_string(false).map_err(|error| anyhow!("cannot read the tokenizer: {error}"))?;
    Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
}

/// Reads documents on a thread of its own, the first `skip` of them without passing them on.
fn batches(sources: Vec<Source>, read: Arc<AtomicU64>, skip: u64) -> Receiver<Result<Vec<String>>> {
    let (sender, receiver) = sync_channel(2);
    std::thread::spawn(move || {
        let documents =
            sources.into_iter().flat_map(|source| match (source.open)(&source.path, read.clone()) {
                Ok(documents) => documents,
                Err(error) => Box::new(std::iter::once(Err(error))) as Documents,
            });
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (at, document) in documents.enumerate() {
            match document {
                Ok(_) if (at as u64) < skip => continue,
                Ok(text) => {
                    bytes += text.len();
                    batch.push(text);
                }
                // The other end may have stopped listening, here and below: then there is nothing left to do.
                Err(error) => return drop(sender.send(Err(error))),
            }
            if bytes >= BATCH && sender.send(Ok(std::mem::take(&mut batch))).is_err() {
                return;
            }
            if bytes >= BATCH {
                bytes = 0;
            }
        }
        drop(sender.send(Ok(batch)));
    });
    receiver
}
