//! `lft.rivals`: other ways to make a model shallower.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use candle_core::Tensor;
use mlua::{Lua, MultiValue, Table};

use super::catalogue::{Class, Entry, OptionsTable, Param, join};
use super::data::{BATCH, Dataset};
use super::flow::block_option;
use super::interrupt;
use super::object::Object;
use super::options::Options;
use super::progress;
use super::pythia::Model;
use super::register::{Registry, userdata};
use super::state::State;
use crate::meter::Meter;
use crate::rivals::{self, Distances, replace_me};

/// What [`rivals::distances`] measured.
struct Measured(Distances);
userdata!(Measured);

/// Calibration batches unless an option says otherwise.
const BATCHES: usize = 16;
/// Ridge unless an option says otherwise: enough to make the solution unique, too little to bend it.
const RIDGE: f64 = 1e-4;
/// Work shorter than this shows no progress.
const PATIENCE: Duration = Duration::from_secs(2);

const CALIBRATION: [Param; 4] = [
    ("data", "Dataset", "text to measure on"),
    ("batches?", "integer", "batches of windows, 16 when left out"),
    ("batch?", "integer", "windows in a batch, 8 when left out"),
    ("seed?", "integer", "decides which windows, the host's when left out"),
];
const DISTANCES: OptionsTable = OptionsTable { class: "DistancesOptions", fields: &CALIBRATION };
const REPLACE_ME: OptionsTable = OptionsTable {
    class: "ReplaceMeOptions",
    fields: &{
        const OWN: [Param; 2] = [
            (
                "block",
                "integer[]",
                "{m, n}: layer m is kept and takes the linear map in, the layers m + 1 to n - 1 go",
            ),
            (
                "ridge?",
                "number",
                "regularisation as a share of the mean square of the MLP's output, 1e-4 when left out",
            ),
        ];
        const FIELDS: [Param; 6] = join(CALIBRATION, OWN);
        FIELDS
    },
};

/// Registers `lft.rivals`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.rivals", "Other ways to make a model shallower, to be held against flows.");
    registry.options(&DISTANCES);
    registry.options(&REPLACE_ME);
    registry.function(
        Entry {
            name: "lft.rivals.distances",
            about: "How far the layers turn the residual stream: mean distances between the latents at every two boundaries.",
            params: &[("model", "Pythia", "the model"), ("options", "DistancesOptions", "text to measure on")],
            returns: &[("Distances", "by boundaries and by layers")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal far = lft.rivals.distances(m, {data = d, batches = 1, batch = 1})\nassert(far:cosine(0, 24) > 0 and far:angular(6, 12) < 1 and #far:least_influential() == 24)",
        },
        |lua, (model, options): (Object<Model>, Table)| {
            let options = Options::read(lua, Some(options), &DISTANCES)?;
            let batches = calibration(lua, &options)?;
            let meter = meter(lua, &batches, "distances")?;
            let found = rivals::distances(&model.0.0, &batches, |done| meter.set(done as u64, None))?;
            interrupt::check()?;
            Ok(Measured(found))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.rivals.replace_me",
            about: "ReplaceMe: the layers of a block but the first replaced by a linear map, which least squares estimates \
                    without training and which is merged into the first.",
            params: &[("model", "Pythia", "the model"), ("options", "ReplaceMeOptions", "block and text")],
            returns: &[("Pythia", "the shorter model")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 64})\nlocal short = lft.rivals.replace_me(m, {block = {6, 9}, data = d, batches = 1})\nassert(short.config.num_hidden_layers == 22)",
        },
        |lua, (model, options): (Object<Model>, Table)| {
            let options = Options::read(lua, Some(options), &REPLACE_ME)?;
            let block = block_option(&options, &model.0.0)?.context("option 'block' is missing")?;
            let batches = calibration(lua, &options)?;
            let meter = meter(lua, &batches, "ReplaceMe")?;
            let ridge = options.or("ridge", RIDGE)?;
            let done = |done| meter.set(done as u64, None);
            let short = replace_me(&model.0.0, block.m, block.n, &batches, ridge, done)?;
            interrupt::check()?;
            Ok(Model(Arc::new(short)))
        },
    )?;
    let about = "Mean distances between the latents at every two boundaries a < b of a model, over tokens.";
    registry.class::<Measured>(Class { name: "Distances", about, fields: &[] }, |class| {
        const ENDS: [Param; 2] = [("a", "integer", "a boundary"), ("b", "integer", "a later one")];
        class.method(
            Entry {
                name: "Distances:cosine",
                about: "1 − cos(x_a, x_b), the criterion of LLM-Streamline; between neighbours ShortGPT's block influence.",
                params: &ENDS,
                returns: &[("number", "0 when no token turns, at most 2")],
                example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nassert(lft.rivals.distances(m, {data = d, batches = 1}):cosine(6, 12) < 2)",
            },
            |_, this: &Measured, (a, b): (usize, usize)| this.0.between(a, b).map(|at| at.cosine),
        );
        class.method(
            Entry {
                name: "Distances:angular",
                about: "arccos(cos(x_a, x_b))/π, the criterion of \"The Unreasonable Ineffectiveness of the Deeper Layers\".",
                params: &ENDS,
                returns: &[("number", "0 when no token turns, at most 1")],
                example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nassert(lft.rivals.distances(m, {data = d, batches = 1}):angular(6, 12) < 1)",
            },
            |_, this: &Measured, (a, b): (usize, usize)| this.0.between(a, b).map(|at| at.angular),
        );
        class.method(
            Entry {
                name: "Distances:least_influential",
                about: "All layers by block influence, the least first: those that ShortGPT leaves out.",
                params: &[],
                returns: &[("integer[]", "layers, counted from 0")],
                example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal order = lft.rivals.distances(m, {data = d, batches = 1}):least_influential()\nassert(m:without({order[1], order[2]}).config.num_hidden_layers == 22)",
            },
            |_, this: &Measured, ()| Ok(this.0.least_influential()),
        );
        class.hidden("Distances.__tostring", |_, this: &Measured, _: MultiValue| {
            Ok(format!("Distances: between {} boundaries", this.0.boundaries()))
        });
    })
}

/// Random windows of the text, as [`CALIBRATION`] options say.
fn calibration(lua: &Lua, options: &Options) -> anyhow::Result<Vec<Tensor>> {
    let data = options.required::<Object<Dataset>>("data")?.0;
    let seed = options.or("seed", State::of(lua)?.seed)?;
    let sampler = data.sampler(options.count("batch", BATCH, 1)?, seed)?;
    (0..options.count("batches", BATCHES, 1)? as u64).map(|step| sampler.tensor(step)).collect()
}

fn meter(lua: &Lua, batches: &[Tensor], label: &str) -> anyhow::Result<Meter> {
    let tokens = batches.first().map_or(0, Tensor::elem_count) as u64;
    progress::meter(lua, batches.len() as u64, label, ("tokens", tokens), PATIENCE)
}
