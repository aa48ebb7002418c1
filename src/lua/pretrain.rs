//! `lft.train.pretrain`: language models from scratch.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use candle_core::{DType, Tensor};
use mlua::{Lua, Table};

use super::catalogue::{self, OptionsTable, Param, join};
use super::checkpoint;
use super::data::{self, BATCH, Dataset};
use super::device;
use super::interrupt;
use super::object::Object;
use super::optim::betas;
use super::options::Options;
use super::progress::meter;
use super::pythia::Model;
use super::register::Registry;
use super::results::Run;
use super::state::State;
use crate::eval::language_loss;
use crate::results::{Row, Value};
use crate::train::{Entry, PretrainOptions, Pretrainer};

/// Points of the curve, and of the held-out loss, unless an option says otherwise.
const POINTS: usize = 200;
const VALIDATIONS: usize = 20;

const OWN: [Param; 19] = [
    ("data", "Dataset", "the text to train on"),
    ("valid?", "Dataset", "held-out text, whose loss is measured as the training goes on"),
    ("valid_windows?", "integer", "the first so many windows of it, 64 when left out"),
    ("valid_every?", "integer", "steps between two measurements; 20 of them when left out"),
    ("steps?", "integer", "optimizer steps, 1000 when left out"),
    ("batch?", "integer", "windows in a batch, 8 when left out"),
    ("accumulate?", "integer", "parts that a batch is computed in, to save memory; 1 when left out"),
    (
        "dtype?",
        "\"f32\"|\"bf16\"",
        "format the layers compute in, f32 when left out; weights and moments are f32",
    ),
    ("lr?", "number", "peak learning rate, 1e-3 when left out"),
    ("warmup?", "integer", "steps of linear warm-up, 100 when left out, at most a tenth of all"),
    ("final_lr?", "number", "learning rate at the end as a share of the peak, 0.1 when left out"),
    (
        "optimizer?",
        "\"adamw\"|\"muon\"",
        "adamw when left out; muon makes the updates of the layers' matrices orthogonal",
    ),
    ("betas?", "number[]", "AdamW's β₁ and β₂, {0.9, 0.95} when left out"),
    ("weight_decay?", "number", "decoupled weight decay, 0 when left out"),
    ("clip?", "number", "largest gradient norm, 1 when left out"),
    (
        "ema?",
        "number",
        "decay of an average of the weights, which replaces them at the end; none when left out",
    ),
    ("seed?", "integer", "seed of the data order, the host's when left out"),
    ("run?", "Run", "receives the training curve"),
    ("log_every?", "integer", "steps between two points of the curve; 200 points when left out"),
];
const PRETRAIN: OptionsTable = OptionsTable {
    class: "PretrainOptions",
    fields: &{
        const FIELDS: [Param; 21] = join(OWN, checkpoint::OPTIONS);
        FIELDS
    },
};

/// Registers `lft.train.pretrain`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&checkpoint::CHECKPOINT);
    registry.options(&PRETRAIN);
    let fields = &[
        ("steps", "integer", "optimizer steps taken"),
        ("loss", "number", "cross-entropy on the last batch, nats a token"),
        ("valid_loss", "number|nil", "cross-entropy on the held-out windows at the end, nats a token"),
        ("tokens", "integer", "tokens predicted in training"),
        ("seconds", "number", "wall time"),
    ];
    registry.record("PretrainResult", "Where a pretraining ended.", fields);
    registry.function(
        catalogue::Entry {
            name: "lft.train.pretrain",
            about: "Trains a language model on the next token, from random weights or further. The model given stays as it \
                    is. The same seed gives the same weights on the CPU. A gradient that is not finite stops the training with an error.",
            params: &[("model", "Pythia", "where to start from"), ("options", "PretrainOptions", "data and optimizer")],
            returns: &[("Pythia", "the trained model, in f32"), ("PretrainResult", "where the training ended")],
            example: "local t = lft.pythia.load(\"data/teacher\").tokenizer\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = t, seq_len = 16})\nlocal m, r = lft.train.pretrain(lft.pythia.new{size = \"1x32\", tokenizer = t}, {data = d, valid = d, valid_windows = 2, steps = 2, batch = 2})\nassert(r.tokens == 64 and r.valid_loss < 9 and m.config.num_hidden_layers == 1)",
        },
        |lua, (model, options): (Object<Model>, Table)| {
            let options = Options::read(lua, Some(options), &PRETRAIN)?;
            let (model, result) = pretrain(lua, model.0, &options)?;
            Ok((model, result))
        },
    )
}

fn pretrain(lua: &Lua, model: Model, options: &Options) -> anyhow::Result<(Model, Table)> {
    let mut pretrainer = Pretrainer::new(&model.0, algorithm(options)?)?;
    let steps = pretrainer.options.steps;
    let data = options.required::<Object<Dataset>>("data")?.0;
    let seed = options.or("seed", State::of(lua)?.seed)?;
    let sampler = data.predicting(options.count("batch", BATCH, 1)?, seed)?;
    let (rows, columns) = sampler.shape();
    let each = rows * (columns - 1);
    let journal = Journal {
        run: options.get("run")?,
        every: options.count("log_every", (steps / POINTS).max(1), 1)?,
        steps,
        each,
    };
    let valid = valid(options)?;
    let valid_every = options.count("valid_every", (steps / VALIDATIONS).max(1), 1)?;
    let mut saving = checkpoint::saving(lua, options, || pretrainer.fingerprint(&format!("{sampler:?}")))?;
    let taken = checkpoint::restore(saving.as_ref(), &mut [pretrainer.descent_mut()])?;
    pretrainer.descent().history().iter().try_for_each(|entry| journal.note(entry))?;

    let meter =
        meter(lua, steps as u64, "pretraining", ("tokens", each as u64), Duration::ZERO)?.from(taken as u64);
    let mut held_out = None;
    let outcome = (taken..steps).try_for_each(|step| {
        interrupt::check()?;
        let report = pretrainer.step(&data::batch(&sampler, step as u64)?)?.report;
        let saved = saving.as_ref().is_some_and(|saving| saving.due(report.step, steps));
        let due = saved || report.step == steps || report.step.is_multiple_of(valid_every);
        if due && !valid.is_empty() {
            let loss = language_loss(&pretrainer.model()?, &valid, |_| interrupt::check())?;
            pretrainer.descent_mut().measured(loss);
            held_out = Some(loss);
        }
        if let Some(entry) = pretrainer.descent().history().last() {
            journal.note(entry)?;
        }
        if let Some(saving) = &mut saving {
            saving.after(report.step, steps, &[pretrainer.descent()])?;
        }
        let held_out = held_out.map_or(String::new(), |loss| format!("  held out {loss:.4}"));
        meter.set(report.step as u64, Some(format!("loss {:.4}{held_out}", report.loss)));
        Ok(())
    });
    let written = journal.run.as_ref().map_or(Ok(()), Run::flush);
    outcome.and(written)?;

    let table = lua.create_table()?;
    table.set("steps", steps)?;
    table.set("tokens", steps * each)?;
    if let Some(last) = pretrainer.descent().history().last() {
        table.set("loss", last.report.loss)?;
        table.set("seconds", last.seconds)?;
    }
    let trained = pretrainer.finish()?;
    if !valid.is_empty() {
        table.set("valid_loss", language_loss(&trained, &valid, |_| interrupt::check())?)?;
    }
    Ok((Model(Arc::new(trained)), table))
}

fn algorithm(options: &Options) -> anyhow::Result<PretrainOptions> {
    let default = PretrainOptions::default();
    let dtype = options.get::<String>("dtype")?.map_or(Ok(default.dtype), |name| device::dtype(&name))?;
    ensure!(matches!(dtype, DType::F32 | DType::BF16), "option 'dtype' must be f32 or bf16");
    Ok(PretrainOptions {
        steps: options.count("steps", default.steps, 1)?,
        lr: options.or("lr", default.lr)?,
        warmup: options.count("warmup", default.warmup, 0)?,
        final_lr: options.or("final_lr", default.final_lr)?,
        optimizer: options.get::<String>("optimizer")?.map_or(Ok(default.optimizer), |name| name.parse())?,
        betas: betas(options)?.unwrap_or(default.betas),
        weight_decay: options.or("weight_decay", default.weight_decay)?,
        clip: options.or("clip", default.clip)?,
        accumulate: options.count("accumulate", default.accumulate, 1)?,
        dtype,
        ema: options.get("ema")?,
    })
}

/// Held-out windows in batches; none without held-out text.
fn valid(options: &Options) -> anyhow::Result<Vec<Tensor>> {
    let count = options.count("valid_windows", 64, 1)?;
    match options.get::<Object<Dataset>>("valid")? {
        Some(Object(data)) => data.windows(Some(count), BATCH),
        None => Ok(Vec::new()),
    }
}

/// Where the curve goes.
struct Journal {
    run: Option<Run>,
    every: usize,
    steps: usize,
    /// Tokens predicted in a step.
    each: usize,
}

impl Journal {
    fn note(&self, entry: &Entry) -> anyhow::Result<()> {
        let step = entry.report.step;
        let due =
            step == 1 || step == self.steps || step.is_multiple_of(self.every) || entry.held_out.is_some();
        match &self.run {
            Some(run) if due => run.log_training(self.row(entry)),
            _ => Ok(()),
        }
    }

    fn row(&self, Entry { report, held_out, seconds }: &Entry) -> Row {
        let cells = [
            ("method", Value::from("pretrain")),
            ("step", Value::Int(report.step as i64)),
            ("loss", Value::Float(report.loss)),
            ("valid_loss", held_out.map_or(Value::Null, Value::Float)),
            ("lr", Value::Float(report.lr)),
            ("grad_norm", Value::Float(report.grad_norm)),
            ("tokens", Value::Int((report.step * self.each) as i64)),
            ("seconds", Value::Float(*seconds)),
        ];
        cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
