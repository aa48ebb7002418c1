//! Random tensors, the same on every device for the same seed.

use std::f64::consts::TAU;

use anyhow::bail;
use candle_core::{Device, Tensor};
use mlua::{Lua, Table, Value};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::args;
use super::create::MADE;
use super::handle::Handle;
use crate::lua::catalogue::{Entry, OptionsTable, Param};
use crate::lua::device;
use crate::lua::options::Options;
use crate::lua::register::Registry;
use crate::lua::state::State;

const RANDOM: OptionsTable = OptionsTable {
    class: "RandomOptions",
    fields: &[
        (
            "seed?",
            "integer",
            "the same seed gives the same numbers; drawn from the host's stream when left out",
        ),
        ("dtype?", device::DTYPE, "element type, f32 when left out"),
        ("device?", "string", "cpu, cuda, cuda:1, metal; the host's device when left out"),
    ],
};
const DRAWN: &[Param] = &[
    ("shape", "integer|integer[]", "the lengths of the dimensions"),
    ("options?", "RandomOptions", "seed, element type and device"),
];

/// Registers `lft.randn`, `lft.rand` and `lft.seed`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&RANDOM);
    registry.function(
        Entry {
            name: "lft.randn",
            about: "Independent normal numbers of mean 0 and variance 1, the same on every device for the same seed.",
            params: DRAWN,
            returns: MADE,
            example: "assert(lft.randn({4}, {seed = 1}):allclose(lft.randn({4}, {seed = 1})))",
        },
        |lua, (shape, options): (Value, Option<Table>)| draw(lua, &shape, options, normal),
    )?;
    registry.function(
        Entry {
            name: "lft.rand",
            about: "Independent uniform numbers from 0 up to but without 1, the same on every device for the same seed.",
            params: DRAWN,
            returns: MADE,
            example: "local t = lft.rand({100}, {seed = 2})\nassert(t:min():item() >= 0 and t:max():item() < 1)",
        },
        |lua, (shape, options): (Value, Option<Table>)| draw(lua, &shape, options, uniform),
    )?;
    registry.function(
        Entry {
            name: "lft.seed",
            about: "Restarts the host's random stream, from which whatever is given no seed of its own draws.",
            params: &[("seed", "integer", "the seed")],
            returns: &[("nil", "nothing")],
            example: "lft.seed(7)\nlocal a = lft.rand({2})\nlft.seed(7)\nassert(a:allclose(lft.rand({2})))",
        },
        |lua, seed: i64| {
            *State::of(lua)?.random() = ChaCha12Rng::seed_from_u64(seed as u64);
            Ok(())
        },
    )
}

fn draw(
    lua: &Lua,
    shape: &Value,
    options: Option<Table>,
    fill: fn(&mut ChaCha12Rng, usize) -> Vec<f32>,
) -> anyhow::Result<Handle> {
    let options = Options::read(lua, options, &RANDOM)?;
    let (dtype, device) = args::fresh(lua, &options)?;
    if dtype.is_int() {
        bail!("random numbers are real, dtype {} is not", dtype.as_str());
    }
    let dims = args::shape(shape, dtype)?;
    let seed = options.get::<i64>("seed")?.map(|seed| seed as u64);
    let mut generator = State::of(lua)?.generator(seed);
    let values = fill(&mut generator, dims.iter().product());
    Ok(Handle::new(Tensor::from_vec(values, dims, &Device::Cpu)?.to_device(&device)?.to_dtype(dtype)?))
}

fn uniform(generator: &mut ChaCha12Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| generator.random::<f32>()).collect()
}

/// Box and Muller's transform of pairs of uniform numbers (1958).
fn normal(generator: &mut ChaCha12Rng, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - generator.random::<f64>()).ln()).sqrt();
        let angle = TAU * generator.random::<f64>();
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}
