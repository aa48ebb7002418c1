//! Several tensors joined into one.

use anyhow::bail;
use candle_core::Tensor;
use mlua::Table;

use super::args;
use super::handle::{Handle, TensorArg};
use crate::lua::catalogue::Entry;
use crate::lua::memory;
use crate::lua::register::Registry;

/// Registers `lft.cat` and `lft.stack`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
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

/// The tensors, when there is room for all of them together.
fn list(table: &Table) -> anyhow::Result<Vec<Tensor>> {
    let tensors: Vec<Tensor> = table
        .sequence_values::<TensorArg>()
        .map(|tensor| tensor.map(|tensor| tensor.0))
        .collect::<mlua::Result<_>>()?;
    let Some(first) = tensors.first() else { bail!("expected at least one tensor") };
    memory::check(&[tensors.iter().map(Tensor::elem_count).sum()], first.dtype())?;
    Ok(tensors)
}
