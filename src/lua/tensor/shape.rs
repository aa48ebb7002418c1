//! Shapes and views.

use anyhow::{Context, bail};
use candle_core::Tensor;
use mlua::{Value, Variadic};

use super::args;
use super::handle::Handle;
use crate::lua::catalogue::Entry;
use crate::lua::memory;
use crate::lua::register::Members;

/// Shapes and views.
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
            name: "Tensor:transpose",
            about: "Two dimensions exchanged.",
            params: &[
                ("a?", "integer", "one dimension, the last but one when left out"),
                ("b?", "integer", "the other, the last when left out"),
            ],
            returns: &[("Tensor", "a view")],
            example: "assert(lft.zeros({2, 3, 4}):transpose(1, 3):size(1) == 4)",
        },
        |_, this: &Handle, (a, b): (Option<i64>, Option<i64>)| {
            let tensor = this.get()?;
            let (a, b) =
                (args::dim(a.unwrap_or(-2), tensor.rank())?, args::dim(b.unwrap_or(-1), tensor.rank())?);
            Ok(Handle::new(tensor.transpose(a, b)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:permute",
            about: "The dimensions in another order.",
            params: &[("...", "integer|integer[]", "every dimension once, one by one or as a table")],
            returns: &[("Tensor", "a view")],
            example: "assert(lft.zeros({2, 3, 4}):permute(3, 1, 2):size(2) == 2)",
        },
        |_, this: &Handle, order: Variadic<Value>| {
            let tensor = this.get()?;
            let order = args::integers(&order)?
                .into_iter()
                .map(|number| args::dim(number, tensor.rank()))
                .collect::<anyhow::Result<Vec<usize>>>()?;
            let mut sorted = order.clone();
            sorted.sort_unstable();
            if sorted != (0..tensor.rank()).collect::<Vec<_>>() {
                bail!("name every one of the {} dimensions once", tensor.rank());
            }
            Ok(Handle::new(tensor.permute(order)?))
        },
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
    parts(class);
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

fn parts(class: &mut Members<'_, Handle>) {
    class.method(
        Entry {
            name: "Tensor:narrow",
            about: "A stretch of one dimension.",
            params: &[
                ("dim", "integer", "the dimension"),
                ("start", "integer", "its first element"),
                ("length", "integer", "how many"),
            ],
            returns: &[("Tensor", "a view")],
            example: "assert(lft.arange(10):narrow(1, 3, 2)[1]:item() == 2)",
        },
        |_, this: &Handle, (number, start, length): (i64, i64, i64)| {
            let tensor = this.get()?;
            let dim = args::dim(number, tensor.rank())?;
            let first = args::element(start, tensor.dims()[dim])?;
            let left = tensor.dims()[dim] - first;
            match usize::try_from(length) {
                Ok(length) if length <= left => Ok(Handle::new(tensor.narrow(dim, first, length)?)),
                _ => bail!("a length of {length} from {start} on does not fit, {left} elements are there"),
            }
        },
    );
    class.method(
        Entry {
            name: "Tensor:chunk",
            about: "The tensor cut into parts of nearly equal length.",
            params: &[
                ("count", "integer", "how many"),
                ("dim?", "integer", "along which dimension, the first when left out"),
            ],
            returns: &[("Tensor[]", "the parts")],
            example: "assert(#lft.zeros({6}):chunk(3) == 3)",
        },
        |_, this: &Handle, (count, number): (i64, Option<i64>)| {
            let tensor = this.get()?;
            let dim = args::dim(number.unwrap_or(1), tensor.rank())?;
            match usize::try_from(count) {
                Ok(count) if count >= 1 => {
                    Ok(tensor.chunk(count, dim)?.into_iter().map(Handle::new).collect::<Vec<_>>())
                }
                _ => bail!("cannot cut into {count} parts"),
            }
        },
    );
    class.method(
        Entry {
            name: "Tensor:flip",
            about: "The elements along a dimension in reverse order.",
            params: &[("dim", "integer", "the dimension")],
            returns: &[("Tensor", "a tensor of the same shape")],
            example: "assert(lft.arange(3):flip(1)[1]:item() == 2)",
        },
        |_, this: &Handle, number: i64| {
            let tensor = this.get()?;
            Ok(Handle::new(tensor.flip(&[args::dim(number, tensor.rank())?])?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:contiguous",
            about: "The elements laid out row after row in memory; a copy only where they are not.",
            params: &[],
            returns: &[("Tensor", "a tensor of the same shape")],
            example: "assert(lft.zeros({2, 3}):transpose():contiguous():size(1) == 3)",
        },
        |_, this: &Handle, ()| Ok(Handle::new(this.get()?.contiguous()?)),
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
