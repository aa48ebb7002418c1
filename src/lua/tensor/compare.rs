//! Comparison, masks and choice.

use anyhow::bail;
use candle_core::{DType, Device, Tensor};
use mlua::Table;

use super::arithmetic::{joint_shape, promoted, real};
use super::handle::{Handle, Operand, TensorArg};
use crate::lua::catalogue::{Entry, OptionsTable, Return};
use crate::lua::memory;
use crate::lua::options::Options;
use crate::lua::register::{Members, Registry};

const CLOSE: OptionsTable = OptionsTable {
    class: "CloseOptions",
    fields: &[
        ("rtol?", "number", "allowed difference relative to the other, 1e-5 when left out"),
        ("atol?", "number", "allowed absolute difference, 1e-8 when left out"),
    ],
};

/// Registers `lft.where`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&CLOSE);
    registry.function(
        Entry {
            name: "lft.where",
            about: "Takes elements from `a` where the mask is not zero, from `b` elsewhere; shapes broadcast.",
            params: &[
                ("mask", "Tensor", "for example the result of t:gt(0)"),
                ("a", "Tensor|number", "values where the mask is set"),
                ("b", "Tensor|number", "values elsewhere"),
            ],
            returns: &[("Tensor", "the chosen elements")],
            example: "local t = lft.tensor({-1, 2})\nassert(lft.where(t:gt(0), t, 0):sum():item() == 2)",
        },
        |_, (mask, a, b): (TensorArg, Operand, Operand)| Ok(Handle::new(choose(&mask.0, a, b)?)),
    )
}

const MASK: &[Return] = &[("Tensor", "a mask: u8 elements, 1 where it holds")];
const CHOSEN: &[Return] = &[("Tensor", "one element of either side in each place")];

macro_rules! comparison {
    ($class:expr, $name:literal, $about:literal, $returns:expr, $function:expr, $example:literal) => {
        $class.method(
            Entry {
                name: concat!("Tensor:", $name),
                about: $about,
                params: &[("other", "Tensor|number", "what to compare with; shapes broadcast")],
                returns: $returns,
                example: $example,
            },
            |_, this: &Handle, other: Operand| {
                let (left, right) = pair(&this.get()?, other)?;
                Ok(Handle::new($function(&left, &right)?))
            },
        );
    };
}

/// Comparison.
pub fn members(class: &mut Members<'_, Handle>) {
    comparison!(
        class,
        "eq",
        "Equal.",
        MASK,
        Tensor::broadcast_eq,
        "assert(lft.tensor({1, 2}):eq(2):sum():item() == 1)"
    );
    comparison!(
        class,
        "ne",
        "Not equal.",
        MASK,
        Tensor::broadcast_ne,
        "assert(lft.tensor({1, 2}):ne(2):sum():item() == 1)"
    );
    comparison!(
        class,
        "lt",
        "Less.",
        MASK,
        Tensor::broadcast_lt,
        "assert(lft.tensor({1, 2}):lt(2):sum():item() == 1)"
    );
    comparison!(
        class,
        "le",
        "Less or equal.",
        MASK,
        Tensor::broadcast_le,
        "assert(lft.tensor({1, 2}):le(2):sum():item() == 2)"
    );
    comparison!(
        class,
        "gt",
        "Greater.",
        MASK,
        Tensor::broadcast_gt,
        "assert(lft.tensor({1, 2}):gt(1):sum():item() == 1)"
    );
    comparison!(
        class,
        "ge",
        "Greater or equal.",
        MASK,
        Tensor::broadcast_ge,
        "assert(lft.tensor({1, 2}):ge(1):sum():item() == 2)"
    );
    comparison!(
        class,
        "maximum",
        "The larger of the two, element by element.",
        CHOSEN,
        Tensor::broadcast_maximum,
        "assert(lft.tensor({1, 5}):maximum(3)[1]:item() == 3)"
    );
    comparison!(
        class,
        "minimum",
        "The smaller of the two, element by element.",
        CHOSEN,
        Tensor::broadcast_minimum,
        "assert(lft.tensor({1, 5}):minimum(3)[2]:item() == 3)"
    );
    class.method(
        Entry {
            name: "Tensor:masked_fill",
            about: "The tensor with `value` where the mask is not zero.",
            params: &[("mask", "Tensor", "its shape broadcasts"), ("value", "number", "the new value")],
            returns: &[("Tensor", "the filled tensor")],
            example: "local t = lft.ones({3})\nassert(t:masked_fill(lft.tensor({1, 0, 0}), 5):sum():item() == 7)",
        },
        |_, this: &Handle, (mask, value): (TensorArg, Operand)| {
            Ok(Handle::new(choose(&mask.0, value, Operand::Tensor(this.get()?))?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:allclose",
            about: "Whether all elements agree: |a - b| <= atol + rtol·|b|.",
            params: &[
                ("other", "Tensor", "a tensor of the same shape"),
                ("options?", "CloseOptions", "the tolerances"),
            ],
            returns: &[("boolean", "false also where an element is not a number")],
            example: "assert(lft.ones({2}):allclose(lft.ones({2}) + 1e-7))",
        },
        |lua, this: &Handle, (other, options): (TensorArg, Option<Table>)| {
            let options = Options::read(lua, options, &CLOSE)?;
            let (rtol, atol) = (options.or("rtol", 1e-5)?, options.or("atol", 1e-8)?);
            close(&this.get()?, &other.0, rtol, atol)
        },
    );
}

fn close(left: &Tensor, right: &Tensor, rtol: f64, atol: f64) -> anyhow::Result<bool> {
    if left.dims() != right.dims() {
        bail!("shapes {:?} and {:?} differ", left.dims(), right.dims());
    }
    let flat = |tensor: &Tensor| {
        tensor.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()
    };
    let near = |(a, b): (&f64, &f64)| a == b || (a - b).abs() <= atol + rtol * b.abs();
    Ok(flat(left)?.iter().zip(&flat(right)?).all(near))
}

/// Both sides in one element type; a number takes the tensor's unless it is real and the tensor is not.
fn pair(left: &Tensor, right: Operand) -> anyhow::Result<(Tensor, Tensor)> {
    let pair = match right {
        Operand::Tensor(right) => promoted(left, &right)?,
        Operand::Whole(number) if left.dtype().is_int() => {
            (left.to_dtype(DType::I64)?, Tensor::new(number, left.device())?)
        }
        Operand::Whole(number) => with_number(left, number as f64)?,
        Operand::Real(number) => with_number(&real(left)?, number)?,
    };
    memory::check(&joint_shape(pair.0.dims(), pair.1.dims())?, pair.0.dtype())?;
    Ok(pair)
}

fn with_number(left: &Tensor, number: f64) -> anyhow::Result<(Tensor, Tensor)> {
    Ok((left.clone(), Tensor::new(number, left.device())?.to_dtype(left.dtype())?))
}

/// Elements of `a` where the mask is not zero, of `b` elsewhere.
fn choose(mask: &Tensor, a: Operand, b: Operand) -> anyhow::Result<Tensor> {
    let (a, b) = match (a, b) {
        (Operand::Tensor(a), b) => pair(&a, b)?,
        (a, Operand::Tensor(b)) => {
            let (b, a) = pair(&b, a)?;
            (a, b)
        }
        (a, b) => pair(&scalar(a, mask.device())?, b)?,
    };
    let shape = joint_shape(mask.dims(), &joint_shape(a.dims(), b.dims())?)?;
    memory::check(&shape, a.dtype())?;
    let mask = match mask.dtype() {
        DType::U8 => mask.clone(),
        _ => mask.ne(0.0)?,
    };
    let [mask, a, b] = [mask, a, b].map(|tensor| tensor.broadcast_as(shape.as_slice())?.contiguous());
    Ok(mask?.where_cond(&a?, &b?)?)
}

fn scalar(operand: Operand, device: &Device) -> anyhow::Result<Tensor> {
    Ok(match operand {
        Operand::Tensor(tensor) => tensor,
        Operand::Whole(number) => Tensor::new(number as f32, device)?,
        Operand::Real(number) => Tensor::new(number as f32, device)?,
    })
}
