//! Skip baselines.

use std::sync::Arc;

use mlua::{MultiValue, Table};

use crate::flow::{Block, Skip};
use crate::lua::catalogue::{Class, Entry, OptionsTable};
use crate::lua::eval;
use crate::lua::ids::{IDS, Ids};
use crate::lua::object::Object;
use crate::lua::options::Options;
use crate::lua::pythia::Model;
use crate::lua::register::{Registry, userdata};
use crate::lua::tensor::Handle;
use crate::pythia::Pythia;

/// A teacher and the layers that are left out.
struct Skipped {
    teacher: Arc<Pythia>,
    skip: Skip,
}
userdata!(Skipped);

/// Which layers to leave out.
pub const SKIP: OptionsTable = OptionsTable {
    class: "SkipOptions",
    fields: &[("from", "integer", "first layer left out"), ("count", "integer", "how many")],
};
const EVALUATE: OptionsTable = OptionsTable { class: "SkipEvaluateOptions", fields: &eval::SOURCE };

/// What [`SKIP`] options say.
///
/// # Errors
/// Layers that the teacher does not have.
pub fn option(options: &Options, teacher: &Pythia) -> anyhow::Result<Skip> {
    Skip::new(options.count("from", 0, 0)?, options.count("count", 1, 1)?, teacher.config.num_hidden_layers)
}

/// Registers `lft.flow.skip`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&SKIP);
    registry.options(&EVALUATE);
    registry.function(
        Entry {
            name: "lft.flow.skip",
            about: "The baseline: the teacher without some consecutive layers.",
            params: &[("model", "Pythia", "the teacher"), ("options", "SkipOptions", "which layers")],
            returns: &[("Skip", "the shortened teacher")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nassert(lft.flow.skip(m, {from = 8, count = 2}).parameters_removed > 0)",
        },
        |lua, (model, options): (Object<Model>, Table)| {
            let options = Options::read(lua, Some(options), &SKIP)?;
            let teacher = model.0.0;
            Ok(Skipped { skip: option(&options, &teacher)?, teacher })
        },
    )?;
    let fields = &[
        ("from", "integer", "first layer left out"),
        ("count", "integer", "how many"),
        ("parameters_removed", "integer", "weights of the layers left out"),
    ];
    let about = "A teacher without some consecutive layers.";
    registry.class::<Skipped>(Class { name: "Skip", about, fields }, |class| {
        class.field("from", |_, this: &Skipped| Ok(this.skip.from));
        class.field("count", |_, this: &Skipped| Ok(this.skip.count));
        class.field("parameters_removed", |_, this: &Skipped| Ok(this.skip.parameters_removed(&this.teacher)));
        class.method(
            Entry {
                name: "Skip:logits",
                about: "Logits of the next token at every position.",
                params: &[("ids", IDS, "token ids (B, T)")],
                returns: &[("Tensor", "(B, T, V)")],
                example: "local m = lft.pythia.load(\"data/teacher\")\nassert(lft.flow.skip(m, {from = 8, count = 2}):logits({{1, 2}}):shape()[3] == 4096)",
            },
            |_, this: &Skipped, ids: Ids| Ok(Handle::new(this.skip.logits(&this.teacher, &ids.0)?)),
        );
        class.method(
            Entry {
                name: "Skip:evaluate",
                about: "Holds the shortened teacher against the whole one on held-out text.",
                params: &[("options", "SkipEvaluateOptions", "text")],
                returns: &[("Metrics", "figures of merit; NMSE behind the layers left out, or behind the Reference's block")],
                example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nassert(lft.flow.skip(m, {from = 8, count = 2}):evaluate{data = d, batches = 1, batch = 2}.kl > 0)",
            },
            |lua, this: &Skipped, options: Table| {
                let options = Options::read(lua, Some(options), &EVALUATE)?;
                let (skip, layers) = (this.skip, this.teacher.config.num_hidden_layers);
                let own = Block::new(skip.from, skip.from + skip.count, layers)?;
                let reference = eval::source(lua, &options, &this.teacher, own)?;
                eval::metrics(lua, || reference.skip(&skip))
            },
        );
        class.hidden("Skip.__tostring", |_, this: &Skipped, _: MultiValue| {
            let Skip { from, count } = this.skip;
            Ok(format!("Skip: without layers {from} to {}", from + count - 1))
        });
    })
}
