//! What a folder of prepared tokens holds, written beside them.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::input::Cut;
use super::quotes::Quotes;
use crate::atomic;
use crate::nearest::nearest;

/// Version of the layout; readers refuse another one.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const PLAN: &str = "plan.json";

/// One file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its path as it was given.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: String,
}

/// Everything that decides which tokens a preparation writes. A folder belongs to one plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the layout.
    pub format: u32,
    /// BLAKE3 of the tokenizer, in the form that `tokenizers` writes.
    pub tokenizer_blake3: String,
    /// One more than the largest token id.
    pub vocabulary: usize,
    /// Token behind every document.
    pub end_of_text: u32,
    /// Bytes of a token: 2 or 4, little-endian.
    pub token_bytes: usize,
    /// How text is cut into documents.
    pub cut: Cut,
    /// What became of typographic quotation marks; folders of before there was a choice do not say.
    #[serde(default)]
    pub quotes: Quotes,
    /// Share of the documents that is held out.
    pub holdout: f64,
    /// A shard is full with so many training tokens.
    pub shard_tokens: usize,
    /// What was read, in order.
    pub inputs: Vec<InputFile>,
}

/// One of the two sets of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What is trained on.
    Train,
    /// What is held out.
    Valid,
}

impl Split {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Train, Self::Valid];

    /// The name in files and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
        }
    }
}

impl std::str::FromStr for Split {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|split| split.name() == name).ok_or_else(|| {
            let near = nearest(name, ["train", "valid"])
                .map_or(String::new(), |n| format!(" (did you mean '{n}'?)"));
            anyhow!("unknown split '{name}'{near}: it is 'train' or 'valid'")
        })
    }
}

/// The tokens of one split in one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of tokens.
    pub tokens: usize,
    /// Number of documents.
    pub documents: usize,
    /// BLAKE3 of the token file, and behind it of the file of document lengths.
    pub blake3: String,
}

/// A run of consecutive documents, written in one go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Documents of all inputs that were read when it was full, empty ones included.
    pub read: u64,
    /// What is trained on.
    pub train: Part,
    /// What is held out.
    pub valid: Part,
}

impl Shard {
    /// The tokens of one split.
    pub fn part(&self, split: Split) -> &Part {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
        }
    }
}

/// A finished folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// How it was made.
    pub plan: Plan,
    /// Its shards in order.
    pub shards: Vec<Shard>,
    /// Training tokens of all shards.
    pub train_tokens: usize,
    /// Held-out tokens of all shards.
    pub valid_tokens: usize,
    /// Documents with text.
    pub documents: usize,
}

impl Manifest {
    /// The manifest of a folder whose shards are complete.
    pub(super) fn new(plan: Plan, shards: Vec<Shard>) -> Self {
        let sum = |split| shards.iter().map(|shard: &Shard| shard.part(split).tokens).sum();
        let documents = shards.iter().map(|shard| shard.train.documents + shard.valid.documents).sum();
        Self { train_tokens: sum(Split::Train), valid_tokens: sum(Split::Valid), documents, plan, shards }
    }

    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// A folder that is no preparation, or an unfinished one, or one of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        if !path.is_file() && folder.join(PLAN).is_file() {
            return Err(anyhow!(
                "{} is not prepared to its end: run the same `lft data prepare` again",
                folder.display()
            ));
        }
        let manifest: Self = read_json(&path)?.with_context(|| {
            format!("{} holds no prepared tokens: it has no {MANIFEST}", folder.display())
        })?;
        ensure!(
            manifest.plan.format == FORMAT,
            "{} has format {}, this program reads format {FORMAT}",
            path.display(),
            manifest.plan.format
        );
        Ok(manifest)
    }

    /// Writes it; the folder is finished with that.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(MANIFEST), self)
    }
}

impl Plan {
    /// A plan of this version.
    pub(super) const FORMAT: u32 = FORMAT;

    /// Claims a folder for this plan, or finds it claimed by the same one earlier.
    ///
    /// # Errors
    /// A folder of another plan, or one that cannot be written.
    pub(super) fn claim(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        match read_json::<Self>(&folder.join(PLAN))? {
            None => write_json(&folder.join(PLAN), self),
            Some(other) => {
                ensure!(
                    other == *self,
                    "{} was prepared with another {}: choose an empty folder, or delete this one",
                    folder.display(),
                    self.difference(&other)
                );
                Ok(())
            }
        }
    }

    fn difference(&self, other: &Self) -> &'static str {
        match () {
            () if self.tokenizer_blake3 != other.tokenizer_blake3 => "tokenizer",
            () if self.inputs != other.inputs => "set of inputs",
            () if self.cut != other.cut => "separator or field",
            () if self.quotes != other.quotes => "treatment of quotation marks",
            () if self.holdout != other.holdout => "share held out",
            () if self.shard_tokens != other.shard_tokens => "shard size",
            () => "version or end-of-text token",
        }
    }
}

/// Where a shard's tokens, document lengths and record lie.
pub(super) struct Places {
    folder: PathBuf,
    number: usize,
}

impl Places {
    pub fn new(folder: &Path, number: usize) -> Self {
        Self { folder: folder.to_owned(), number }
    }

    pub fn tokens(&self, split: Split) -> PathBuf {
        self.folder.join(format!("{:05}.{}.tokens", self.number, split.name()))
    }

    pub fn documents(&self, split: Split) -> PathBuf {
        self.folder.join(format!("{:05}.{}.documents", self.number, split.name()))
    }

    /// Written last: a shard with a record is complete.
    pub fn record(&self) -> PathBuf {
        self.folder.join(format!("{:05}.json", self.number))
    }

    /// The record, None where the shard is not complete.
    pub fn read_record(&self) -> Result<Option<Shard>> {
        read_json(&self.record())
    }

    pub fn write_record(&self, shard: &Shard) -> Result<()> {
        write_json(&self.record(), shard)
    }
}

/// None if there is no such file.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        file => {
            let file = file.with_context(|| format!("cannot read {}", path.display()))?;
            let read = serde_json::from_reader(std::io::BufReader::new(file));
            Ok(Some(read.with_context(|| format!("{} is damaged", path.display()))?))
        }
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    atomic::write(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        Ok(writeln!(file)?)
    })
}
