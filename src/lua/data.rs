//! `lft.data`: tokenized text.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use candle_core::{Device, Tensor};
use mlua::{Function, MultiValue, Table, Value};

use super::catalogue::{Class, Entry, OptionsTable, Param};
use super::error::guard;
use super::object::Object;
use super::options::Options;
use super::path::ScriptPath;
use super::register::{Members, Registry, userdata};
use super::state::State;
use super::tensor::Handle;
use super::tokenizer::{Tokenizer, paths_of};
use crate::data::{Order, Quotes, Sampler, Split, TokenFolder, TokenSet, Tokens, tokenizer_hash, windows};

/// Sequences in a batch unless an option says otherwise.
pub const BATCH: usize = 8;
/// Tokens of a window unless an option says otherwise.
const SEQ_LEN: usize = 256;

/// A tokenized text and the length of its windows.
#[derive(Clone)]
pub struct Dataset {
    corpus: Arc<dyn Tokens>,
    seq_len: usize,
    order: Order,
    within_documents: bool,
}
userdata!(Dataset);

impl Dataset {
    /// Whether both are the same tokens in windows of the same length.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.corpus, &other.corpus) && self.seq_len == other.seq_len
    }
}

const TEXT: OptionsTable = OptionsTable {
    class: "TextOptions",
    fields: &[
        ("tokenizer", "Tokenizer", "of the model that will read the text"),
        ("seq_len?", "integer", "tokens of a window, 256 when left out"),
        (
            "quotes?",
            "\"kept\"|\"ascii\"",
            "what becomes of typographic quotation marks: ascii makes them \" and ', kept when left out",
        ),
        ORDER,
    ],
};
const ORDER: Param = (
    "order?",
    "\"random\"|\"shuffled\"",
    "training windows drawn with replacement, or every window once an epoch; random when left out",
);
const OPEN: OptionsTable = OptionsTable {
    class: "OpenOptions",
    fields: &[
        ("split?", "\"train\"|\"valid\"", "what is trained on, or what was held out; train when left out"),
        ("seq_len?", "integer", "tokens of a window, 256 when left out"),
        (
            "order?",
            "\"random\"|\"shuffled\"",
            "training windows drawn with replacement, or every window once an epoch; shuffled when left out",
        ),
        (
            "within_documents?",
            "boolean",
            "training windows run over no document's end, and shorter documents are left out; false when left out",
        ),
        (
            "tokenizer?",
            "Tokenizer",
            "of the model that will read it: another one than it was prepared with is an error",
        ),
    ],
};
const BATCHES: OptionsTable = OptionsTable {
    class: "BatchesOptions",
    fields: &[
        ("batch?", "integer", "windows in a batch, 8 when left out"),
        ("seed?", "integer", "decides which windows, the host's when left out"),
        ("steps?", "integer", "batches to draw, without end when left out"),
    ],
};
const WINDOWS: OptionsTable = OptionsTable {
    class: "WindowsOptions",
    fields: &[
        ("count?", "integer", "the first so many windows, all when left out"),
        ("batch?", "integer", "windows in a batch, 8 when left out"),
    ],
};

/// Registers `lft.data`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.data", "Text for training and evaluation.");
    registry.options(&TEXT);
    registry.options(&OPEN);
    registry.options(&BATCHES);
    registry.options(&WINDOWS);
    registry.function(
        Entry {
            name: "lft.data.text",
            about: "Reads and tokenizes text files, plain or compressed (gzip, zstd, xz); a line <|endoftext|> separates documents.",
            params: &[
                ("paths", "string|string[]", "one file or several"),
                ("options", "TextOptions", "tokenizer and length of windows"),
            ],
            returns: &[("Dataset", "the tokens")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 64})\nassert(d.tokens > 1000 and #d == d.tokens)",
        },
        |lua, (paths, options): (Value, Table)| {
            let options = Options::read(lua, Some(options), &TEXT)?;
            let tokenizer = options.required::<Object<Tokenizer>>("tokenizer")?.0;
            let seq_len = options.count("seq_len", tokenizer.context().unwrap_or(SEQ_LEN).min(SEQ_LEN), 1)?;
            let quotes = options.get::<String>("quotes")?.map_or(Ok(Quotes::Kept), |name| name.parse())?;
            let paths = paths_of(lua, &paths)?;
            let corpus = TokenSet::read(&paths, quotes, tokenizer.get()?, tokenizer.vocabulary())?;
            Ok(Dataset { corpus: Arc::new(corpus), seq_len, order: order(&options, Order::Random)?, within_documents: false })
        },
    )?;
    registry.function(
        Entry {
            name: "lft.data.open",
            about: "Opens tokens that `lft data prepare` wrote, of any size: they are mapped into memory, not read.",
            params: &[("folder", "string", "the folder"), ("options?", "OpenOptions", "split, length and order of windows")],
            returns: &[("Dataset", "the tokens")],
            example: "local ok, message = pcall(lft.data.open, \"data/corpus\", {split = \"valid\"})\nassert(not ok and tostring(message):find(\"holds no prepared tokens\"))",
        },
        |lua, (folder, options): (ScriptPath, Option<Table>)| {
            let options = Options::read(lua, options, &OPEN)?;
            let split = options.get::<String>("split")?.map_or(Ok(Split::Train), |name| name.parse())?;
            let corpus = TokenFolder::open(&folder, split)?;
            let seq_len = options.count("seq_len", SEQ_LEN, 1)?;
            if let Some(Object(tokenizer)) = options.get::<Object<Tokenizer>>("tokenizer")? {
                let same = tokenizer_hash(tokenizer.get()?)? == corpus.manifest.plan.tokenizer_blake3;
                ensure!(same, "{} was prepared with another tokenizer", folder.display());
            }
            let within_documents = options.or("within_documents", false)?;
            Ok(Dataset {
                corpus: Arc::new(corpus),
                seq_len,
                order: order(&options, Order::Shuffled)?,
                within_documents,
            })
        },
    )?;
    let fields = &[
        ("tokens", "integer", "number of tokens"),
        ("documents", "integer", "number of documents"),
        ("seq_len", "integer", "tokens of a window"),
    ];
    registry.class(Class { name: "Dataset", about: "A tokenized text.", fields }, members)
}

fn members(class: &mut Members<'_, Dataset>) {
    class.field("tokens", |_, this: &Dataset| Ok(this.corpus.len()));
    class.field("documents", |_, this: &Dataset| Ok(this.corpus.documents()));
    class.field("seq_len", |_, this: &Dataset| Ok(this.seq_len));
    class.meta(
        Entry {
            name: "Dataset.__len",
            about: "Number of tokens.",
            params: &[],
            returns: &[("integer", "as the field tokens")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer})\nassert(#d == d.tokens)",
        },
        |_, this: &Dataset, ()| Ok(this.corpus.len()),
    );
    class.method(
        Entry {
            name: "Dataset:batches",
            about: "Iterates over batches of training windows. Which ones depends on the seed and the number of the batch alone.",
            params: &[("options?", "BatchesOptions", "size, seed and number")],
            returns: &[("fun(): Tensor|nil", "an iterator for `for`; each batch (B, T) of token ids")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nfor ids in d:batches{batch = 2, seed = 1, steps = 3} do assert(ids:shape()[2] == 16) end",
        },
        |lua, this: &Dataset, options: Option<Table>| -> anyhow::Result<Function> {
            let options = Options::read(lua, options, &BATCHES)?;
            let steps = options.get::<u64>("steps")?.unwrap_or(u64::MAX);
            let seed = options.or("seed", State::of(lua)?.seed)?;
            let sampler = this.sampler(options.count("batch", BATCH, 1)?, seed)?;
            let next = AtomicU64::new(0);
            Ok(lua.create_function(move |lua, _: MultiValue| {
                guard(lua, "Dataset:batches", || {
                    let step = next.fetch_add(1, Ordering::Relaxed);
                    (step < steps).then(|| sampler.tensor(step).map(Handle::new)).transpose()
                })
            })?)
        },
    );
    class.method(
        Entry {
            name: "Dataset:windows",
            about: "The text's windows in order, none overlapping, as evaluations read them: each holds the token that \
                    follows its last, so that the first T are read and the last T predicted.",
            params: &[("options?", "WindowsOptions", "how many, and how many in a batch")],
            returns: &[("Tensor[]", "batches (B, T + 1) of token ids")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nassert(#d:windows{count = 5, batch = 2} == 3)",
        },
        |lua, this: &Dataset, options: Option<Table>| {
            let options = Options::read(lua, options, &WINDOWS)?;
            let count = options.get::<usize>("count")?;
            let windows = this.windows(count, options.count("batch", BATCH, 1)?)?;
            Ok(windows.into_iter().map(Handle::new).collect::<Vec<_>>())
        },
    );
    class.hidden("Dataset.__tostring", |_, this: &Dataset, _: MultiValue| {
        let (tokens, documents) = (this.corpus.len(), this.corpus.documents());
        Ok(format!("Dataset: {tokens} tokens of {documents} documents, windows of {}", this.seq_len))
    });
}

impl Dataset {
    /// The text itself.
    pub fn tokens(&self) -> &dyn Tokens {
        self.corpus.as_ref()
    }

    /// Tokens of a window.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// Windows for training.
    ///
    /// # Errors
    /// A text shorter than one window, and one whose documents are.
    pub fn sampler(&self, batch: usize, seed: u64) -> anyhow::Result<Sampler> {
        self.placed(Sampler::new(self.corpus.clone(), self.seq_len, batch, seed)?)
    }

    /// The same with the token that follows each window's last.
    ///
    /// # Errors
    /// As [`Dataset::sampler`].
    pub fn predicting(&self, batch: usize, seed: u64) -> anyhow::Result<Sampler> {
        self.placed(Sampler::new(self.corpus.clone(), self.seq_len, batch, seed)?.predicting()?)
    }

    fn placed(&self, sampler: Sampler) -> anyhow::Result<Sampler> {
        let sampler = sampler.ordered(self.order);
        if self.within_documents { sampler.within_documents() } else { Ok(sampler) }
    }

    /// The first `count` windows in order, in batches (B, T + 1).
    ///
    /// # Errors
    /// A text shorter than one window.
    pub fn windows(&self, count: Option<usize>, batch: usize) -> anyhow::Result<Vec<Tensor>> {
        let all: Vec<Vec<u32>> = windows(self.corpus.as_ref(), self.seq_len, count)?.collect();
        let stack = |rows: &[Vec<u32>]| {
            Ok(Tensor::from_vec(rows.concat(), (rows.len(), self.seq_len + 1), &Device::Cpu)?)
        };
        all.chunks(batch).map(stack).collect()
    }
}

fn order(options: &Options, default: Order) -> anyhow::Result<Order> {
    options.get::<String>("order")?.map_or(Ok(default), |name| name.parse())
}
