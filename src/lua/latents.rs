//! `lft.data.latents`: a teacher's latents on disk.

use std::sync::Arc;
use std::time::Duration;

use candle_core::DType;
use mlua::{MultiValue, Table};

use super::catalogue::{Class, Entry, OptionsTable};
use super::data::{BATCH, Dataset};
use super::device;
use super::interrupt;
use super::object::Object;
use super::options::Options;
use super::path::ScriptPath;
use super::progress::meter;
use super::pythia::Model;
use super::register::{Registry, userdata};
use crate::data::LatentCache;
use crate::train::{LatentOptions, cache_latents};

/// A cache that is open.
#[derive(Clone)]
pub struct Latents(pub Arc<LatentCache>);
userdata!(Latents);

const LATENTS: OptionsTable = OptionsTable {
    class: "LatentsOptions",
    fields: &[
        ("data", "Dataset", "the text; its windows lie side by side"),
        ("boundaries", "integer[]", "boundaries to keep: m and n of every block that will be trained"),
        ("dir", "string", "folder of the cache, made when it is missing"),
        ("windows?", "integer", "the first so many windows of the text, all when left out"),
        ("dtype?", "\"f16\"|\"bf16\"|\"f32\"", "format on disk, f16 when left out"),
        ("batch?", "integer", "windows that the teacher reads at a time, 8 when left out"),
    ],
};

/// Registers `lft.data.latents`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&LATENTS);
    registry.function(
        Entry {
            name: "lft.data.latents",
            about: "Keeps a teacher's latents on disk, so that any number of trainings read them instead of running the teacher. \
                    What the folder has already is not computed again; another teacher or text is an error.",
            params: &[("model", "Pythia", "the teacher"), ("options", "LatentsOptions", "text, boundaries and folder")],
            returns: &[("Latents", "stands as data= where students are trained")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal folder = os.tmpname()\nos.remove(folder)\nlocal cache = lft.data.latents(m, {data = d, boundaries = {6, 8}, dir = folder, windows = 4})\nassert(cache.windows == 4 and cache.boundaries[2] == 8)\ncache:verify()\nos.remove(folder .. \"/00000.safetensors\")\nos.remove(folder .. \"/latents.json\")\nos.remove(folder)",
        },
        |lua, (model, options): (Object<Model>, Table)| {
            let options = Options::read(lua, Some(options), &LATENTS)?;
            let data = options.required::<Object<Dataset>>("data")?.0;
            let what = LatentOptions {
                boundaries: options.required("boundaries")?,
                seq_len: data.seq_len(),
                windows: options.get("windows")?,
                dtype: options.get::<String>("dtype")?.map_or(Ok(DType::F16), |name| device::dtype(&name))?,
                batch: options.count("batch", BATCH, 1)?,
            };
            let mut bar = None;
            let folder = options.required::<ScriptPath>("dir")?;
            let cache = cache_latents(&model.0.0, data.tokens(), &folder, &what, |done, all| {
                interrupt::check()?;
                if bar.is_none() {
                    let patience = Duration::from_secs(2);
                    bar = Some(meter(lua, all as u64, "latents", ("windows", 1), patience)?);
                }
                if let Some(bar) = &bar {
                    bar.set(done as u64, None);
                }
                Ok(())
            })?;
            Ok(Latents(Arc::new(cache)))
        },
    )?;
    let fields = &[
        ("windows", "integer", "number of windows"),
        ("seq_len", "integer", "tokens of a window"),
        ("boundaries", "integer[]", "boundaries that are kept, ascending"),
    ];
    registry.class(Class { name: "Latents", about: "A teacher's latents on disk.", fields }, |class| {
        class.field("windows", |_, this: &Latents| Ok(this.0.plan.windows));
        class.field("seq_len", |_, this: &Latents| Ok(this.0.plan.seq_len));
        class.field("boundaries", |_, this: &Latents| Ok(this.0.plan.boundaries.clone()));
        class.method(
            Entry {
                name: "Latents:verify",
                about: "Reads everything and compares the checksums; damage is an error.",
                params: &[],
                returns: &[("nil", "nothing")],
                example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal folder = os.tmpname()\nos.remove(folder)\nlft.data.latents(m, {data = d, boundaries = {6}, dir = folder, windows = 1}):verify()\nos.remove(folder .. \"/00000.safetensors\")\nos.remove(folder .. \"/latents.json\")\nos.remove(folder)",
            },
            |_, this: &Latents, ()| this.0.verify(),
        );
        class.hidden("Latents.__tostring", |_, this: &Latents, _: MultiValue| {
            let plan = &this.0.plan;
            Ok(format!("Latents: {} windows of {} tokens at boundaries {:?}", plan.windows, plan.seq_len, plan.boundaries))
        });
    })
}
