//! Functions of every element, and softmax from primitives that record a backward.

use anyhow::bail;
use candle_core::{D, Tensor};

use super::args;
use super::arithmetic::{Operator, apply, negative, real};
use super::handle::{Handle, Operand};
use crate::lua::catalogue::Entry;
use crate::lua::register::Members;
use crate::ops::{self, Activation};

macro_rules! unary {
    ($class:expr, $name:literal, $about:literal, $function:expr, $example:literal) => {
        $class.method(
            Entry {
                name: concat!("Tensor:", $name),
                about: $about,
                params: &[],
                returns: &[("Tensor", "a tensor of the same shape")],
                example: $example,
            },
            |_, this: &Handle, ()| {
                let function: fn(&Tensor) -> candle_core::Result<Tensor> = $function;
                Ok(Handle::new(function(&real(&this.get()?)?)?))
            },
        );
    };
}

/// Functions of every element.
pub fn members(class: &mut Members<'_, Handle>) {
    unary!(
        class,
        "exp",
        "e to the power of every element.",
        ops::exp,
        "assert(lft.zeros({1}):exp():item() == 1)"
    );
    unary!(class, "log", "Natural logarithm.", Tensor::log, "assert(lft.ones({1}):log():item() == 0)");
    unary!(class, "sin", "Sine.", Tensor::sin, "assert(lft.zeros({1}):sin():item() == 0)");
    unary!(class, "cos", "Cosine.", Tensor::cos, "assert(lft.zeros({1}):cos():item() == 1)");
    unary!(class, "tanh", "Hyperbolic tangent.", ops::tanh, "assert(lft.zeros({1}):tanh():item() == 0)");
    unary!(class, "sqrt", "Square root.", Tensor::sqrt, "assert(lft.tensor({9}):sqrt():item() == 3)");
    unary!(class, "sqr", "Square.", Tensor::sqr, "assert(lft.tensor({3}):sqr():item() == 9)");
    unary!(class, "abs", "Absolute value.", Tensor::abs, "assert(lft.tensor({-3}):abs():item() == 3)");
    unary!(
        class,
        "recip",
        "One divided by every element.",
        Tensor::recip,
        "assert(lft.tensor({4}):recip():item() == 0.25)"
    );
    unary!(class, "erf", "Error function.", Tensor::erf, "assert(lft.zeros({1}):erf():item() == 0)");
    unary!(
        class,
        "relu",
        "max(x, 0).",
        |x| Activation::Relu.apply(x),
        "assert(lft.tensor({-3}):relu():item() == 0)"
    );
    unary!(
        class,
        "silu",
        "x times its sigmoid.",
        |x| Activation::Silu.apply(x),
        "assert(lft.zeros({1}):silu():item() == 0)"
    );
    unary!(
        class,
        "sigmoid",
        "1 / (1 + exp(-x)).",
        ops::sigmoid,
        "assert(lft.zeros({1}):sigmoid():item() == 0.5)"
    );
    unary!(
        class,
        "floor",
        "Next whole number below.",
        Tensor::floor,
        "assert(lft.tensor({1.5}):floor():item() == 1)"
    );
    unary!(
        class,
        "ceil",
        "Next whole number above.",
        Tensor::ceil,
        "assert(lft.tensor({1.5}):ceil():item() == 2)"
    );
    unary!(
        class,
        "round",
        "Nearest whole number.",
        Tensor::round,
        "assert(lft.tensor({1.6}):round():item() == 2)"
    );
    unary!(class, "sign", "-1, 0 or 1.", Tensor::sign, "assert(lft.tensor({-7}):sign():item() == -1)");
    class.method(
        Entry {
            name: "Tensor:neg",
            about: "Negative of every element, as unary minus.",
            params: &[],
            returns: &[("Tensor", "a tensor of the same shape")],
            example: "assert(lft.ones({1}):neg():item() == -1)",
        },
        |_, this: &Handle, ()| Ok(Handle::new(negative(&this.get()?)?)),
    );
    class.method(
        Entry {
            name: "Tensor:gelu",
            about: "Gaussian error linear unit: x·Φ(x), or its tanh approximation.",
            params: &[("approximate?", "\"none\"|\"tanh\"", "\"none\" when left out")],
            returns: &[("Tensor", "a tensor of the same shape")],
            example: "assert(lft.zeros({1}):gelu(\"tanh\"):item() == 0)",
        },
        |_, this: &Handle, approximate: Option<String>| {
            let tensor = real(&this.get()?)?;
            let gelu = match approximate.as_deref() {
                Some("tanh") => Activation::GeluNew,
                _ => Activation::Gelu,
            };
            Ok(Handle::new(gelu.apply(&tensor)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:pow",
            about: "Power, as the operator ^.",
            params: &[("exponent", "Tensor|number", "the exponent")],
            returns: &[("Tensor", "the result")],
            example: "assert(lft.tensor({2}):pow(3):item() == 8)",
        },
        |_, this: &Handle, exponent: Operand| {
            Ok(Handle::new(apply(Operator::Pow, Operand::Tensor(this.get()?), exponent)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:clamp",
            about: "Elements below `low` become `low`, those above `high` become `high`.",
            params: &[("low", "number|nil", "lower bound, nil for none"), ("high?", "number", "upper bound")],
            returns: &[("Tensor", "a tensor of the same shape")],
            example: "assert(lft.tensor({-2, 5}):clamp(0, 1):sum():item() == 1)",
        },
        |_, this: &Handle, (low, high): (Option<f64>, Option<f64>)| {
            let tensor = this.get()?;
            if let (Some(low), Some(high)) = (low, high)
                && low > high
            {
                bail!("the lower bound {low} is above the upper bound {high}");
            }
            let tensor = low.map_or(Ok(tensor.clone()), |low| tensor.maximum(low))?;
            Ok(Handle::new(high.map_or(Ok(tensor.clone()), |high| tensor.minimum(high))?))
        },
    );
    softmaxes(class);
}

fn softmaxes(class: &mut Members<'_, Handle>) {
    class.method(
        Entry {
            name: "Tensor:softmax",
            about: "exp(x) / Σ exp(x) along a dimension.",
            params: &[("dim?", "integer", "the dimension, the last when left out")],
            returns: &[("Tensor", "a tensor of the same shape whose sums along `dim` are 1")],
            example: "assert(lft.zeros({2, 4}):softmax(2)[1][1]:item() == 0.25)",
        },
        |_, this: &Handle, number: Option<i64>| {
            let tensor = real(&this.get()?)?;
            let dim = args::dim(number.unwrap_or(-1), tensor.rank())?;
            Ok(Handle::new(candle_nn::ops::softmax(&tensor, dim)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:log_softmax",
            about: "Logarithm of the softmax along a dimension.",
            params: &[("dim?", "integer", "the dimension, the last when left out")],
            returns: &[("Tensor", "a tensor of the same shape")],
            example: "assert(math.abs(lft.zeros({4}):log_softmax(1)[1]:item() + math.log(4)) < 1e-6)",
        },
        |_, this: &Handle, number: Option<i64>| {
            let tensor = real(&this.get()?)?;
            let dim = args::dim(number.unwrap_or(-1), tensor.rank())?;
            Ok(Handle::new(candle_nn::ops::log_softmax(&tensor, dim)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:logsumexp",
            about: "log Σ exp(x) along a dimension, without overflow.",
            params: &[("dim?", "integer", "the dimension, the last when left out")],
            returns: &[("Tensor", "the tensor without that dimension")],
            example: "assert(math.abs(lft.zeros({4}):logsumexp():item() - math.log(4)) < 1e-6)",
        },
        |_, this: &Handle, number: Option<i64>| {
            let tensor = real(&this.get()?)?;
            let dim = args::dim(number.unwrap_or(-1), tensor.rank())?;
            let largest = tensor.max_keepdim(dim)?.detach();
            let sum = tensor.broadcast_sub(&largest)?.exp()?.sum_keepdim(dim)?.log()?;
            Ok(Handle::new((sum + largest)?.squeeze(dim)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:layer_norm",
            about: "(x - mean) / sqrt(variance + eps) over the last dimension, without weight and bias.",
            params: &[("eps?", "number", "1e-5 when left out")],
            returns: &[("Tensor", "a tensor of the same shape")],
            example: "assert(math.abs(lft.tensor({1, 3}):layer_norm()[2]:item() - 1) < 1e-4)",
        },
        |_, this: &Handle, eps: Option<f64>| {
            let tensor = real(&this.get()?)?;
            args::dim(-1, tensor.rank())?;
            let centred = tensor.broadcast_sub(&tensor.mean_keepdim(D::Minus1)?)?;
            let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps.unwrap_or(1e-5))?.sqrt()?;
            Ok(Handle::new(centred.broadcast_div(&scale)?))
        },
    );
}
