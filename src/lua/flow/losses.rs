//! The training algorithms as tensors, for training loops of one's own.

use candle_core::{DType, Tensor};
use mlua::{Lua, Table, Value};
use rand::RngCore;
use rand_chacha::ChaCha8Rng;

use crate::flow::{matching_loss, regression_loss, uniform_times, walk_times, walking_loss};
use crate::lua::catalogue::{Entry, OptionsTable, Param};
use crate::lua::field::{AT_TIMES, FieldArg};
use crate::lua::ode::{SOLVER, method};
use crate::lua::options::Options;
use crate::lua::register::Registry;
use crate::lua::state::State;
use crate::lua::tensor::{Handle, Operand, TensorArg};
use crate::ode::Method;
use crate::train::draws;

const SEED: Param = (
    "seed?",
    "integer",
    "seed of the times drawn; when left out the host's if a step is given, else one from its stream",
);
const STEP: Param =
    ("step?", "integer", "draws what this step of a training with that seed draws, 1 when left out");
const MATCHING: OptionsTable = OptionsTable {
    class: "MatchingOptions",
    fields: &[
        ("t?", "number|Tensor", "one time, or one for each example (B); drawn uniformly when left out"),
        SEED,
        STEP,
    ],
};
const WALKING: OptionsTable = OptionsTable {
    class: "WalkingOptions",
    fields: &[
        ("walk?", "integer", "steps of the walk, 3 when left out"),
        ("times?", "Tensor[]", "the walk's times t₀ = 0 to t_k = 1, each (B); drawn when left out"),
        ("solver?", SOLVER, "solver of one step, midpoint when left out"),
        SEED,
        STEP,
    ],
};
const PAIR: [Param; 3] = [
    ("u", AT_TIMES, "the field; a function is called with times (B)"),
    ("x0", "Tensor", "latents (B, T, D) in front of the block"),
    ("x1", "Tensor", "latents behind it"),
];

const TIMES: OptionsTable = OptionsTable {
    class: "WalkTimesOptions",
    fields: &[("walk?", "integer", "steps of the walk, 3 when left out"), SEED, STEP],
};

/// Registers the losses.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&MATCHING);
    registry.options(&WALKING);
    registry.options(&TIMES);
    registry.function(
        Entry {
            name: "lft.flow.matching_loss",
            about: "Flow matching: the mean of ‖u(x_t, t) − (x1 − x0)‖² on the straight path x_t = (1 − t)·x0 + t·x1.",
            params: &[PAIR[0], PAIR[1], PAIR[2], ("options?", "MatchingOptions", "times")],
            returns: &[("Tensor", "one number, ready for :backward()")],
            example: "local x0, x1 = lft.zeros({2, 3, 4}), lft.ones({2, 3, 4})\nlocal loss = lft.flow.matching_loss(function(x, t) return x * 0 end, x0, x1, {seed = 1})\nassert(loss:item() == 1)",
        },
        |lua, (u, x0, x1, options): (FieldArg, TensorArg, TensorArg, Option<Table>)| {
            let options = Options::read(lua, options, &MATCHING)?;
            let t = match options.get::<Operand>("t")? {
                Some(Operand::Tensor(t)) => t.to_dtype(DType::F32)?,
                Some(Operand::Real(t)) => Tensor::full(t as f32, x0.0.dim(0)?, x0.0.device())?,
                Some(Operand::Whole(t)) => Tensor::full(t as f32, x0.0.dim(0)?, x0.0.device())?,
                None => uniform_times(x0.0.dim(0)?, &mut random(lua, &options)?, x0.0.device())?,
            };
            Ok(Handle::new(matching_loss(&u, &x0.0, &x1.0, &t)?))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.flow.walking_loss",
            about: "Flow walking: the mean of ‖x̂₁ − x1‖², with x̂₁ the end of a walk from x0 in a few solver steps of \
                    random length. Gradients run through the whole walk.",
            params: &[PAIR[0], PAIR[1], PAIR[2], ("options?", "WalkingOptions", "walk and solver")],
            returns: &[("Tensor", "one number, ready for :backward()")],
            example: "local x0, x1 = lft.zeros({2, 3, 4}), lft.ones({2, 3, 4})\nlocal loss = lft.flow.walking_loss(function(x, t) return x * 0 + 1 end, x0, x1, {seed = 1})\nassert(loss:item() < 1e-10)",
        },
        |lua, (u, x0, x1, options): (FieldArg, TensorArg, TensorArg, Option<Table>)| {
            let options = Options::read(lua, options, &WALKING)?;
            let times = match options.get::<Vec<Value>>("times")? {
                Some(times) => times.iter().map(TensorArg::of).collect::<anyhow::Result<_>>()?,
                None => {
                    let walk = options.count("walk", 3, 1)?;
                    walk_times(x0.0.dim(0)?, walk, &mut random(lua, &options)?, x0.0.device())?
                }
            };
            let solver = method(&options, "solver", Method::Midpoint)?;
            Ok(Handle::new(walking_loss(&u, &x0.0, &x1.0, &times, solver)?))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.flow.walk_times",
            about: "The times of a walk, drawn anew for each example: the inner ones are uniform and sorted.",
            params: &[
                ("batch", "integer", "number of examples B"),
                ("options?", "WalkTimesOptions", "steps and seed"),
            ],
            returns: &[("Tensor[]", "t₀ = 0 to t_k = 1, each (B)")],
            example: "local t = lft.flow.walk_times(5, {walk = 3, seed = 1})\nassert(#t == 4 and t[1]:sum():item() == 0 and t[4]:sum():item() == 5 and t[2]:le(t[3]):sum():item() == 5)",
        },
        |lua, (batch, options): (usize, Option<Table>)| {
            let options = Options::read(lua, options, &TIMES)?;
            let walk = options.count("walk", 3, 1)?;
            let times = walk_times(batch, walk, &mut random(lua, &options)?, &State::of(lua)?.device)?;
            Ok(times.into_iter().map(Handle::new).collect::<Vec<_>>())
        },
    )?;
    registry.function(
        Entry {
            name: "lft.flow.regression_loss",
            about: "The one-step rival: the mean of ‖x0 + u(x0, 0) − x1‖².",
            params: &PAIR,
            returns: &[("Tensor", "one number, ready for :backward()")],
            example: "local x0, x1 = lft.zeros({2, 3, 4}), lft.ones({2, 3, 4})\nassert(lft.flow.regression_loss(function(x, t) return x + 1 end, x0, x1):item() == 0)",
        },
        |_, (u, x0, x1): (FieldArg, TensorArg, TensorArg)| {
            Ok(Handle::new(regression_loss(&u, &x0.0, &x1.0)?))
        },
    )
}

fn random(lua: &Lua, options: &Options) -> anyhow::Result<ChaCha8Rng> {
    let state = State::of(lua)?;
    let (seed, step) = (options.get::<u64>("seed")?, options.get::<u64>("step")?);
    let seed = seed.unwrap_or_else(|| if step.is_some() { state.seed } else { state.random().next_u64() });
    Ok(draws(seed, step.unwrap_or(1)))
}
