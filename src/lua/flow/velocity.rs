//! Velocity fields.

use std::sync::Arc;

use anyhow::Context;
use candle_core::Tensor;
use mlua::{MultiValue, Table};

use super::block_option;
use crate::flow::{Extras, Field, Init, Integration, VelocityField};
use crate::lua::catalogue::{Class, Entry, OptionsTable};
use crate::lua::object::Object;
use crate::lua::options::Options;
use crate::lua::pythia::Model;
use crate::lua::register::{Members, Registry, userdata};
use crate::lua::state::State;
use crate::lua::tensor::{Handle, Operand, TensorArg};
use crate::ode::Method;

/// A velocity field, shared with the students made of it.
#[derive(Clone)]
pub struct Velocity(pub Arc<VelocityField>);
userdata!(Velocity);

const VELOCITY: OptionsTable = OptionsTable {
    class: "VelocityOptions",
    fields: &[
        ("block", "integer[]", "{m, n}: the layers m to n - 1 that it stands for"),
        (
            "init?",
            "\"zero\"|\"teacher\"",
            "zero, when left out, starts as skipping the block; teacher as a layer of it",
        ),
        (
            "layer?",
            "integer",
            "which layer's weights to start from; the middle one for teacher, fresh ones for zero",
        ),
        ("seed?", "integer", "seed of fresh weights, the host's when left out"),
        (
            "rank?",
            "integer",
            "rank of low-rank updates of the layer's matrices that change with time, none when left out",
        ),
        ("plain?", "boolean", "true for the update of an ordinary layer, without conditioning on time"),
        (
            "learn_times?",
            "integer",
            "trains the times of an integration in so many steps, none when left out",
        ),
    ],
};

/// Registers `lft.flow.velocity` and the class `VelocityField`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&VELOCITY);
    registry.function(
        Entry {
            name: "lft.flow.velocity",
            about: "A trainable velocity field u(x, t): one layer of the teacher's kind, conditioned on time.",
            params: &[("model", "Pythia", "the teacher"), ("options", "VelocityOptions", "block and initialisation")],
            returns: &[("VelocityField", "the field")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal u = lft.flow.velocity(m, {block = {6, 12}})\nassert(u(m:hidden({{1, 2, 3}}, 6), 0.5):norm():item() == 0)",
        },
        |lua, (model, options): (Object<Model>, Table)| {
            let options = Options::read(lua, Some(options), &VELOCITY)?;
            let teacher = &model.0.0;
            let block = block_option(&options, teacher)?.context("option 'block' is missing")?;
            let init = options.get::<String>("init")?.map_or(Ok(Init::Zero), |name| name.parse())?;
            let seed = options.or("seed", State::of(lua)?.seed)?;
            let extras = Extras {
                rank: options.count("rank", 0, 0)?,
                learn_times: options.count("learn_times", 0, 0)?,
                plain: options.or("plain", false)?,
            };
            let field = VelocityField::extended(teacher, block, init, options.get("layer")?, seed, extras)?;
            Ok(Velocity(Arc::new(field)))
        },
    )?;
    let fields = &[("block", "integer[]", "{m, n}, the block that it stands for")];
    let about = "A velocity field u(x, t) over latents.";
    registry.class(Class { name: "VelocityField", about, fields }, members)
}

fn members(class: &mut Members<'_, Velocity>) {
    class.field("block", |_, this: &Velocity| Ok([this.0.block().m, this.0.block().n]));
    class.meta(
        Entry {
            name: "VelocityField.__call",
            about: "The velocity of latents at a time.",
            params: &[
                ("x", "Tensor", "latents (B, T, D), f32"),
                ("t", "number|Tensor", "one time, or one for each example (B)"),
            ],
            returns: &[("Tensor", "(B, T, D)")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal u = lft.flow.velocity(m, {block = {6, 12}, init = \"teacher\"})\nlocal x = m:hidden({{1, 2}, {3, 4}}, 6)\nassert(u(x, 0.5):allclose(u(x, lft.tensor({0.5, 0.5}))))",
        },
        |_, this: &Velocity, (x, t): (TensorArg, Operand)| {
            let t = match t {
                Operand::Tensor(t) if t.rank() == 0 => t.reshape(1)?,
                Operand::Tensor(t) => t,
                Operand::Whole(t) => Tensor::new(&[t as f32], x.0.device())?,
                Operand::Real(t) => Tensor::new(&[t as f32], x.0.device())?,
            };
            Ok(Handle::new(this.0.velocity(&x.0, &t)?))
        },
    );
    class.method(
        Entry {
            name: "VelocityField:parameters",
            about: "Every trainable tensor by the name under which it is saved. They are variables: `grads[v]` finds their \
                    gradients and `v:set(t)` changes the field.",
            params: &[],
            returns: &[("table<string, Tensor>", "name to variable")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nfor name, v in pairs(lft.flow.velocity(m, {block = {6, 12}}):parameters()) do assert(v:is_var(), name) end",
        },
        |lua, this: &Velocity, ()| {
            let parameters = this.0.parameters().iter();
            let named = parameters.map(|(name, value)| (name.as_str(), Handle::new(value.as_tensor().clone())));
            Ok(lua.create_table_from(named)?)
        },
    );
    class.method(
        Entry {
            name: "VelocityField:parameter_count",
            about: "Number of trainable values.",
            params: &[],
            returns: &[("integer", "the sum over all parameters")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nassert(lft.flow.velocity(m, {block = {6, 12}}):parameter_count() > 100000)",
        },
        |_, this: &Velocity, ()| Ok(this.0.parameter_count()),
    );
    class.method(
        Entry {
            name: "VelocityField:learned_times",
            about: "The trained times of an integration in k steps, where the field was made with learn_times = k.",
            params: &[("k", "integer", "number of steps")],
            returns: &[("number[]|nil", "t₀ = 0 to t_k = 1; nil when there are none for this k")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal u = lft.flow.velocity(m, {block = {6, 12}, learn_times = 2})\nassert(u:learned_times(2)[2] == 0.5 and u:learned_times(3) == nil)",
        },
        |_, this: &Velocity, k: usize| Integration::fixed(Method::Euler, k).learned_times(&this.0),
    );
    class.hidden("VelocityField.__tostring", |_, this: &Velocity, _: MultiValue| {
        Ok(format!("VelocityField: block {}, {} parameters", this.0.block(), this.0.parameter_count()))
    });
}
