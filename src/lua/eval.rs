//! `lft.eval`: figures of merit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use candle_core::Tensor;
use mlua::{Lua, MultiValue, Table, Value};

use super::catalogue::{Class, Entry, OptionsTable, Param};
use super::data::{BATCH, Dataset};
use super::flow::{SKIP, block_option, skip_option};
use super::interrupt;
use super::object::Object;
use super::options::Options;
use super::progress::meter;
use super::pythia::Model;
use super::register::{Members, Registry, userdata};
use super::tensor::{Handle, TensorArg};
use crate::eval::{self, Metrics, Reference};
use crate::flow::Block;
use crate::pythia::Pythia;

/// What a teacher computed on some windows.
#[derive(Clone)]
pub struct References(Arc<Reference>);
userdata!(References);

/// Evaluations shorter than this show no progress.
const PATIENCE: Duration = Duration::from_secs(2);
/// Batches of windows that an evaluation reads unless an option says otherwise.
const BATCHES: usize = 8;

/// What evaluations read, for options tables.
pub const SOURCE: [Param; 3] = [
    ("data", "Dataset|Reference", "a text, or what lft.eval.reference made of one"),
    ("batches?", "integer", "batches of windows of a data set, 8 when left out"),
    ("batch?", "integer", "windows in a batch, 8 when left out"),
];
const REFERENCE: OptionsTable = OptionsTable {
    class: "ReferenceOptions",
    fields: &[
        ("data", "Dataset", "held-out text"),
        ("block", "integer[]", "{m, n}: the layers m to n - 1 that are to be replaced"),
        ("windows?", "integer", "the first so many windows of the text, 64 when left out"),
        ("batch?", "integer", "windows in a batch, 8 when left out"),
    ],
};

const LOSS: OptionsTable = OptionsTable {
    class: "LossOptions",
    fields: &[
        ("data", "Dataset", "held-out text"),
        ("windows?", "integer", "the first so many windows of the text, all when left out"),
        ("batch?", "integer", "windows in a batch, 8 when left out"),
    ],
};

/// Registers `lft.eval`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.eval", "How far a student is from its teacher.");
    registry.options(&REFERENCE);
    registry.options(&LOSS);
    let fields = &[
        ("kl", "number", "KL(teacher ‖ student) of the next token, mean over tokens, nats"),
        ("nmse", "number", "Σ‖x̂₁ − x1‖² / Σ‖x1‖² at the block's end"),
        ("ppl", "number", "perplexity of the student"),
        ("teacher_ppl", "number", "perplexity of the teacher on the same tokens"),
        ("nfe", "integer", "velocity evaluations of one window"),
        (
            "mean_nfe",
            "number",
            "velocity evaluations of a token, on average; below nfe where tokens stop early",
        ),
        ("tokens", "integer", "tokens that these are means over"),
        ("seconds", "number", "wall time of the evaluation, without the teacher's side"),
    ];
    registry.record("Metrics", "Figures of merit on held-out text.", fields);
    registry.function(
        Entry {
            name: "lft.eval.reference",
            about: "Runs the teacher over held-out windows once, for any number of evaluations of students that replace \
                    the same block.",
            params: &[("model", "Pythia", "the teacher"), ("options", "ReferenceOptions", "text, windows and block")],
            returns: &[("Reference", "to be given as data= where something is evaluated")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal ref = lft.eval.reference(m, {data = d, block = {6, 8}, windows = 1})\nassert(ref.teacher_ppl > 1 and ref.block[2] == 8)",
        },
        |lua, (model, options): (Object<Model>, Table)| {
            let options = Options::read(lua, Some(options), &REFERENCE)?;
            let (data, block) = (options.required::<Object<Dataset>>("data")?.0, block_option(&options, &model.0.0)?);
            let block = block.context("option 'block' is missing")?;
            let (windows, batch) = (options.count("windows", 64, 1)?, options.count("batch", BATCH, 1)?);
            build(lua, &model.0.0, block, &data, windows, batch)
        },
    )?;
    registry.function(
        Entry {
            name: "lft.eval.loss",
            about: "The loss of a language model on held-out text: its mean cross-entropy of the next token, in nats. \
                    A window of T tokens predicts T tokens.",
            params: &[("model", "Pythia", "the model"), ("options", "LossOptions", "text and windows")],
            returns: &[("number", "nats a token; exp of it is the perplexity"), ("integer", "tokens that it is the mean over")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 32})\nlocal nats, tokens = lft.eval.loss(m, {data = d, windows = 4})\nassert(nats < 5 and tokens == 128)",
        },
        |lua, (model, options): (Object<Model>, Table)| {
            let options = Options::read(lua, Some(options), &LOSS)?;
            let data = options.required::<Object<Dataset>>("data")?.0;
            let windows = data.windows(options.get("windows")?, options.count("batch", BATCH, 1)?)?;
            let tokens = windows.iter().map(|batch| batch.dims()[0] * data.seq_len()).sum::<usize>();
            let meter = meter(lua, tokens as u64, "held-out text", ("tokens", 1), PATIENCE)?;
            let nats = eval::language_loss(&model.0.0, &windows, |done| {
                meter.set(done as u64, None);
                interrupt::check()
            })?;
            Ok((nats, tokens))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.eval.kl",
            about: "KL(p ‖ q) of the next-token distribution, summed over the vocabulary, mean over tokens, in nats.",
            params: &[("p_logits", "Tensor", "(…, V), the teacher's"), ("q_logits", "Tensor", "(…, V), the student's")],
            returns: &[("number", "0 when they agree")],
            example: "local p = lft.tensor({{1, 2, 3}})\nassert(lft.eval.kl(p, p) == 0 and lft.eval.kl(p, -p) > 1)",
        },
        |_, (p, q): (TensorArg, TensorArg)| eval::kl(&p.0, &q.0),
    )?;
    registry.function(
        Entry {
            name: "lft.eval.nmse",
            about: "Normalised mean squared error Σ‖x − x1‖² / Σ‖x1‖².",
            params: &[("x", "Tensor", "the approximation"), ("x1", "Tensor", "the truth, of the same shape")],
            returns: &[("number", "0 when they agree")],
            example: "assert(lft.eval.nmse(lft.zeros({2, 3}), lft.ones({2, 3})) == 1)",
        },
        |_, (x, x1): (TensorArg, TensorArg)| eval::nmse(&x.0, &x1.0),
    )?;
    registry.function(
        Entry {
            name: "lft.eval.ppl",
            about: "Perplexity: exp of the mean cross-entropy of the targets.",
            params: &[
                ("logits", "Tensor", "(…, V)"),
                ("targets", super::ids::IDS, "(…), the tokens that came"),
            ],
            returns: &[("number", "at least 1")],
            example: "local ppl = lft.eval.ppl(lft.zeros({2, 4}), {1, 3})\nassert(math.abs(ppl - 4) < 1e-5)",
        },
        |_, (logits, targets): (TensorArg, super::ids::Ids)| {
            let targets = targets.0.to_dtype(candle_core::DType::U32)?.to_device(logits.0.device())?;
            eval::perplexity(&logits.0, &targets)
        },
    )?;
    let fields = &[
        ("teacher_ppl", "number", "perplexity of the teacher"),
        ("block", "integer[]", "{m, n}, the block that may be replaced"),
    ];
    let about = "What a teacher computed on held-out windows: the measure of every student that replaces the same block.";
    registry.class(Class { name: "Reference", about, fields }, members)
}

fn members(class: &mut Members<'_, References>) {
    class.field("teacher_ppl", |_, this: &References| this.0.teacher_ppl());
    class.field("block", |_, this: &References| Ok([this.0.block.m, this.0.block.n]));
    class.method(
        Entry {
            name: "Reference:skip",
            about: "Evaluates the teacher without some consecutive layers of the block.",
            params: &[("options", "SkipOptions", "which layers")],
            returns: &[("Metrics", "figures of merit")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal ref = lft.eval.reference(m, {data = d, block = {6, 8}, windows = 1})\nassert(ref:skip{from = 7, count = 1}.kl > 0)",
        },
        |lua, this: &References, options: Table| {
            let options = Options::read(lua, Some(options), &SKIP)?;
            let skip = skip_option(&options, &this.0.teacher)?;
            metrics(lua, || this.0.skip(&skip))
        },
    );
    class.method(
        Entry {
            name: "Reference:evaluate",
            about: "Evaluates any replacement of the block, given as a function of the latents in front of it.",
            params: &[(
                "f",
                "fun(x0: Tensor): Tensor, integer|nil",
                "latents (B, T, D) behind the block from those in front of it, and how many velocity evaluations it took",
            )],
            returns: &[("Metrics", "figures of merit")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal ref = lft.eval.reference(m, {data = d, block = {6, 8}, windows = 1})\nassert(ref:evaluate(function(x0) return m:run(x0, 6, 8) end).kl < 1e-6)",
        },
        |lua, this: &References, f: mlua::Function| {
            let transport = |x0: &Tensor| {
                let (x1, nfe) = f.call::<(Value, Option<usize>)>(Handle::new(x0.clone()))?;
                Ok((TensorArg::of(&x1).context("the function must return latents")?, nfe.unwrap_or(0) as f64))
            };
            metrics(lua, || this.0.evaluate(transport))
        },
    );
    class.hidden("Reference.__tostring", |_, this: &References, _: MultiValue| {
        Ok(format!("Reference: block {}, teacher perplexity {:.2}", this.0.block, this.0.teacher_ppl()?))
    });
}

fn build(
    lua: &Lua,
    teacher: &Arc<Pythia>,
    block: Block,
    data: &Dataset,
    windows: usize,
    batch: usize,
) -> anyhow::Result<References> {
    let windows = data.windows(Some(windows), batch)?;
    let count = windows.iter().map(|batch| batch.dims()[0] as u64).sum();
    let meter = meter(lua, count, "teacher", ("windows", 1), PATIENCE)?;
    let reference = Reference::new(teacher.clone(), block, &windows, |done| meter.set(done as u64, None))?;
    interrupt::check()?;
    Ok(References(Arc::new(reference)))
}

/// What [`SOURCE`] options say: a reference as it is, or one of a data set's first windows.
///
/// # Errors
/// A reference of another teacher, or one together with options that choose windows.
pub fn source(
    lua: &Lua,
    options: &Options,
    teacher: &Arc<Pythia>,
    block: Block,
) -> anyhow::Result<Arc<Reference>> {
    let data: Value = options.required("data")?;
    let Some(given) = data.as_userdata().and_then(|data| data.borrow::<References>().ok()) else {
        let data = options.required::<Object<Dataset>>("data")?.0;
        let (batches, batch) = (options.count("batches", BATCHES, 1)?, options.count("batch", BATCH, 1)?);
        return Ok(build(lua, teacher, block, &data, batches.saturating_mul(batch), batch)?.0);
    };
    if options.get::<usize>("batches")?.is_some() || options.get::<usize>("batch")?.is_some() {
        bail!("options 'batches' and 'batch' choose windows of a data set; a Reference has its own");
    }
    ensure!(Arc::ptr_eq(&given.0.teacher, teacher), "the Reference was made with another teacher");
    Ok(given.0.clone())
}

/// Evaluates and returns the metrics as a table, with the time that they took.
///
/// # Errors
/// Those of the evaluation.
pub fn metrics(lua: &Lua, evaluate: impl FnOnce() -> anyhow::Result<Metrics>) -> anyhow::Result<Table> {
    interrupt::check()?;
    let begun = Instant::now();
    let metrics = evaluate()?;
    let table = lua.create_table()?;
    table.set("kl", metrics.kl)?;
    table.set("nmse", metrics.nmse)?;
    table.set("ppl", metrics.ppl)?;
    table.set("teacher_ppl", metrics.teacher_ppl)?;
    table.set("nfe", metrics.nfe)?;
    table.set("mean_nfe", metrics.mean_nfe)?;
    table.set("tokens", metrics.tokens)?;
    table.set("seconds", begun.elapsed().as_secs_f64())?;
    Ok(table)
}
