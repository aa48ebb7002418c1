//! `lft.pythia`: models and their tokenizers.

use std::sync::Arc;

use anyhow::{bail, ensure};
use candle_core::DType;
use mlua::{Lua, Table, Value};

use super::catalogue::{Class, Entry, OptionsTable, Param};
use super::device;
use super::generate::{self, continued};
use super::ids::{IDS, Ids};
use super::object::Object;
use super::options::Options;
use super::path::ScriptPath;
use super::register::{Members, Registry, userdata};
use super::state::State;
use super::tensor::{Handle, TensorArg, placement};
use super::tokenizer::Tokenizer;
use crate::pythia::{Config, Pythia};

/// A model.
#[derive(Clone)]
pub struct Model(pub Arc<Pythia>);
userdata!(Model);

const LOAD: OptionsTable = OptionsTable {
    class: "LoadOptions",
    fields: &[
        ("dtype?", "\"f32\"|\"bf16\"|\"f16\"", "number format of weights and latents, f32 when left out"),
        ("device?", "string", "cpu, cuda, cuda:1, metal; the host's device when left out"),
    ],
};
const NEW: OptionsTable = OptionsTable {
    class: "NewPythiaOptions",
    fields: &[
        (
            "size",
            "string",
            "14m, 31m, 70m, 160m, 410m, 1b, 1.4b, 2.8b, 6.9b or 12b, or LxD: L layers of width D (\"24x128\")",
        ),
        ("tokenizer?", "Tokenizer", "of the text that it will be trained on; saved with the model"),
        ("vocab_size?", "integer", "rows of the embedding, padded to 128; by the tokenizer when left out"),
        ("context?", "integer", "longest sequence in tokens, 2048 when left out"),
        ("seed?", "integer", "decides the weights, the host's when left out"),
        ("dtype?", "\"f32\"|\"bf16\"|\"f16\"", "number format of weights and latents, f32 when left out"),
        ("device?", "string", "cpu, cuda, cuda:1, metal; the host's device when left out"),
    ],
};
const GENERATE: OptionsTable = OptionsTable { class: "GenerateOptions", fields: &generate::SAMPLING };
const CONFIG: &[Param] = &[
    ("hidden_size", "integer", "residual width D"),
    ("intermediate_size", "integer", "width of the MLP"),
    ("num_hidden_layers", "integer", "layers L"),
    ("num_attention_heads", "integer", "attention heads H"),
    ("vocab_size", "integer", "rows of the embedding"),
    ("max_position_embeddings", "integer", "longest sequence in tokens"),
    ("layer_norm_eps", "number", "eps of every layer norm"),
    ("rotary_fraction", "number", "share of each head's channels that the rotary embedding turns"),
    ("rope_theta", "number", "base of the rotary frequencies"),
    ("use_parallel_residual", "boolean", "attention and MLP read the same input"),
    ("tie_word_embeddings", "boolean", "the head reuses the embedding"),
    ("attention_bias", "boolean", "the attention's projections carry biases"),
    ("hidden_act", "string", "non-linearity of the MLP"),
    ("initializer_range", "number", "standard deviation of fresh weights"),
    ("bos_token_id", "integer|nil", "first token of a text"),
    ("eos_token_id", "integer|nil", "token that ends a text"),
    ("dtype", "string|nil", "number format that the checkpoint states"),
];

/// Registers `lft.pythia`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.pythia", "GPT-NeoX models, the architecture of Pythia.");
    registry.options(&LOAD);
    registry.options(&NEW);
    registry.options(&GENERATE);
    registry.record("PythiaConfig", "The numbers that define a model, named as in its config.json.", CONFIG);
    registry.function(
        Entry {
            name: "lft.pythia.load",
            about: "Loads a model from a Hugging Face folder or from the hub by its id.",
            params: &[
                ("path", "string", "a folder, or an id such as EleutherAI/pythia-410m"),
                ("options?", "LoadOptions", "number format and device"),
            ],
            returns: &[("Pythia", "the model")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nassert(m.config.num_hidden_layers == 24)",
        },
        |lua, (path, options): (String, Option<Table>)| {
            let options = Options::read(lua, options, &LOAD)?;
            if State::of(lua)?.fence.is_some() {
                let folder = ScriptPath::new(lua, &path)?;
                ensure!(
                    folder.is_dir(),
                    "there is no folder {path}, and in the sandbox nothing is downloaded"
                );
            }
            let (dtype, device) = placement(&options, DType::F32, &State::of(lua)?.device)?;
            Ok(Model(Arc::new(Pythia::load(&path, dtype, &device)?)))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.pythia.new",
            about: "A model with random weights in a shape of the Pythia family, to be trained with lft.train.pretrain.",
            params: &[("options", "NewPythiaOptions", "shape, vocabulary and seed")],
            returns: &[("Pythia", "the model")],
            example: "local m = lft.pythia.new{size = \"2x32\", vocab_size = 300}\nassert(m.config.num_hidden_layers == 2 and m.config.vocab_size == 384)",
        },
        |lua, options: Table| {
            let options = Options::read(lua, Some(options), &NEW)?;
            let tokenizer = options.get::<Object<Tokenizer>>("tokenizer")?.map(|object| object.0);
            let known = tokenizer.as_ref().map(Tokenizer::vocabulary);
            let vocabulary = match (options.count("vocab_size", 0, 1)?, known) {
                (0, Some(known)) => known,
                (0, None) => bail!("option 'vocab_size' is missing, or 'tokenizer'"),
                (given, Some(known)) if given < known => {
                    bail!("option 'vocab_size' = {given}, but the tokenizer has {known} tokens")
                }
                (given, _) => given,
            };
            let mut config = Config::of_size(&options.required::<String>("size")?, vocabulary)?;
            config.max_position_embeddings = options.count("context", config.max_position_embeddings, 1)?;
            let state = State::of(lua)?;
            let (dtype, device) = placement(&options, DType::F32, &state.device)?;
            let mut model = Pythia::random(config, options.or("seed", state.seed)?, dtype, &device)?;
            model.tokenizer = tokenizer.map(|known| known.get().cloned().map(Arc::new)).transpose()?;
            Ok(Model(Arc::new(model)))
        },
    )?;
    let fields = &[
        ("config", "PythiaConfig", "the numbers that define the model"),
        ("tokenizer", "Tokenizer", "its tokenizer; an error when it has none"),
        ("parameter_count", "integer", "number of weights"),
    ];
    let about =
        "A language model of L layers. Boundary b is the residual stream after b layers, 0 the embeddings.";
    registry.class(Class { name: "Pythia", about, fields }, members)
}

fn members(class: &mut Members<'_, Model>) {
    class.field("config", |lua, this: &Model| config(lua, &this.0.config));
    class.field("tokenizer", |_, this: &Model| {
        this.0.tokenizer()?;
        Ok(Tokenizer::Model(this.0.clone()))
    });
    class.field("parameter_count", |_, this: &Model| Ok(this.0.config.parameters().total));
    class.method(
        Entry {
            name: "Pythia:hidden",
            about: "The residual stream at a boundary.",
            params: &[("ids", IDS, "token ids (B, T)"), ("boundary", "integer", "0 to L")],
            returns: &[("Tensor", "(B, T, D)")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nassert(m:hidden({{1, 2, 3}}, 6):shape()[3] == m.config.hidden_size)",
        },
        |_, this: &Model, (ids, boundary): (Ids, usize)| Ok(Handle::new(this.0.hidden(&ids.0, boundary)?)),
    );
    class.method(
        Entry {
            name: "Pythia:run",
            about: "Carries latents from one boundary to a later one.",
            params: &[
                ("x", "Tensor", "latents (B, T, D) at `from`"),
                ("from", "integer", "boundary where they are"),
                ("to", "integer", "boundary where they go"),
            ],
            returns: &[("Tensor", "(B, T, D)")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal x = m:run(m:hidden({{1, 2}}, 6), 6, 12)\nassert(x:allclose(m:hidden({{1, 2}}, 12)))",
        },
        |_, this: &Model, (x, from, to): (TensorArg, usize, usize)| Ok(Handle::new(this.0.run(&x.0, from, to)?)),
    );
    class.method(
        Entry {
            name: "Pythia:head",
            about: "Final norm and unembedding.",
            params: &[("x", "Tensor", "latents (B, T, D) at the last boundary")],
            returns: &[("Tensor", "logits (B, T, V)")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal ids = {{1, 2, 3}}\nassert(m:head(m:hidden(ids, 24)):allclose(m:logits(ids)))",
        },
        |_, this: &Model, x: TensorArg| Ok(Handle::new(this.0.head(&x.0)?)),
    );
    class.method(
        Entry {
            name: "Pythia:without",
            about: "The model with some of its layers left out; it shares the weights of the others.",
            params: &[("layers", "integer[]", "layers to leave out, counted from 0")],
            returns: &[("Pythia", "the shorter model")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nassert(m:without({3, 7}).config.num_hidden_layers == 22)",
        },
        |_, this: &Model, layers: Vec<usize>| Ok(Model(Arc::new(this.0.without(&layers)?))),
    );
    class.method(
        Entry {
            name: "Pythia:logits",
            about: "Logits of the next token at every position.",
            params: &[("ids", IDS, "token ids (B, T)")],
            returns: &[("Tensor", "(B, T, V)")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nassert(m:logits({{1, 2, 3}}):shape()[3] == 4096)",
        },
        |_, this: &Model, ids: Ids| Ok(Handle::new(this.0.logits(&ids.0)?)),
    );
    class.method(
        Entry {
            name: "Pythia:generate",
            about: "Continues a text.",
            params: &[
                ("prompt", "string|integer[]", "a text or its token ids"),
                ("options?", "GenerateOptions", "length and choice of tokens"),
            ],
            returns: &[
                ("string|nil", "the continuation; nil when the model has no tokenizer"),
                ("integer[]", "its token ids"),
            ],
            example: "local text, ids = lft.pythia.load(\"data/teacher\"):generate(\"It was\", {max_tokens = 3})\nassert(#ids == 3 and #text > 0)",
        },
        |lua, this: &Model, (prompt, options): (Value, Option<Table>)| {
            let options = Options::read(lua, options, &GENERATE)?;
            continued(lua, this.0.as_ref(), &this.0, &prompt, &options)
        },
    );
    class.method(
        Entry {
            name: "Pythia:to",
            about: "The same model in another number format or on another device.",
            params: &[("options", "LoadOptions", "number format and device; what is left out stays")],
            returns: &[("Pythia", "the converted model")],
            example: "local m = lft.pythia.load(\"data/teacher\"):to{dtype = \"bf16\"}\nassert(m:hidden({{1, 2}}, 1):dtype() == \"bf16\")",
        },
        |lua, this: &Model, options: Table| {
            let options = Options::read(lua, Some(options), &LOAD)?;
            let (dtype, device) = placement(&options, this.0.dtype(), this.0.device())?;
            Ok(Model(Arc::new(this.0.to(dtype, &device)?)))
        },
    );
    class.method(
        Entry {
            name: "Pythia:save",
            about: "Writes the model as a Hugging Face folder.",
            params: &[("folder", "string", "made when it is missing")],
            returns: &[("nil", "nothing")],
            example: "local folder = os.tmpname()\nos.remove(folder)\nlft.pythia.load(\"data/teacher\"):save(folder)\nassert(lft.pythia.load(folder).config.hidden_size == 128)\nfor _, name in ipairs{\"config.json\", \"tokenizer.json\", \"model.safetensors\"} do os.remove(folder .. \"/\" .. name) end\nos.remove(folder)",
        },
        |_, this: &Model, folder: ScriptPath| this.0.save(&folder),
    );
    class.hidden("Pythia.__tostring", |_, this: &Model, _: mlua::MultiValue| {
        let config = &this.0.config;
        Ok(format!(
            "Pythia: {} layers, width {}, {} heads, {} tokens known, {} parameters, {} on {}",
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.vocab_size,
            config.parameters().total,
            this.0.dtype().as_str(),
            device::name(this.0.device())
        ))
    });
}

fn config(lua: &Lua, config: &Config) -> anyhow::Result<Table> {
    let table = lua.create_table()?;
    table.set("hidden_size", config.hidden_size)?;
    table.set("intermediate_size", config.intermediate_size)?;
    table.set("num_hidden_layers", config.num_hidden_layers)?;
    table.set("num_attention_heads", config.num_attention_heads)?;
    table.set("vocab_size", config.vocab_size)?;
    table.set("max_position_embeddings", config.max_position_embeddings)?;
    table.set("layer_norm_eps", config.layer_norm_eps)?;
    table.set("rotary_fraction", config.rotary_fraction)?;
    table.set("rope_theta", config.rope_theta)?;
    table.set("use_parallel_residual", config.use_parallel_residual)?;
    table.set("tie_word_embeddings", config.tie_word_embeddings)?;
    table.set("attention_bias", config.attention_bias)?;
    table.set("hidden_act", serde_json::to_value(config.hidden_act)?.as_str())?;
    table.set("initializer_range", config.initializer_range)?;
    table.set("bos_token_id", config.bos_token_id)?;
    table.set("eos_token_id", config.eos_token_id)?;
    table.set("dtype", config.dtype.as_deref())?;
    Ok(table)
}
