//! Sums, means, extremes and other values over one dimension, several or all.

use anyhow::bail;
use candle_core::{D, DType, Tensor};
use mlua::Value;

use super::args;
use super::arithmetic::real;
use super::handle::Handle;
use crate::lua::catalogue::{Entry, Param, Return};
use crate::lua::register::Members;

const OVER: &[Param] = &[
    ("dim?", "integer|integer[]", "the dimension or dimensions, all when left out"),
    ("keepdim?", "boolean", "whether the reduced dimensions stay with length 1"),
];
const REDUCED: &[Return] = &[("Tensor", "the tensor without the reduced dimensions")];
const ALONG: &[Param] = &[("dim?", "integer", "the dimension; all elements in a row when left out")];

macro_rules! reduction {
    ($class:expr, $name:literal, $about:literal, $function:expr, $example:literal) => {
        $class.method(
            Entry {
                name: concat!("Tensor:", $name),
                about: $about,
                params: OVER,
                returns: REDUCED,
                example: $example,
            },
            |_, this: &Handle, (over, keep): (Value, Option<bool>)| {
                reduce(&this.get()?, &over, keep.unwrap_or(false), $function)
            },
        );
    };
}

/// Reductions.
pub fn members(class: &mut Members<'_, Handle>) {
    reduction!(
        class,
        "sum",
        "Sum; integers add up in i64.",
        sum,
        "assert(lft.ones({2, 3}):sum(2)[1]:item() == 3)"
    );
    reduction!(
        class,
        "mean",
        "Mean; integers give f32.",
        mean,
        "assert(lft.tensor({1, 3}):mean():item() == 2)"
    );
    reduction!(
        class,
        "max",
        "Largest element.",
        max,
        "assert(lft.tensor({{1, 5}, {7, 2}}):max(1)[1]:item() == 7)"
    );
    reduction!(class, "min", "Smallest element.", min, "assert(lft.tensor({1, -5}):min():item() == -5)");
    reduction!(
        class,
        "var",
        "Variance, divided by n - 1.",
        variance,
        "assert(lft.tensor({1, 3}):var():item() == 2)"
    );
    reduction!(
        class,
        "std",
        "Standard deviation, the root of the variance.",
        |t, dims| root(&variance(t, dims)?),
        "assert(lft.tensor({0, 2}):std():item() > 1.41)"
    );
    reduction!(
        class,
        "norm",
        "Euclidean norm, the root of the sum of squares.",
        |t, dims| root(&sum(&real(t)?.sqr()?, dims)?),
        "assert(lft.tensor({3, 4}):norm():item() == 5)"
    );
    class.method(
        Entry {
            name: "Tensor:argmax",
            about: "Index of the largest element along a dimension, starting at 1. Token ids start at 0: subtract 1 from an argmax over logits.",
            params: ALONG,
            returns: &[("Tensor", "u32 indices, without that dimension")],
            example: "assert(lft.tensor({1, 5, 2}):argmax():item() == 2)",
        },
        |_, this: &Handle, number: Option<i64>| {
            let (tensor, dim) = along(&this.get()?, number)?;
            Ok(Handle::new((tensor.argmax(dim)? + 1.0)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:argmin",
            about: "Index of the smallest element along a dimension, starting at 1.",
            params: ALONG,
            returns: &[("Tensor", "u32 indices, without that dimension")],
            example: "assert(lft.tensor({1, 5, -2}):argmin(1):item() == 3)",
        },
        |_, this: &Handle, number: Option<i64>| {
            let (tensor, dim) = along(&this.get()?, number)?;
            Ok(Handle::new((tensor.argmin(dim)? + 1.0)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:cumsum",
            about: "Running sum along a dimension.",
            params: &[("dim", "integer", "the dimension")],
            returns: &[("Tensor", "a tensor of the same shape")],
            example: "assert(lft.tensor({1, 2, 3}):cumsum(1)[3]:item() == 6)",
        },
        |_, this: &Handle, number: i64| {
            let tensor = this.get()?;
            let dim = args::dim(number, tensor.rank())?;
            let dtype = tensor.dtype();
            let wide = if dtype.is_int() { tensor.to_dtype(DType::F64)? } else { tensor };
            let last = wide.rank() - 1;
            let sums = running_sum(&wide.transpose(dim, last)?.contiguous()?)?.transpose(dim, last)?;
            Ok(Handle::new(if dtype.is_int() { sums.to_dtype(DType::I64)? } else { sums }))
        },
    );
}

fn reduce(
    tensor: &Tensor,
    over: &Value,
    keep: bool,
    function: impl Fn(&Tensor, &[usize]) -> anyhow::Result<Tensor>,
) -> anyhow::Result<Handle> {
    let mut dims = match over {
        Value::Nil => (0..tensor.rank()).collect(),
        one => args::integers(std::slice::from_ref(one))?
            .into_iter()
            .map(|number| args::dim(number, tensor.rank()))
            .collect::<anyhow::Result<Vec<usize>>>()?,
    };
    dims.sort_unstable();
    if dims.windows(2).any(|pair| pair[0] == pair[1]) {
        bail!("a dimension is named twice");
    }
    let mut reduced = function(tensor, &dims)?;
    if !keep {
        for &dim in dims.iter().rev() {
            reduced = reduced.squeeze(dim)?;
        }
    }
    Ok(Handle::new(reduced))
}

fn count(tensor: &Tensor, dims: &[usize]) -> usize {
    dims.iter().map(|&dim| tensor.dims()[dim]).product()
}

fn sum(tensor: &Tensor, dims: &[usize]) -> anyhow::Result<Tensor> {
    let tensor = if tensor.dtype().is_int() { tensor.to_dtype(DType::I64)? } else { tensor.clone() };
    Ok(tensor.sum_keepdim(dims)?)
}

fn mean(tensor: &Tensor, dims: &[usize]) -> anyhow::Result<Tensor> {
    nonempty(tensor, dims)?;
    Ok((real(tensor)?.sum_keepdim(dims)? / count(tensor, dims) as f64)?)
}

fn variance(tensor: &Tensor, dims: &[usize]) -> anyhow::Result<Tensor> {
    let count = count(tensor, dims);
    if count < 2 {
        bail!("a variance needs at least two elements");
    }
    let tensor = real(tensor)?;
    let deviation = tensor.broadcast_sub(&mean(&tensor, dims)?)?;
    Ok((deviation.sqr()?.sum_keepdim(dims)? / (count - 1) as f64)?)
}

/// The square root, with the gradient 0 where it is 0.
fn root(squares: &Tensor) -> anyhow::Result<Tensor> {
    let none = squares.eq(0.0)?.to_dtype(squares.dtype())?;
    Ok(((squares + &none)?.sqrt()? - none)?)
}

fn max(tensor: &Tensor, dims: &[usize]) -> anyhow::Result<Tensor> {
    nonempty(tensor, dims)?;
    Ok(dims.iter().try_fold(tensor.clone(), |tensor, &dim| tensor.max_keepdim(dim))?)
}

fn min(tensor: &Tensor, dims: &[usize]) -> anyhow::Result<Tensor> {
    nonempty(tensor, dims)?;
    Ok(dims.iter().try_fold(tensor.clone(), |tensor, &dim| tensor.min_keepdim(dim))?)
}

fn nonempty(tensor: &Tensor, dims: &[usize]) -> anyhow::Result<()> {
    match count(tensor, dims) {
        0 => bail!("no elements to reduce in a tensor of shape {:?}", tensor.dims()),
        _ => Ok(()),
    }
}

fn along(tensor: &Tensor, number: Option<i64>) -> anyhow::Result<(Tensor, usize)> {
    let tensor = match number {
        None => tensor.flatten_all()?,
        Some(_) => tensor.clone(),
    };
    let dim = args::dim(number.unwrap_or(1), tensor.rank())?;
    nonempty(&tensor, &[dim])?;
    Ok((tensor, dim))
}

/// Running sum along the last dimension as products with triangles of at most 256 × 256, so that the cost
/// grows with the length and not with its square.
fn running_sum(tensor: &Tensor) -> anyhow::Result<Tensor> {
    const SPAN: usize = 256;
    let length = tensor.dim(D::Minus1)?;
    if length <= SPAN {
        return Ok(tensor.cumsum(D::Minus1)?);
    }
    let spans = length.div_ceil(SPAN);
    let padded = tensor.pad_with_zeros(D::Minus1, 0, spans * SPAN - length)?;
    let mut dims = tensor.dims().to_vec();
    dims.pop();
    let folded = padded.reshape([dims.as_slice(), &[spans, SPAN]].concat())?;
    let inner = folded.cumsum(D::Minus1)?;
    let totals = inner.narrow(D::Minus1, SPAN - 1, 1)?.squeeze(D::Minus1)?.contiguous()?;
    let before = (running_sum(&totals)? - totals)?;
    let sums = inner.broadcast_add(&before.unsqueeze(D::Minus1)?)?;
    Ok(sums.reshape(padded.dims())?.narrow(D::Minus1, 0, length)?)
}
