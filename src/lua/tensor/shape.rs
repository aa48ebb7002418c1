//! Shapes: what they are, and the same elements in another one.

use anyhow::{Context, bail};
use candle_core::Tensor;
use mlua::{Value, Variadic};

use super::args;
use super::handle::Handle;
use crate::lua::catalogue::Entry;
use crate::lua::memory;
use crate::lua::register::Members;

/// Shapes.
pub fn members(class: &mut Members<'_, Handle>) {
    class.method(
        Entry {
            name: "Tensor:shape",
            about: "The lengths of the dimensions.",
            params: &[],
            returns: &[("integer[]", "one length a dimension")],
            example: "assert(lft.zeros({2, 3}):shape()[2] == 3)",
        },
        |_, this: &Handle, ()| Ok(this.get()?.dims().to_vec()),
    );
    class.method(
        Entry {
            name: "Tensor:size",
            about: "The length of one dimension.",
            params: &[("dim", "integer", "the dimension")],
            returns: &[("integer", "its length")],
            example: "assert(lft.zeros({2, 3}):size(-1) == 3)",
        },
        |_, this: &Handle, number: i64| {
            let tensor = this.get()?;
            Ok(tensor.dims()[args::dim(number, tensor.rank())?])
        },
    );
    class.method(
        Entry {
            name: "Tensor:rank",
            about: "The number of dimensions.",
            params: &[],
            returns: &[("integer", "0 for a tensor of one number")],
            example: "assert(lft.zeros({2, 3}):rank() == 2)",
        },
        |_, this: &Handle, ()| Ok(this.get()?.rank()),
    );
    class.method(
        Entry {
            name: "Tensor:numel",
            about: "The number of elements.",
            params: &[],
            returns: &[("integer", "the product of the shape")],
            example: "assert(lft.zeros({2, 3}):numel() == 6)",
        },
        |_, this: &Handle, ()| Ok(this.get()?.elem_count()),
    );
    class.method(
        Entry {
            name: "Tensor:reshape",
            about: "The same elements in another shape; one length may be -1 and is worked out.",
            params: &[("...", "integer|integer[]", "the lengths, one by one or as a table")],
            returns: &[("Tensor", "the tensor in the new shape")],
            example: "assert(lft.zeros({2, 6}):reshape(3, -1):size(2) == 4)",
        },
        |_, this: &Handle, lengths: Variadic<Value>| {
            let tensor = this.get()?;
            let dims = resolve(&args::integers(&lengths)?, tensor.elem_count())?;
            Ok(Handle::new(tensor.reshape(dims)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:flatten",
            about: "All elements in one dimension.",
            params: &[],
            returns: &[("Tensor", "a tensor of one dimension")],
            example: "assert(lft.zeros({2, 3}):flatten():size(1) == 6)",
        },
        |_, this: &Handle, ()| Ok(Handle::new(this.get()?.flatten_all()?)),
    );
    class.method(
        Entry {
            name: "Tensor:squeeze",
            about: "Without a dimension of length 1.",
            params: &[("dim", "integer", "the dimension")],
            returns: &[("Tensor", "a view")],
            example: "assert(lft.zeros({2, 1}):squeeze(2):rank() == 1)",
        },
        |_, this: &Handle, number: i64| {
            let tensor = this.get()?;
            let dim = args::dim(number, tensor.rank())?;
            match tensor.dims()[dim] {
                1 => Ok(Handle::new(tensor.squeeze(dim)?)),
                length => bail!("dimension {number} has length {length}, only length 1 can go"),
            }
        },
    );
    class.method(
        Entry {
            name: "Tensor:unsqueeze",
            about: "With a new dimension of length 1.",
            params: &[("dim", "integer", "where it will stand")],
            returns: &[("Tensor", "a view")],
            example: "assert(lft.zeros({2, 3}):unsqueeze(-1):size(3) == 1)",
        },
        |_, this: &Handle, number: i64| {
            let tensor = this.get()?;
            Ok(Handle::new(tensor.unsqueeze(args::dim(number, tensor.rank() + 1)?)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:expand",
            about: "Dimensions of length 1 repeated to a larger shape, without copying.",
            params: &[("...", "integer|integer[]", "the lengths; -1 keeps one as it is")],
            returns: &[("Tensor", "a view")],
            example: "assert(lft.ones({1, 3}):expand(4, -1):sum():item() == 12)",
        },
        |_, this: &Handle, lengths: Variadic<Value>| {
            let tensor = this.get()?;
            let dims = expanded(&args::integers(&lengths)?, tensor.dims())?;
            memory::check(&dims, tensor.dtype())?;
            Ok(Handle::new(tensor.broadcast_as(dims)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:tile",
            about: "The tensor laid side by side along each dimension.",
            params: &[("...", "integer|integer[]", "how often, for each dimension")],
            returns: &[("Tensor", "the larger tensor")],
            example: "assert(lft.ones({2, 3}):tile(2, 1):size(1) == 4)",
        },
        tile,
    );
    class.meta(
        Entry {
            name: "Tensor.__len",
            about: "The length of the first dimension.",
            params: &[],
            returns: &[("integer", "the length")],
            example: "assert(#lft.zeros({2, 3}) == 2)",
        },
        |_, this: &Handle, _: mlua::MultiValue| length(&this.get()?),
    );
}

fn tile(_: &mlua::Lua, this: &Handle, times: Variadic<Value>) -> anyhow::Result<Handle> {
    let tensor = this.get()?;
    let times = args::integers(&times)?
        .into_iter()
        .map(|count| usize::try_from(count).ok().with_context(|| format!("cannot repeat {count} times")))
        .collect::<anyhow::Result<Vec<usize>>>()?;
    if times.len() != tensor.rank() {
        bail!("expected {} numbers, one a dimension, got {}", tensor.rank(), times.len());
    }
    let dims: Vec<usize> = times.iter().zip(tensor.dims()).map(|(&a, &b)| a.saturating_mul(b)).collect();
    memory::check(&dims, tensor.dtype())?;
    Ok(Handle::new(tensor.repeat(times)?))
}

fn length(tensor: &Tensor) -> anyhow::Result<usize> {
    tensor.dims().first().copied().context("a tensor of one number has no length")
}

/// Works out the length given as -1.
fn resolve(lengths: &[i64], count: usize) -> anyhow::Result<Vec<usize>> {
    let known = lengths
        .iter()
        .filter(|&&length| length >= 0)
        .try_fold(1usize, |product, &length| product.checked_mul(length as usize));
    let open = lengths.iter().filter(|&&length| length == -1).count();
    let known = known.context("the shape is too large")?;
    match lengths.iter().find(|&&length| length < -1) {
        Some(length) => bail!("{length} is not the length of a dimension"),
        None if open > 1 => bail!("only one length may be -1"),
        None if open == 1 && (known == 0 || !count.is_multiple_of(known)) => {
            bail!("{count} elements do not divide into {lengths:?}")
        }
        None if open == 0 && known != count => bail!("{count} elements do not fill the shape {lengths:?}"),
        None => {}
    }
    let rest = count.checked_div(known).unwrap_or(0);
    Ok(lengths.iter().map(|&length| if length == -1 { rest } else { length as usize }).collect())
}

fn expanded(lengths: &[i64], dims: &[usize]) -> anyhow::Result<Vec<usize>> {
    let new = lengths.len().checked_sub(dims.len());
    let new = new.with_context(|| {
        format!("the tensor has {} dimensions, only {} are named", dims.len(), lengths.len())
    })?;
    let mut shape = Vec::with_capacity(lengths.len());
    for (index, &length) in lengths.iter().enumerate() {
        let old = index.checked_sub(new).map(|at| dims[at]);
        shape.push(match (length, old) {
            (-1, Some(old)) => old,
            (0.., Some(old)) if old == 1 || old == length as usize => length as usize,
            (0.., None) => length as usize,
            _ => bail!("{dims:?} does not expand to {lengths:?}"),
        });
    }
    Ok(shape)
}
