//! Dimensions, shapes and placement as scripts write them.

use anyhow::{Context, bail};
use candle_core::{DType, Device};
use mlua::{Lua, Table, Value};

use crate::lua::catalogue::OptionsTable;
use crate::lua::device;
use crate::lua::memory;
use crate::lua::options::Options;
use crate::lua::state::State;
use crate::lua::types::describe;

/// Element type and device.
pub const TENSOR_OPTIONS: OptionsTable = OptionsTable {
    class: "TensorOptions",
    fields: &[
        ("dtype?", device::DTYPE, "element type, f32 when left out"),
        ("device?", "string", "cpu, cuda, cuda:1, metal; the host's device when left out"),
    ],
};

/// The element type and device that options name, or those given.
///
/// # Errors
/// Unknown names and missing devices.
pub fn placement(options: &Options, dtype: DType, device: &Device) -> anyhow::Result<(DType, Device)> {
    let dtype = options.get::<String>("dtype")?.map_or(Ok(dtype), |name| device::dtype(&name))?;
    let device = options.get::<String>("device")?.map_or(Ok(device.clone()), |name| device::parse(&name))?;
    Ok((dtype, device))
}

/// [`placement`] for a new tensor.
///
/// # Errors
/// As [`placement`].
pub fn fresh(lua: &Lua, options: &Options) -> anyhow::Result<(DType, Device)> {
    placement(options, DType::F32, &State::of(lua)?.device)
}

/// A 1-based dimension, counted from the end when negative, as candle's 0-based one.
///
/// # Errors
/// When the tensor has no such dimension.
pub fn dim(number: i64, rank: usize) -> anyhow::Result<usize> {
    position(number, rank).with_context(|| match rank {
        0 => format!("dimension {number}: the tensor has no dimensions"),
        _ => format!("dimension {number} is out of range for {rank} dimensions (1..{rank} or -{rank}..-1)"),
    })
}

/// A 1-based element index, counted from the end when negative, as a 0-based one.
///
/// # Errors
/// When the dimension is shorter.
pub fn element(number: i64, length: usize) -> anyhow::Result<usize> {
    position(number, length)
        .with_context(|| format!("index {number} is out of range for a dimension of {length} elements"))
}

fn position(number: i64, length: usize) -> Option<usize> {
    match number {
        1.. => usize::try_from(number - 1).ok().filter(|&index| index < length),
        0 => None,
        _ => usize::try_from(number.unsigned_abs()).ok().and_then(|back| length.checked_sub(back)),
    }
}

/// A shape: one length or a table of lengths.
///
/// # Errors
/// Lengths that are negative or too large for this machine.
pub fn shape(value: &Value, dtype: DType) -> anyhow::Result<Vec<usize>> {
    let lengths: Vec<i64> = match value {
        Value::Table(table) => table.sequence_values().collect::<mlua::Result<_>>()?,
        Value::Integer(number) => vec![*number],
        Value::Number(number) if number.fract() == 0.0 => vec![*number as i64],
        other => bail!("expected a shape such as {{2, 3}}, found {}", describe(other)),
    };
    let dims = lengths
        .iter()
        .map(|&length| {
            usize::try_from(length).ok().with_context(|| format!("{length} is not the length of a dimension"))
        })
        .collect::<anyhow::Result<Vec<usize>>>()?;
    memory::check(&dims, dtype)?;
    Ok(dims)
}

/// Whole numbers given one by one or as one table.
///
/// # Errors
/// When something else is among them.
pub fn integers(values: &[Value]) -> anyhow::Result<Vec<i64>> {
    if let [Value::Table(table)] = values {
        let inner: Vec<Value> = Table::sequence_values(table).collect::<mlua::Result<_>>()?;
        return integers_of(&inner);
    }
    integers_of(values)
}

fn integers_of(values: &[Value]) -> anyhow::Result<Vec<i64>> {
    values
        .iter()
        .map(|value| match value {
            Value::Integer(number) => Ok(*number),
            Value::Number(number) if number.fract() == 0.0 => Ok(*number as i64),
            other => bail!("expected an integer, found {}", describe(other)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_and_indices_start_at_one_and_count_from_the_end() {
        assert_eq!(dim(1, 3).ok(), Some(0));
        assert_eq!(dim(-1, 3).ok(), Some(2));
        assert!(dim(0, 3).is_err() && dim(4, 3).is_err() && dim(-4, 3).is_err());
        assert_eq!(element(-5, 5).ok(), Some(0));
    }
}
