//! Views: dimensions in another order, and stretches of them.

use anyhow::bail;
use mlua::{Value, Variadic};

use super::args;
use super::handle::Handle;
use crate::lua::catalogue::Entry;
use crate::lua::register::Members;

/// Views.
pub fn members(class: &mut Members<'_, Handle>) {
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
}
