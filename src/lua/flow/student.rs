//! Students.

use std::sync::Arc;

use anyhow::{Context, ensure};
use mlua::{Function, MultiValue, Table, Value};

use super::integration::{INTEGRATION, SOLVER_STEPS, fixed, integration};
use super::{Velocity, block_option};
use crate::flow::{EarlyExit, Init, Integration, Student, StudentDecoder, VelocityField};
use crate::lua::catalogue::{Class, Entry, OptionsTable, Param, join};
use crate::lua::generate::{SAMPLING, continued};
use crate::lua::ids::{IDS, Ids};
use crate::lua::object::Object;
use crate::lua::ode::{SOLVER, method};
use crate::lua::options::Options;
use crate::lua::path::ScriptPath;
use crate::lua::pythia::Model;
use crate::lua::register::{Members, Registry, userdata};
use crate::lua::state::State;
use crate::lua::tensor::Handle;
use crate::lua::{eval, sweep, train};
use crate::ode::Method;
use crate::pythia::SHARD_BYTES;

/// A student; the clone shares teacher and velocity field.
#[derive(Clone)]
pub struct StudentObject(pub Student);
userdata!(StudentObject);

const STUDENT: OptionsTable = OptionsTable {
    class: "StudentOptions",
    fields: &[
        ("block?", "integer[]", "{m, n}: the layers m to n - 1 that it replaces; the field's when left out"),
        (
            "velocity?",
            "VelocityField",
            "the field; a new one that starts as skipping the block when left out",
        ),
        ("seed?", "integer", "seed of a new field, the host's when left out"),
    ],
};
const LOGITS: OptionsTable = OptionsTable { class: "IntegrationOptions", fields: &INTEGRATION };
const EVALUATE: OptionsTable = OptionsTable {
    class: "EvaluateOptions",
    fields: &{
        const EXIT: [Param; 5] = join(
            INTEGRATION,
            [(
                "exit?",
                "number",
                "lets a token stop when what remains of its way changes it by no more than this share, none when left out",
            )],
        );
        const FIELDS: [Param; 8] = join(eval::SOURCE, EXIT);
        FIELDS
    },
};
const EXPORT: OptionsTable = OptionsTable {
    class: "ExportOptions",
    fields: &[
        ("steps", "integer", "Euler steps k, each of which becomes a layer"),
        ("solver?", SOLVER, "euler, which is the only one that can be unrolled"),
        ("shard_bytes?", "integer", "largest size of a weight file, 5,000,000,000 when left out"),
    ],
};
const GENERATE: OptionsTable = OptionsTable {
    class: "StudentGenerateOptions",
    fields: &{
        const FIELDS: [Param; 8] = join(SAMPLING, SOLVER_STEPS);
        FIELDS
    },
};

/// Registers students.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    for table in [&STUDENT, &LOGITS, &EVALUATE, &GENERATE, &EXPORT] {
        registry.options(table);
    }
    registry.function(
        Entry {
            name: "lft.flow.student",
            about: "The teacher with a block replaced by a flow.",
            params: &[("model", "Pythia", "the teacher"), ("options", "StudentOptions", "block or velocity field")],
            returns: &[("Student", "the student")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal s = lft.flow.student(m, {block = {6, 12}})\nassert(s.block[1] == 6 and s.parameters_removed > 0)",
        },
        |lua, (model, options): (Object<Model>, Table)| {
            let options = Options::read(lua, Some(options), &STUDENT)?;
            let teacher = model.0.0;
            let block = block_option(&options, &teacher)?;
            let velocity = match options.get::<Object<Velocity>>("velocity")? {
                Some(Object(Velocity(velocity))) => velocity,
                None => {
                    let block = block.context("option 'block' is missing, or 'velocity'")?;
                    let seed = options.or("seed", State::of(lua)?.seed)?;
                    Arc::new(VelocityField::new(&teacher, block, Init::Zero, None, seed)?)
                }
            };
            if let Some(block) = block {
                let own = velocity.block();
                ensure!(own == block, "the velocity field stands for block {own}, not for {block}");
            }
            Ok(StudentObject(Student::new(teacher, velocity)?))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.flow.load",
            about: "Reads a student that was saved with s:save.",
            params: &[("folder", "string", "where it was saved"), ("model", "Pythia", "the teacher that it was trained on")],
            returns: &[("Student", "the student")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal folder = os.tmpname()\nos.remove(folder)\nlft.flow.student(m, {block = {6, 12}}):save(folder)\nassert(lft.flow.load(folder, m).block[2] == 12)\nos.remove(folder .. \"/velocity.safetensors\")\nos.remove(folder .. \"/lft.json\")\nos.remove(folder)",
        },
        |_, (folder, model): (ScriptPath, Object<Model>)| {
            let teacher = model.0.0;
            let velocity = Arc::new(VelocityField::load(&folder, &teacher)?);
            Ok(StudentObject(Student::new(teacher, velocity)?))
        },
    )?;
    let fields = &[
        ("velocity", "VelocityField", "the field that it integrates"),
        ("block", "integer[]", "{m, n}, the block that it replaces"),
        ("parameters_removed", "integer", "weights of the block less those of the field"),
    ];
    let about = "A teacher whose block of layers is replaced by a velocity field, integrated from 0 to 1.";
    let train = sweep::joining(registry.lua(), registry.on_object(train::TRAIN_ENTRY, train::one)?)?;
    registry.class(Class { name: "Student", about, fields }, |class| members(class, train))
}

fn members(class: &mut Members<'_, StudentObject>, train: Function) {
    class.field("velocity", |_, this: &StudentObject| Ok(Velocity(this.0.velocity.clone())));
    class.field("block", |_, this: &StudentObject| Ok([this.0.block.m, this.0.block.n]));
    class.field("parameters_removed", |_, this: &StudentObject| Ok(this.0.parameters_removed()));
    class.function(train::TRAIN_ENTRY, train);
    class.method(
        Entry {
            name: "Student:evaluate",
            about: "Holds the student against its teacher on held-out text.",
            params: &[("options", "EvaluateOptions", "text, solver and steps")],
            returns: &[("Metrics", "figures of merit")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal s = lft.flow.student(m, {block = {6, 8}})\nlocal r = s:evaluate{data = d, solver = \"euler\", steps = 2, batches = 1, batch = 2}\nassert(r.kl > 0 and r.nfe == 2 and r.tokens == 32)",
        },
        |lua, this: &StudentObject, options: Table| {
            let options = Options::read(lua, Some(options), &EVALUATE)?;
            let reference = eval::source(lua, &options, &this.0.teacher, this.0.block)?;
            if let Some(exit) = early_exit(&options)? {
                return eval::metrics(lua, || reference.student_early(&this.0, &exit));
            }
            let integration = integration(&options)?;
            eval::metrics(lua, || reference.student(&this.0, &integration))
        },
    );
    class.method(
        Entry {
            name: "Student:latents",
            about: "The teacher's latents in front of the block and behind it.",
            params: &[("ids", IDS, "token ids (B, T)")],
            returns: &[("Tensor", "x0 (B, T, D), f32"), ("Tensor", "x1 (B, T, D), f32")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal x0, x1 = lft.flow.student(m, {block = {6, 12}}):latents({{1, 2, 3}})\nassert(x1:allclose(m:run(x0, 6, 12)))",
        },
        |_, this: &StudentObject, ids: Ids| {
            let (x0, x1) = this.0.latents(&ids.0)?;
            Ok((Handle::new(x0), Handle::new(x1)))
        },
    );
    class.method(
        Entry {
            name: "Student:logits",
            about: "Logits of the next token at every position.",
            params: &[("ids", IDS, "token ids (B, T)"), ("options?", "IntegrationOptions", "solver and steps")],
            returns: &[("Tensor", "(B, T, V)")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal s = lft.flow.student(m, {block = {6, 12}})\nassert(s:logits({{1, 2}}, {solver = \"euler\", steps = 1}):shape()[3] == 4096)",
        },
        |lua, this: &StudentObject, (ids, options): (Ids, Option<Table>)| {
            let options = Options::read(lua, options, &LOGITS)?;
            Ok(Handle::new(this.0.logits(&ids.0, &integration(&options)?)?))
        },
    );
    class.method(
        Entry {
            name: "Student:generate",
            about: "Continues a text.",
            params: &[
                ("prompt", "string|integer[]", "a text or its token ids"),
                ("options?", "StudentGenerateOptions", "length and choice of tokens, solver and steps"),
            ],
            returns: &[
                ("string|nil", "the continuation; nil when the model has no tokenizer"),
                ("integer[]", "its token ids"),
            ],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal s = lft.flow.student(m, {block = {6, 8}})\nlocal _, ids = s:generate(\"It was\", {max_tokens = 2, solver = \"euler\", steps = 1})\nassert(#ids == 2)",
        },
        |lua, this: &StudentObject, (prompt, options): (Value, Option<Table>)| {
            let options = Options::read(lua, options, &GENERATE)?;
            let decoder = StudentDecoder { student: &this.0, integration: fixed(&options)? };
            continued(lua, &decoder, &this.0.teacher, &prompt, &options)
        },
    );
    class.method(
        Entry {
            name: "Student:save",
            about: "Writes the velocity field into a folder, for lft.flow.load.",
            params: &[("folder", "string", "made when it is missing")],
            returns: &[("nil", "nothing")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal folder = os.tmpname()\nos.remove(folder)\nlft.flow.student(m, {block = {6, 12}}):save(folder)\nos.remove(folder .. \"/velocity.safetensors\")\nos.remove(folder .. \"/lft.json\")\nos.remove(folder)",
        },
        |_, this: &StudentObject, folder: ScriptPath| this.0.velocity.save(&folder, &this.0.teacher.config),
    );
    class.method(
        Entry {
            name: "Student:export",
            about: "Writes the student as an ordinary GPT-NeoX model in Hugging Face's format, which any tool loads: each \
                    Euler step of the flow becomes a layer in the block's place. Other solvers do not unroll and are refused.",
            params: &[("folder", "string", "made when it is missing"), ("options", "ExportOptions", "steps")],
            returns: &[("Pythia", "the model that was written")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal folder = os.tmpname()\nos.remove(folder)\nlocal s = lft.flow.student(m, {velocity = lft.flow.velocity(m, {block = {6, 12}, init = \"teacher\"})})\nlocal e = s:export(folder, {steps = 2})\nassert(e.config.num_hidden_layers == 20)\nassert(e:logits({{1, 2, 3}}):allclose(s:logits({{1, 2, 3}}, {solver = \"euler\", steps = 2}), {atol = 1e-4}))\nos.execute(\"rm -r \" .. folder)",
        },
        |lua, this: &StudentObject, (folder, options): (ScriptPath, Table)| {
            let options = Options::read(lua, Some(options), &EXPORT)?;
            let (steps, bytes) = (options.count("steps", 0, 1)?, options.count("shard_bytes", SHARD_BYTES, 1)?);
            let integration = Integration::fixed(method(&options, "solver", Method::Euler)?, steps);
            Ok(Model(Arc::new(this.0.export(&folder, &integration, bytes)?)))
        },
    );
    class.hidden("Student.__tostring", |_, this: &StudentObject, _: MultiValue| {
        Ok(format!("Student: block {}, {} parameters fewer", this.0.block, this.0.parameters_removed()))
    });
}

/// What the option `exit` says together with solver and steps.
fn early_exit(options: &Options) -> anyhow::Result<Option<EarlyExit>> {
    let Some(tolerance) = options.get::<f64>("exit")? else { return Ok(None) };
    ensure!(tolerance >= 0.0, "option 'exit' must be a number of at least 0, found {tolerance}");
    let Integration { method, steps, .. } = fixed(options)?;
    Ok(Some(EarlyExit { method, steps: steps.unwrap_or(1), tolerance }))
}
