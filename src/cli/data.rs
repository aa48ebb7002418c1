//! `lft data`: tokens for training at scale.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::Global;
use crate::console;
use crate::data::input::{self, Cut, Format};
use crate::data::{
    Manifest, PrepareOptions, Prepared, Quotes, SEPARATOR, Source, Stage, TokenFolder, prepare,
};
use crate::meter::Meter;
use crate::pythia::checkpoint;
use crate::results::text_column;

/// Checking inputs shows no progress when it is quicker than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// Turn text into token files, and look at them.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Prepare(PrepareArguments),
    Info(FolderArguments),
    Verify(FolderArguments),
}

/// Tokenize text, JSON lines and Parquet files into a folder that lft.data.open reads.
///
/// Text and JSON lines (.jsonl, .ndjson, .json) may be compressed (.gz, .zst, .xz); all else by its name is text.
/// An interrupted preparation goes on where it ended when the same command is run again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  lft data prepare corpus/*.txt.xz more.jsonl.zst --tokenizer data/teacher --output tokens --holdout 0.01"
)]
struct PrepareArguments {
    /// Files in the order they are read; a folder stands for the files in it, by name.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// A folder with tokenizer.json, or the file itself.
    #[arg(long, value_name = "PATH")]
    tokenizer: PathBuf,
    /// The folder to write.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// The field of JSON lines, or column of Parquet files, that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    field: String,
    /// What separates documents in text files.
    #[arg(long, value_name = "TEXT", default_value = SEPARATOR)]
    separator: String,
    /// Turn typographic quotation marks and apostrophes into " and '.
    #[arg(long)]
    ascii_quotes: bool,
    /// The token that is put behind every document.
    #[arg(long, value_name = "TOKEN", default_value = SEPARATOR)]
    end_of_text: String,
    /// Share of the documents to hold out, as the split `valid`.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    holdout: f64,
    /// Training tokens after which a new shard is begun.
    #[arg(long, value_name = "N", default_value_t = 1 << 24)]
    shard_tokens: usize,
}

/// Show what a prepared folder holds.
#[derive(Debug, clap::Args)]
struct FolderArguments {
    /// A folder that `lft data prepare` wrote.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Prepare(arguments) => run(global, &arguments),
        Command::Info(arguments) => console::print(&describe(&Manifest::read(&arguments.folder)?)),
        Command::Verify(arguments) => {
            let manifest = TokenFolder::verify(&arguments.folder)?;
            console::print(&format!("{} shards agree with their checksums\n", manifest.shards.len()))
        }
    }
}

fn run(global: &Global, arguments: &PrepareArguments) -> Result<()> {
    let path = match arguments.tokenizer.is_dir() {
        true => arguments.tokenizer.join(checkpoint::TOKENIZER),
        false => arguments.tokenizer.clone(),
    };
    let tokenizer = tokenizers::Tokenizer::from_file(&path)
        .map_err(|error| anyhow!("cannot read a tokenizer from {}: {error}", path.display()))?;
    let end_of_text = tokenizer.token_to_id(&arguments.end_of_text).with_context(|| {
        format!("the tokenizer {} has no token {}", path.display(), arguments.end_of_text)
    })?;
    let cut = Cut { separator: arguments.separator.clone(), field: arguments.field.clone() };
    let sources: Vec<Source> = files(&arguments.inputs)?.into_iter().map(|path| source(path, &cut)).collect();
    let quotes = if arguments.ascii_quotes { Quotes::Ascii } else { Quotes::Kept };
    let (holdout, shard_tokens) = (arguments.holdout, arguments.shard_tokens);
    let options = PrepareOptions { cut, quotes, end_of_text, holdout, shard_tokens };

    let begun = Instant::now();
    let mut meter: Option<(Stage, Meter)> = None;
    let mut resumed = 0;
    let manifest = prepare(sources, &tokenizer, &arguments.output, &options, |progress: Prepared| {
        if meter.as_ref().is_none_or(|(stage, _)| *stage != progress.stage) {
            resumed = progress.resumed_shards;
            if resumed > 0 {
                global.note(&format!("going on behind {resumed} complete shards"));
            }
            let label = if progress.stage == Stage::Checking { "checking inputs" } else { "tokenizing" };
            let patience = if progress.stage == Stage::Checking { PATIENCE } else { Duration::ZERO };
            let bar = Meter::new(global.quiet, progress.total_bytes, label, ("bytes", 1), patience)?;
            meter = Some((progress.stage, bar));
        }
        if let Some((_, meter)) = &meter {
            meter.set(progress.bytes, Some(format!("{} tokens", progress.tokens)));
        }
        Ok(())
    })?;
    drop(meter);
    let seconds = begun.elapsed().as_secs_f64();
    let tokens = manifest.train_tokens + manifest.valid_tokens;
    let rate =
        if resumed == 0 { format!(", {:.0} tokens/s", tokens as f64 / seconds) } else { String::new() };
    console::print(&format!("{}took        {seconds:.1} s{rate}\n", describe(&manifest)))
}

/// The files that the inputs stand for.
fn files(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            all.push(input.clone());
            continue;
        }
        let what = || format!("cannot read the folder {}", input.display());
        let entries = std::fs::read_dir(input).with_context(what)?;
        let paths: Vec<PathBuf> =
            entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>().with_context(what)?;
        let mut inside: Vec<PathBuf> = paths.into_iter().filter(|path| path.is_file()).collect();
        ensure!(!inside.is_empty(), "the folder {} holds no files", input.display());
        inside.sort();
        all.extend(inside);
    }
    Ok(all)
}

/// How a file is opened: the one place where Parquet columns become documents.
fn source(path: PathBuf, cut: &Cut) -> Source {
    let cut = cut.clone();
    match input::format_of(&path) {
        Format::Parquet => Source {
            path,
            open: Box::new(move |path, read| {
                let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
                let texts = text_column(path, &cut.field)?;
                // A table counts as read behind its last row.
                let end = std::iter::from_fn(move || {
                    read.fetch_add(size, Ordering::Relaxed);
                    None
                });
                Ok(Box::new(texts.chain(end)))
            }),
        },
        _ => Source { path, open: Box::new(move |path, read| input::open(path, &cut, read)) },
    }
}

fn describe(manifest: &Manifest) -> String {
    let plan = &manifest.plan;
    let rows = [
        ("train", format!("{} tokens", manifest.train_tokens)),
        ("valid", format!("{} tokens", manifest.valid_tokens)),
        ("documents", manifest.documents.to_string()),
        ("shards", format!("{}, {} bytes a token", manifest.shards.len(), plan.token_bytes)),
        ("vocabulary", format!("{} tokens, {} ends a text", plan.vocabulary, plan.end_of_text)),
        ("inputs", plan.inputs.len().to_string()),
    ];
    rows.iter().map(|(name, value)| format!("{name:10}  {value}\n")).collect()
}
