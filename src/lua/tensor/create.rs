//! Functions that make tensors.

use std::f64::consts::TAU;

use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor};
use mlua::{FromLua, Lua, Table, Value, Variadic};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::args::{self, TENSOR_OPTIONS};
use super::handle::{Handle, TensorArg};
use crate::lua::catalogue::{Entry, OptionsTable, Param, Return};
use crate::lua::options::Options;
use crate::lua::register::Registry;
use crate::lua::state::State;
use crate::lua::{device, literal, memory};

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
const SHAPED: &[Param] = &[
    ("shape", "integer|integer[]", "the lengths of the dimensions"),
    ("options?", "TensorOptions", "element type and device"),
];
const DRAWN: &[Param] = &[
    ("shape", "integer|integer[]", "the lengths of the dimensions"),
    ("options?", "RandomOptions", "seed, element type and device"),
];
const MADE: &[Return] = &[("Tensor", "the new tensor")];

/// Registers the functions that make tensors.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&RANDOM);
    registry.function(
        Entry {
            name: "lft.tensor",
            about: "A tensor from a number or nested tables of numbers.",
            params: &[
                ("values", "number|table|Tensor", "rows must be equally long"),
                ("options?", "TensorOptions", "element type and device"),
            ],
            returns: MADE,
            example: "local t = lft.tensor({{1, 2, 3}, {4, 5, 6}}, {dtype = \"f64\"})\nassert(t[2][3]:item() == 6)",
        },
        |lua, (values, options): (Value, Option<Table>)| {
            let options = Options::read(lua, options, &TENSOR_OPTIONS)?;
            if values.is_userdata() {
                let tensor = TensorArg::from_lua(values, lua)?.0;
                let (dtype, device) = args::placement(&options, tensor.dtype(), tensor.device())?;
                return Ok(Handle::new(tensor.to_device(&device)?.to_dtype(dtype)?));
            }
            let (dtype, device) = args::fresh(lua, &options)?;
            Ok(Handle::new(literal::to_tensor(&values, dtype, &device)?))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.zeros",
            about: "A tensor of zeros.",
            params: SHAPED,
            returns: MADE,
            example: "assert(lft.zeros({2, 3}):sum():item() == 0)",
        },
        |lua, (shape, options)| filled(lua, &shape, options, 0.0),
    )?;
    registry.function(
        Entry {
            name: "lft.ones",
            about: "A tensor of ones.",
            params: SHAPED,
            returns: MADE,
            example: "assert(lft.ones({2, 3}):sum():item() == 6)",
        },
        |lua, (shape, options)| filled(lua, &shape, options, 1.0),
    )?;
    registry.function(
        Entry {
            name: "lft.full",
            about: "A tensor of one value.",
            params: &[
                ("shape", "integer|integer[]", "the lengths of the dimensions"),
                ("value", "number", "the value"),
                ("options?", "TensorOptions", "element type and device"),
            ],
            returns: MADE,
            example: "assert(lft.full({2}, 7)[1]:item() == 7)",
        },
        |lua, (shape, value, options): (Value, f64, Option<Table>)| filled(lua, &shape, options, value),
    )?;
    registry.function(
        Entry {
            name: "lft.eye",
            about: "The unit matrix.",
            params: &[
                ("size", "integer", "rows and columns"),
                ("options?", "TensorOptions", "element type and device"),
            ],
            returns: MADE,
            example: "assert(lft.eye(3):sum():item() == 3)",
        },
        |lua, (size, options): (i64, Option<Table>)| {
            let (dtype, device) = args::fresh(lua, &Options::read(lua, options, &TENSOR_OPTIONS)?)?;
            let size = usize::try_from(size).ok().context("the size is negative")?;
            memory::check(&[size, size], dtype)?;
            Ok(Handle::new(Tensor::eye(size, dtype, &device)?))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.arange",
            about: "Numbers at equal distance: 0 to n - 1 for `arange(n)`, `start` up to but without `stop` otherwise.",
            params: &[
                ("start", "number", "the first number, or how many when it stands alone"),
                ("stop?", "number|TensorOptions", "the end, which is not included"),
                ("step?", "number|TensorOptions", "the distance, 1 when left out"),
                ("options?", "TensorOptions", "element type and device"),
            ],
            returns: &[("Tensor", "a tensor of one dimension")],
            example: "assert(lft.arange(4)[4]:item() == 3)\nassert(#lft.arange(0, 1, 0.25) == 4)",
        },
        arange,
    )?;
    random(registry)?;
    joining(registry)
}

fn filled(lua: &Lua, shape: &Value, options: Option<Table>, value: f64) -> anyhow::Result<Handle> {
    let (dtype, device) = args::fresh(lua, &Options::read(lua, options, &TENSOR_OPTIONS)?)?;
    let dims = args::shape(shape, dtype)?;
    Ok(Handle::new(match value {
        0.0 => Tensor::zeros(dims, dtype, &device)?,
        1.0 => Tensor::ones(dims, dtype, &device)?,
        _ => Tensor::full(value, dims, &device)?.to_dtype(dtype)?,
    }))
}

fn arange(lua: &Lua, values: Variadic<Value>) -> anyhow::Result<Handle> {
    let mut numbers: Vec<f64> = Vec::new();
    let mut options = None;
    for value in values.iter().filter(|value| !value.is_nil()) {
        match value {
            Value::Table(table) => options = Some(table.clone()),
            other => numbers.push(f64::from_lua(other.clone(), lua)?),
        }
    }
    let (dtype, device) = args::fresh(lua, &Options::read(lua, options, &TENSOR_OPTIONS)?)?;
    let (start, stop, step) = match numbers[..] {
        [count] => (0.0, count, 1.0),
        [start, stop] => (start, stop, 1.0),
        [start, stop, step] => (start, stop, step),
        _ => bail!("expected one to three numbers, got {}", numbers.len()),
    };
    let count = ((stop - start) / step).ceil().max(0.0);
    if !count.is_finite() {
        bail!("a step of {step} does not lead from {start} to {stop}");
    }
    memory::check(&[count as usize], DType::F64)?;
    let values: Vec<f64> = (0..count as usize).map(|index| start + index as f64 * step).collect();
    let length = values.len();
    Ok(Handle::new(Tensor::from_vec(values, length, &device)?.to_dtype(dtype)?))
}

fn random(registry: &mut Registry) -> mlua::Result<()> {
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

fn joining(registry: &mut Registry) -> mlua::Result<()> {
    registry.function(
        Entry {
            name: "lft.cat",
            about: "Tensors joined along a dimension.",
            params: &[
                ("tensors", "Tensor[]", "of equal shape but for that dimension"),
                ("dim?", "integer", "the dimension, the first when left out"),
            ],
            returns: &[("Tensor", "the joined tensor")],
            example: "assert(lft.cat({lft.ones({2, 3}), lft.zeros({1, 3})}, 1):size(1) == 3)",
        },
        |_, (tensors, number): (Table, Option<i64>)| {
            let tensors = list(&tensors)?;
            let dim = args::dim(number.unwrap_or(1), tensors[0].rank())?;
            Ok(Handle::new(Tensor::cat(&tensors, dim)?))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.stack",
            about: "Tensors of equal shape joined along a new dimension.",
            params: &[
                ("tensors", "Tensor[]", "of equal shape"),
                ("dim?", "integer", "where the new dimension will stand, first when left out"),
            ],
            returns: &[("Tensor", "the joined tensor")],
            example: "assert(lft.stack({lft.ones({3}), lft.zeros({3})}, -1):shape()[2] == 2)",
        },
        |_, (tensors, number): (Table, Option<i64>)| {
            let tensors = list(&tensors)?;
            let dim = args::dim(number.unwrap_or(1), tensors[0].rank() + 1)?;
            Ok(Handle::new(Tensor::stack(&tensors, dim)?))
        },
    )
}

fn list(table: &Table) -> anyhow::Result<Vec<Tensor>> {
    let tensors: Vec<Tensor> = table
        .sequence_values::<TensorArg>()
        .map(|tensor| tensor.map(|tensor| tensor.0))
        .collect::<mlua::Result<_>>()?;
    match tensors.is_empty() {
        true => bail!("expected at least one tensor"),
        false => Ok(tensors),
    }
}
