//! Tensors from numbers: given ones, constants, sequences.

use anyhow::{Context, bail};
use candle_core::{DType, Tensor};
use mlua::{FromLua, Lua, Table, Value, Variadic};

use super::args::{self, TENSOR_OPTIONS};
use super::handle::{Handle, TensorArg};
use crate::lua::catalogue::{Entry, Param, Return};
use crate::lua::options::Options;
use crate::lua::register::Registry;
use crate::lua::{literal, memory};

const SHAPED: &[Param] = &[
    ("shape", "integer|integer[]", "the lengths of the dimensions"),
    ("options?", "TensorOptions", "element type and device"),
];
/// What functions that make tensors return.
pub const MADE: &[Return] = &[("Tensor", "the new tensor")];

/// Registers the functions that make tensors from numbers.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
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
    )
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
