//! `+ - * / ^` and unary minus, with NumPy's broadcasting and PyTorch's promotion of element types.

use anyhow::{Context, bail};
use candle_core::{DType, Tensor};

use super::handle::{Handle, Operand};
use crate::lua::catalogue::Entry;
use crate::lua::memory;
use crate::lua::register::Members;
use crate::ops;

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`, always of real numbers
    Div,
    /// `^`
    Pow,
}

/// `left operator right`.
///
/// # Errors
/// Shapes that do not broadcast and results larger than memory.
pub fn apply(operator: Operator, left: Operand, right: Operand) -> anyhow::Result<Tensor> {
    match (left, right) {
        (Operand::Tensor(left), Operand::Tensor(right)) => tensors(operator, &left, &right),
        (Operand::Tensor(left), Operand::Whole(right)) if stays_whole(operator, &left) => {
            whole(operator, &left, right, false)
        }
        (Operand::Whole(left), Operand::Tensor(right)) if stays_whole(operator, &right) => {
            whole(operator, &right, left, true)
        }
        (Operand::Tensor(left), right) => with_number(operator, &real(&left)?, number(&right)),
        (left, Operand::Tensor(right)) => number_with(operator, number(&left), &real(&right)?),
        _ => bail!("expected a tensor on one side"),
    }
}

fn number(operand: &Operand) -> f64 {
    match operand {
        Operand::Whole(number) => *number as f64,
        Operand::Real(number) => *number,
        Operand::Tensor(_) => f64::NAN,
    }
}

fn stays_whole(operator: Operator, tensor: &Tensor) -> bool {
    tensor.dtype().is_int() && matches!(operator, Operator::Add | Operator::Sub | Operator::Mul)
}

/// Integer tensors with a whole number: in i64, so that `u32 - 1` does not wrap on the way.
fn whole(operator: Operator, tensor: &Tensor, number: i64, number_first: bool) -> anyhow::Result<Tensor> {
    let wide = tensor.to_dtype(DType::I64)?;
    let number = Tensor::new(number, tensor.device())?.broadcast_as(tensor.shape())?;
    let (left, right) = if number_first { (&number, &wide) } else { (&wide, &number) };
    Ok(broadcast(operator, left, right)?.to_dtype(tensor.dtype())?)
}

/// The tensor with real elements.
///
/// # Errors
/// When the device cannot convert.
pub fn real(tensor: &Tensor) -> candle_core::Result<Tensor> {
    match tensor.dtype().is_int() {
        true => tensor.to_dtype(DType::F32),
        false => Ok(tensor.clone()),
    }
}

fn with_number(operator: Operator, tensor: &Tensor, number: f64) -> anyhow::Result<Tensor> {
    Ok(match operator {
        Operator::Add => tensor.affine(1.0, number)?,
        Operator::Sub => tensor.affine(1.0, -number)?,
        Operator::Mul => tensor.affine(number, 0.0)?,
        Operator::Div => tensor.affine(1.0 / number, 0.0)?,
        Operator::Pow if number == 2.0 => tensor.sqr()?,
        Operator::Pow => tensor.powf(number)?,
    })
}

fn number_with(operator: Operator, number: f64, tensor: &Tensor) -> anyhow::Result<Tensor> {
    Ok(match operator {
        Operator::Add => tensor.affine(1.0, number)?,
        Operator::Sub => tensor.affine(-1.0, number)?,
        Operator::Mul => tensor.affine(number, 0.0)?,
        Operator::Div => tensor.recip()?.affine(number, 0.0)?,
        Operator::Pow if number > 0.0 => tensor.affine(number.ln(), 0.0)?.exp()?,
        Operator::Pow => {
            power(&Tensor::full(number, tensor.dims(), tensor.device())?.to_dtype(tensor.dtype())?, tensor)?
        }
    })
}

fn tensors(operator: Operator, left: &Tensor, right: &Tensor) -> anyhow::Result<Tensor> {
    let (left, right) = promoted(left, right)?;
    match operator {
        Operator::Div | Operator::Pow => broadcast(operator, &real(&left)?, &real(&right)?),
        _ => broadcast(operator, &left, &right),
    }
}

/// Whether a tensor (B, 1, …, 1) holds one number for each example of another (B, …).
fn is_factor(factor: &Tensor, of: &Tensor) -> bool {
    let (ones, dims) = (factor.dims(), of.dims());
    dims.len() > 1 && ones.len() == dims.len() && ones[0] == dims[0] && ones[1..].iter().all(|dim| *dim == 1)
}

fn broadcast(operator: Operator, left: &Tensor, right: &Tensor) -> anyhow::Result<Tensor> {
    let joint = joint_shape(left.dims(), right.dims())?;
    memory::check(&joint, left.dtype())?;
    Ok(match operator {
        Operator::Add => left.broadcast_add(right)?,
        Operator::Sub => left.broadcast_sub(right)?,
        Operator::Mul if is_factor(right, left) => ops::scale(left, right)?,
        Operator::Mul if is_factor(left, right) => ops::scale(right, left)?,
        Operator::Mul => left.broadcast_mul(right)?,
        Operator::Div => left.broadcast_div(right)?,
        Operator::Pow => {
            power(&left.broadcast_as(joint.as_slice())?, &right.broadcast_as(joint.as_slice())?)?
        }
    })
}

/// `base ^ exponent`, element by element, as the C library has it: by the logarithm of the base's size, with the sign
/// that a whole exponent gives a negative base. No gradient leaves a base of zero.
fn power(base: &Tensor, exponent: &Tensor) -> candle_core::Result<Tensor> {
    let (base, exponent) = (base.contiguous()?, exponent.contiguous()?);
    let (sign, none) = (sign_of_power(&base.detach(), &exponent.detach())?, base.eq(0.0)?);
    let ones = base.ones_like()?;
    let size = (none.where_cond(&ones, &base.abs()?)?.log()? * &exponent)?.exp()?;
    let zeros = exponent.zeros_like()?;
    let of_none = exponent.eq(0.0)?.where_cond(&ones, &zeros)?;
    let of_none = exponent.lt(0.0)?.where_cond(&(&ones * f64::INFINITY)?, &of_none)?;
    none.where_cond(&of_none, &(size * sign)?)
}

/// 1, or for a negative base: 1 by an even exponent, -1 by an odd one, and not a number by any other.
fn sign_of_power(base: &Tensor, exponent: &Tensor) -> candle_core::Result<Tensor> {
    let ones = base.ones_like()?;
    let half = (exponent / 2.0)?;
    let even = half.floor()?.eq(&half)?;
    let whole = exponent.floor()?.eq(exponent)?;
    let parity = even.where_cond(&ones, &ones.neg()?)?;
    let parity = whole.where_cond(&parity, &(&ones * f64::NAN)?)?;
    base.lt(0.0)?.where_cond(&parity, &ones)
}

/// Both tensors in the element type that holds either: real before integer, wider before narrower.
///
/// # Errors
/// When the device cannot convert.
pub fn promoted(left: &Tensor, right: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    let dtype = joint_dtype(left.dtype(), right.dtype());
    Ok((left.to_dtype(dtype)?, right.to_dtype(dtype)?))
}

fn joint_dtype(left: DType, right: DType) -> DType {
    match (left, right) {
        _ if left == right => left,
        _ if left.is_int() && right.is_int() => DType::I64,
        _ if left.is_int() => right,
        _ if right.is_int() => left,
        _ if left == DType::F64 || right == DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// The shape that two shapes broadcast to, aligned at the last dimension.
///
/// # Errors
/// When a dimension differs and is 1 in neither.
pub fn joint_shape(left: &[usize], right: &[usize]) -> anyhow::Result<Vec<usize>> {
    let rank = left.len().max(right.len());
    let length =
        |dims: &[usize], index: usize| (index + dims.len()).checked_sub(rank).map_or(1, |at| dims[at]);
    (0..rank)
        .map(|index| match (length(left, index), length(right, index)) {
            (a, b) if a == b || b == 1 => Some(a),
            (1, b) => Some(b),
            _ => None,
        })
        .collect::<Option<Vec<usize>>>()
        .with_context(|| format!("shapes {left:?} and {right:?} do not broadcast"))
}

macro_rules! operator {
    ($class:expr, $name:literal, $about:literal, $operator:expr, $example:literal) => {
        $class.operator(
            Entry {
                name: concat!("Tensor.", $name),
                about: $about,
                params: &[("other", "Tensor|number", "the right operand; shapes broadcast as in NumPy")],
                returns: &[("Tensor", "the result")],
                example: $example,
            },
            |_, (left, right): (Operand, Operand)| Ok(Handle::new(apply($operator, left, right)?)),
        );
    };
}

/// The operators.
pub fn members(class: &mut Members<'_, Handle>) {
    operator!(
        class,
        "__add",
        "Sum.",
        Operator::Add,
        "assert((lft.ones({2, 1}) + lft.ones({3})):sum():item() == 12)"
    );
    operator!(class, "__sub", "Difference.", Operator::Sub, "assert((5 - lft.ones({2}))[1]:item() == 4)");
    operator!(
        class,
        "__mul",
        "Product of the elements.",
        Operator::Mul,
        "assert((2 * lft.ones({2}))[2]:item() == 2)"
    );
    operator!(
        class,
        "__div",
        "Quotient; integers give f32.",
        Operator::Div,
        "assert((lft.ones({2}) / 4)[1]:item() == 0.25)"
    );
    operator!(class, "__pow", "Power.", Operator::Pow, "assert((lft.tensor({-3}) ^ 2):item() == 9)");
    class.meta(
        Entry {
            name: "Tensor.__unm",
            about: "Negative.",
            params: &[],
            returns: &[("Tensor", "the result")],
            example: "assert((-lft.ones({1})):item() == -1)",
        },
        |_, this: &Handle, _: mlua::MultiValue| Ok(Handle::new(negative(&this.get()?)?)),
    );
}

/// The negative; unsigned integers become i64.
///
/// # Errors
/// When the device cannot convert.
pub fn negative(tensor: &Tensor) -> anyhow::Result<Tensor> {
    match tensor.dtype().is_int() {
        true => whole(Operator::Mul, &tensor.to_dtype(DType::I64)?, -1, false),
        false => Ok(tensor.neg()?),
    }
}
