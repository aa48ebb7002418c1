//! Prepared tokens as files in memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use memmap2::Mmap;
use rayon::prelude::*;

use super::Tokens;
use super::manifest::{Manifest, Part, Places, Split};

/// One split of a prepared folder, mapped into memory: only what is read takes part of it.
pub struct TokenFolder {
    /// How the folder was made.
    pub manifest: Manifest,
    shards: Vec<Mapped>,
    /// Position of the first token of each shard, and behind the last the number of tokens.
    starts: Vec<usize>,
    documents: usize,
}

struct Mapped {
    tokens: Mmap,
    lengths: Mmap,
}

impl TokenFolder {
    /// Opens what `lft data prepare` wrote.
    ///
    /// # Errors
    /// A folder that is none or unfinished, files that are missing or shorter than they should be, and a split
    /// without tokens.
    pub fn open(folder: &Path, split: Split) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let (mut shards, mut starts, mut documents) = (Vec::new(), vec![0], 0);
        for (number, shard) in manifest.shards.iter().enumerate() {
            let (part, places) = (shard.part(split), Places::new(folder, number));
            if part.tokens == 0 {
                continue;
            }
            shards.push(Mapped {
                tokens: map(&places.tokens(split), part.tokens * manifest.plan.token_bytes)?,
                lengths: map(&places.documents(split), part.documents * 4)?,
            });
            starts.push(starts[starts.len() - 1] + part.tokens);
            documents += part.documents;
        }
        ensure!(
            !shards.is_empty(),
            "{} has no tokens in its split '{}': prepare it with a larger --holdout",
            folder.display(),
            split.name()
        );
        Ok(Self { manifest, shards, starts, documents })
    }

    /// Reads everything and holds it against the checksums of the manifest.
    ///
    /// # Errors
    /// Names the first file that was changed.
    pub fn verify(folder: &Path) -> Result<Manifest> {
        let manifest = Manifest::read(folder)?;
        manifest.shards.par_iter().enumerate().try_for_each(|(number, shard)| {
            let places = Places::new(folder, number);
            Split::ALL.iter().try_for_each(|&split| {
                let (tokens, lengths) = (places.tokens(split), places.documents(split));
                check(shard.part(split), &tokens, &lengths)
            })
        })?;
        Ok(manifest)
    }
}

fn check(part: &Part, tokens: &PathBuf, lengths: &PathBuf) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    for path in [tokens, lengths] {
        let what = || format!("cannot read {}", path.display());
        hasher.update_reader(File::open(path).with_context(what)?).with_context(what)?;
    }
    let same = hasher.finalize().to_hex().as_str() == part.blake3;
    ensure!(same, "{} or {} is damaged: the checksum differs", tokens.display(), lengths.display());
    Ok(())
}

fn map(path: &Path, bytes: usize) -> Result<Mmap> {
    let what = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(what)?;
    // SAFETY: mapped read-only; like every reader of a mapped file this relies on nobody truncating it meanwhile.
    let mapped = unsafe { Mmap::map(&file) }.with_context(what)?;
    ensure!(mapped.len() == bytes, "{} has {} bytes, but should have {bytes}", path.display(), mapped.len());
    Ok(mapped)
}

impl Tokens for TokenFolder {
    fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn documents(&self) -> usize {
        self.documents
    }

    fn read(&self, start: usize, count: usize, out: &mut Vec<u32>) {
        let end = start + count;
        assert!(end <= self.len(), "tokens {start}..{end} of {}", self.len());
        let width = self.manifest.plan.token_bytes;
        let mut at = start;
        let mut shard = self.starts.partition_point(|&first| first <= start) - 1;
        while at < end {
            let (first, behind) = (self.starts[shard], self.starts[shard + 1]);
            let until = end.min(behind);
            let bytes = &self.shards[shard].tokens[(at - first) * width..(until - first) * width];
            match width {
                2 => out.extend(bytes.as_chunks::<2>().0.iter().map(|&b| u32::from(u16::from_le_bytes(b)))),
                _ => out.extend(bytes.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b))),
            }
            (at, shard) = (until, shard + 1);
        }
    }

    fn document_lengths(&self) -> Option<Vec<u32>> {
        let lengths = self.shards.iter().flat_map(|shard| shard.lengths.as_chunks::<4>().0);
        Some(lengths.map(|&bytes| u32::from_le_bytes(bytes)).collect())
    }
}
