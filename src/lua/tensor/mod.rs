//! Tensors: candle's, with 1-based dimensions and indices, NumPy's broadcasting and readable errors.

mod args;
mod arithmetic;
mod autograd;
mod compare;
mod create;
mod handle;
mod index;
mod io;
mod join;
mod linalg;
mod math;
mod random;
mod reduce;
mod shape;
mod view;

pub use args::{TENSOR_OPTIONS, placement};
pub use autograd::Gradients;
pub use handle::{Handle, Operand, TensorArg};
pub use io::named;

use super::catalogue::Class;
use super::register::Registry;

/// Registers the class `Tensor` and the functions that make tensors.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&TENSOR_OPTIONS);
    create::register(registry)?;
    random::register(registry)?;
    join::register(registry)?;
    autograd::register(registry)?;
    compare::register(registry)?;
    io::register(registry)?;
    let about = "A tensor. Dimensions and element indices start at 1, negative ones count from the end; \
                 `t[i]` selects along the first dimension, `t[{i, {a, b}, \":\"}]` selects and slices along several.";
    registry.class::<Handle>(Class { name: "Tensor", about, fields: &[] }, |class| {
        handle::members(class);
        arithmetic::members(class);
        linalg::members(class);
        math::members(class);
        reduce::members(class);
        shape::members(class);
        view::members(class);
        index::members(class);
        compare::members(class);
        autograd::members(class);
    })
}
