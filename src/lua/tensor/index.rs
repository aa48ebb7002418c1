//! Selection by index: `t[i]`, slices, gather, sort.

use anyhow::{Context, bail};
use candle_core::{D, DType, Tensor};
use mlua::{Lua, Table, Value};

use super::args;
use super::handle::{Handle, TensorArg};
use crate::lua::catalogue::{Entry, Kind};
use crate::lua::register::Members;
use crate::lua::state::State;
use crate::lua::types::describe;
use crate::nearest::nearest;

/// Selection by index.
pub fn members(class: &mut Members<'_, Handle>) {
    class.meta(
        Entry {
            name: "Tensor.__index",
            about: "Selects along the first dimension, or with a table along several: a number selects, `{a, b}` takes the \
                    elements a to b, `\":\"` takes all.",
            params: &[("index", "integer|table", "which elements")],
            returns: &[("Tensor", "a view")],
            example: "local t = lft.arange(6):reshape(2, 3)\nassert(t[2][-1]:item() == 5)\nassert(t[{\":\", {2, 3}}]:size(2) == 2)",
        },
        |lua, this: &Handle, index: Value| {
            if let Value::String(name) = &index {
                bail!("{}", no_method(lua, &name.to_string_lossy())?);
            }
            let tensor = this.get()?;
            Ok(Handle::new(match &index {
                Value::Table(items) => slice(&tensor, items)?,
                Value::Integer(number) => select(&tensor, 0, *number)?,
                Value::Number(number) if number.fract() == 0.0 => select(&tensor, 0, *number as i64)?,
other => bail!("cannot index a tensor by {}", describe(other)),
            }))
        },
    );
    class.meta(
        Entry {
            name: "Tensor.__newindex",
            about: "Tensors do not change; this is an error that says what to write instead.",
            params: &[("...", "any", "index and value")],
            returns: &[("nil", "nothing")],
            example: "local t = lft.zeros({2})\nassert(not pcall(function() t[1] = 5 end))",
        },
        |_, _: &Handle, _: mlua::MultiValue| -> anyhow::Result<()> {
            bail!("tensors do not change; build a new one with lft.where or lft.cat, or use v:set(t) on a variable")
        },
    );
    class.method(
        Entry {
            name: "Tensor:index_select",
            about: "The elements of one dimension at the given indices, which start at 1.",
            params: &[
                ("dim", "integer", "the dimension"),
                ("indices", "Tensor|integer[]", "one dimension of indices"),
            ],
            returns: &[("Tensor", "as many elements along `dim` as indices")],
            example: "assert(lft.arange(5):index_select(1, {5, 1})[1]:item() == 4)",
        },
        |lua, this: &Handle, (number, indices): (i64, Value)| {
            let tensor = this.get()?;
            let dim = args::dim(number, tensor.rank())?;
            let numbers = match &indices {
                Value::Table(_) => args::integers(&[indices])?,
                _ => whole(&mlua::FromLua::from_lua(indices, lua)?)?,
            };
            let indices = zero_based(&numbers, tensor.dims()[dim])?;
            let indices = Tensor::from_vec(indices, numbers.len(), tensor.device())?;
            Ok(Handle::new(tensor.contiguous()?.index_select(&indices, dim)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:gather",
            about: "For every place of `indices`, the element that stands there along `dim`. Indices start at 1; token ids \
                    start at 0, so gather log-probabilities at `ids + 1`.",
            params: &[("dim", "integer", "the dimension"), ("indices", "Tensor", "as many dimensions as the tensor")],
            returns: &[("Tensor", "the shape of `indices`")],
            example: "local t = lft.tensor({{1, 2}, {3, 4}})\nassert(t:gather(2, lft.tensor({{2}, {1}})):sum():item() == 5)",
        },
        |_, this: &Handle, (number, indices): (i64, TensorArg)| {
            let tensor = this.get()?;
            let dim = args::dim(number, tensor.rank())?;
            let shape = indices.0.dims().to_vec();
            let fits = shape.len() == tensor.rank()
                && shape.iter().zip(tensor.dims()).enumerate().all(|(at, (a, b))| at == dim || a <= b);
            if !fits {
                bail!("indices of shape {shape:?} do not fit a tensor of shape {:?}", tensor.dims());
            }
            let indices = zero_based(&whole(&indices)?, tensor.dims()[dim])?;
            let indices = Tensor::from_vec(indices, shape, tensor.device())?;
            Ok(Handle::new(tensor.contiguous()?.gather(&indices, dim)?))
        },
    );
    sorting(class);
}

fn no_method(lua: &Lua, name: &str) -> anyhow::Result<String> {
    let catalogue = State::of(lua)?.catalogue();
    let methods = catalogue.of("Tensor").filter(|entry| entry.kind() == Kind::Method).map(Entry::short);
    Ok(match nearest(name, methods) {
        Some(near) => format!("a tensor has no method '{name}' (did you mean '{near}'?)"),
        None => format!("a tensor has no method '{name}'; lft.help(t) lists them"),
    })
}

fn sorting(class: &mut Members<'_, Handle>) {
    class.method(
        Entry {
            name: "Tensor:sort",
            about: "The elements in order along a dimension.",
            params: &[
                ("dim?", "integer", "the dimension, the last when left out"),
                ("descending?", "boolean", "largest first"),
            ],
            returns: &[("Tensor", "the sorted elements"), ("Tensor", "u32 indices, from 1, of where they stood")],
            example: "local sorted, order = lft.tensor({3, 1, 2}):sort()\nassert(sorted[1]:item() == 1 and order[1]:item() == 2)",
        },
        |_, this: &Handle, (number, descending): (Option<i64>, Option<bool>)| {
            let (values, order) = sorted(&this.get()?, number, descending.unwrap_or(false), None)?;
            Ok((Handle::new(values), Handle::new(order)))
        },
    );
    class.method(
        Entry {
            name: "Tensor:topk",
            about: "The largest elements along a dimension, largest first.",
            params: &[
                ("count", "integer", "how many"),
                ("dim?", "integer", "the dimension, the last when left out"),
            ],
            returns: &[("Tensor", "the elements"), ("Tensor", "u32 indices, from 1, of where they stood")],
            example: "local best = lft.tensor({3, 1, 2}):topk(2)\nassert(best[2]:item() == 2)",
        },
        |_, this: &Handle, (count, number): (i64, Option<i64>)| {
            let count = usize::try_from(count).ok().context("the count is negative")?;
            let (values, order) = sorted(&this.get()?, number, true, Some(count))?;
            Ok((Handle::new(values), Handle::new(order)))
        },
    );
}

/// Elements in order along a dimension, at most `count`, and their 1-based places.
fn sorted(
    tensor: &Tensor,
    number: Option<i64>,
    descending: bool,
    count: Option<usize>,
) -> anyhow::Result<(Tensor, Tensor)> {
    let dim = args::dim(number.unwrap_or(-1), tensor.rank())?;
    let last = tensor.rank() - 1;
    let length = tensor.dims()[dim];
    let count = count.unwrap_or(length);
    if count > length || length == 0 {
        bail!("a dimension of {length} elements has no {count} elements to order");
    }
    let moved = tensor.transpose(dim, last)?.contiguous()?;
    let order = moved.arg_sort_last_dim(!descending)?.narrow(D::Minus1, 0, count)?.contiguous()?;
    let values = moved.gather(&order, last)?;
    Ok((values.transpose(dim, last)?, (order + 1.0)?.transpose(dim, last)?))
}

fn select(tensor: &Tensor, dim: usize, number: i64) -> anyhow::Result<Tensor> {
    let length =
        tensor.dims().get(dim).context("a tensor without dimensions cannot be indexed; item() reads it")?;
    let index = args::element(number, *length)?;
    Ok(tensor.narrow(dim, index, 1)?.squeeze(dim)?)
}

fn slice(tensor: &Tensor, items: &Table) -> anyhow::Result<Tensor> {
    let (mut view, mut dim) = (tensor.clone(), 0);
    for item in items.sequence_values::<Value>() {
        let item = item?;
        match &item {
            Value::Integer(number) => view = select(&view, dim, *number)?,
            Value::String(all) if all.as_bytes() == b":" => dim += 1,
            Value::Table(range) => {
                let length = *view.dims().get(dim).context("more indices than dimensions")?;
                let first = args::element(range.get::<Option<i64>>(1)?.unwrap_or(1), length)?;
                let last = args::element(range.get::<Option<i64>>(2)?.unwrap_or(-1), length)?;
                if last < first {
                    bail!("a slice runs forward, {{{}, {}}} does not", first + 1, last + 1);
                }
                view = view.narrow(dim, first, last + 1 - first)?;
                dim += 1;
            }
            other => bail!("a slice is a number, {{first, last}} or \":\", found {}", describe(other)),
        }
    }
    Ok(view)
}

/// The elements of an index tensor as whole numbers.
fn whole(indices: &TensorArg) -> anyhow::Result<Vec<i64>> {
    Ok(indices.0.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?)
}

fn zero_based(numbers: &[i64], length: usize) -> anyhow::Result<Vec<u32>> {
    numbers.iter().map(|&number| Ok(u32::try_from(args::element(number, length)?)?)).collect()
}
