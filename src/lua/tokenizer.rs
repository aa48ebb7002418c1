//! `lft.tokenizer`: tokenizers, with or without a model.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, anyhow, bail};
use candle_core::DType;
use mlua::{Lua, MultiValue, Table, Value};

use super::catalogue::{Class, Entry, OptionsTable};
use super::ids::Ids;
use super::options::Options;
use super::path::ScriptPath;
use super::register::{Members, Registry, userdata};
use crate::atomic;
use crate::data::{self, SEPARATOR, input};
use crate::pythia::{Pythia, checkpoint, tokenizer};

/// The tokenizer of a model, or one by itself.
#[derive(Clone)]
pub enum Tokenizer {
    /// The model has one.
    Model(Arc<Pythia>),
    /// Trained or read without a model.
    Alone(Arc<tokenizers::Tokenizer>),
}
userdata!(Tokenizer);

impl Tokenizer {
    /// The tokenizer itself.
    ///
    /// # Errors
    /// When the model has none.
    pub fn get(&self) -> anyhow::Result<&tokenizers::Tokenizer> {
        match self {
            Self::Model(model) => model.tokenizer(),
            Self::Alone(tokenizer) => Ok(tokenizer),
        }
    }

    /// Ids lie below this: the rows of the model's embedding, or one more than the largest id.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Model(model) => model.config.vocab_size,
            Self::Alone(alone) => tokenizer::largest_id(alone).map_or(0, |id| id as usize + 1),
        }
    }

    /// The longest sequence that the model reads; none without a model.
    pub fn context(&self) -> Option<usize> {
        match self {
            Self::Model(model) => Some(model.config.max_position_embeddings),
            Self::Alone(_) => None,
        }
    }
}

const TRAIN: OptionsTable = OptionsTable {
    class: "TokenizerTrainOptions",
    fields: &[
        ("vocab_size?", "integer", "number of tokens, 4096 when left out"),
        ("field?", "string", "field of JSON lines that holds the text, text when left out"),
    ],
};

/// Registers `lft.tokenizer`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.tokenizer", "Tokenizers without a model.");
    registry.options(&TRAIN);
    registry.function(
        Entry {
            name: "lft.tokenizer.train",
            about: "Trains a byte-level BPE tokenizer on text or JSON lines, plain or compressed (gzip, zstd, xz). Documents of a \
                    text are separated by <|endoftext|>, which is token 0.",
            params: &[
                ("paths", "string|string[]", "one file or several"),
                ("options?", "TokenizerTrainOptions", "size of the vocabulary"),
            ],
            returns: &[("Tokenizer", "the tokenizer")],
            example: "local t = lft.tokenizer.train(\"data/corpus/valid.txt\", {vocab_size = 300})\nassert(t.size == 300 and t:decode(t:encode(\"It was night.\")) == \"It was night.\")",
        },
        |lua, (paths, options): (Value, Option<Table>)| {
            let options = Options::read(lua, options, &TRAIN)?;
            let cut = input::Cut { separator: SEPARATOR.to_owned(), field: options.or("field", "text".to_owned())? };
            let mut documents = Vec::new();
            for path in paths_of(lua, &paths)? {
                for document in input::open(&path, &cut, Arc::new(AtomicU64::new(0)))? {
                    documents.push(document?);
                }
            }
            let vocabulary = options.count("vocab_size", 4096, 1)?;
            Ok(Tokenizer::Alone(Arc::new(data::train_bpe(documents.into_iter(), vocabulary)?)))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.tokenizer.load",
            about: "Reads a tokenizer.json.",
            params: &[("path", "string", "the file, or the folder that holds it")],
            returns: &[("Tokenizer", "the tokenizer")],
            example: "assert(lft.tokenizer.load(\"data/teacher\").size == 4096)",
        },
        |_, path: ScriptPath| {
            let file = if path.is_dir() { path.join(checkpoint::TOKENIZER) } else { path.to_path_buf() };
            let read = tokenizers::Tokenizer::from_file(&file)
                .map_err(|error| anyhow!("cannot read a tokenizer from {}: {error}", file.display()))?;
            Ok(Tokenizer::Alone(Arc::new(read)))
        },
    )?;
    let fields =
        &[("size", "integer", "ids lie below this; of a model's tokenizer the rows of its embedding")];
    let about = "Turns text into token ids and back.";
    registry.class(Class { name: "Tokenizer", about, fields }, members)
}

fn members(class: &mut Members<'_, Tokenizer>) {
    class.field("size", |_, this: &Tokenizer| Ok(this.vocabulary()));
    class.method(
        Entry {
            name: "Tokenizer:encode",
            about: "Token ids of a text; no special tokens are added, those written out are recognised.",
            params: &[("text", "string", "the text")],
            returns: &[("integer[]", "its token ids")],
            example: "local ids = lft.pythia.load(\"data/teacher\").tokenizer:encode(\"It was night.\")\nassert(#ids > 2)",
        },
        |_, this: &Tokenizer, text: String| tokenizer::encode(this.get()?, &text),
    );
    class.method(
        Entry {
            name: "Tokenizer:decode",
            about: "The text of one sequence of token ids, special tokens written out.",
            params: &[("ids", "Tensor|integer[]", "token ids")],
            returns: &[("string", "the text")],
            example: "local t = lft.pythia.load(\"data/teacher\").tokenizer\nassert(t:decode(t:encode(\"It was night.\")) == \"It was night.\")",
        },
        |_, this: &Tokenizer, ids: Ids| {
            let ids = ids.0.flatten_all()?.to_dtype(DType::U32)?.to_vec1::<u32>()?;
            tokenizer::decode(this.get()?, &ids)
        },
    );
    class.method(
        Entry {
            name: "Tokenizer:save",
            about: "Writes the tokenizer as tokenizer.json into a folder.",
            params: &[("folder", "string", "made when it is missing")],
            returns: &[("nil", "nothing")],
            example: "local folder = os.tmpname()\nos.remove(folder)\nlft.pythia.load(\"data/teacher\").tokenizer:save(folder)\nassert(lft.tokenizer.load(folder).size == 4096)\nos.remove(folder .. \"/tokenizer.json\")\nos.remove(folder)",
        },
        |_, this: &Tokenizer, folder: ScriptPath| save(this.get()?, &folder),
    );
    class.hidden("Tokenizer.__tostring", |_, this: &Tokenizer, _: MultiValue| {
        Ok(format!("Tokenizer: {} tokens", this.vocabulary()))
    });
}

fn save(tokenizer: &tokenizers::Tokenizer, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let text = tokenizer.to_string(false).map_err(|error| anyhow!("cannot write the tokenizer: {error}"))?;
    atomic::write(&folder.join(checkpoint::TOKENIZER), |file| Ok(file.write_all(text.as_bytes())?))
}

/// One path or a list of them.
///
/// # Errors
/// An empty list.
pub fn paths_of(lua: &Lua, value: &Value) -> anyhow::Result<Vec<ScriptPath>> {
    let paths: Vec<ScriptPath> = match value {
        Value::Table(list) => list.sequence_values().collect::<mlua::Result<_>>()?,
        one => vec![ScriptPath::new(lua, one.to_string()?)?],
    };
    match paths.is_empty() {
        true => bail!("no file was given"),
        false => Ok(paths),
    }
}
