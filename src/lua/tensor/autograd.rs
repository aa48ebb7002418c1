//! Variables, gradients and code that records none.

use anyhow::bail;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use mlua::{Function, MultiValue, Value};

use super::handle::{Handle, TensorArg};
use crate::lua::catalogue::{Class, Entry};
use crate::lua::memory::Pressure;
use crate::lua::register::{Members, Registry, userdata};
use crate::lua::state::State;

/// What `loss:backward()` found.
pub struct Gradients(GradStore);
userdata!(Gradients);

impl Gradients {
    /// The gradients by variable.
    pub fn store(&self) -> &GradStore {
        &self.0
    }
}

/// Registers `lft.var`, `lft.no_grad` and the class `Gradients`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.function(
        Entry {
            name: "lft.var",
            about: "A trainable copy of a tensor: operations on it are recorded, `v:set(t)` replaces its value.",
            params: &[("tensor", "Tensor", "the first value, of a real element type")],
            returns: &[("Tensor", "the variable")],
            example: "local v = lft.var(lft.tensor({3}))\nlocal grads = (v * v):sum():backward()\nassert(grads[v]:item() == 6)",
        },
        |_, tensor: TensorArg| {
            let tensor = tensor.0;
            if tensor.dtype().is_int() {
                bail!("a variable has real elements, dtype {} has not; write t:to{{dtype=\"f32\"}}", tensor.dtype().as_str());
            }
            Ok(Handle::new(Var::from_tensor(&tensor.detach())?.into_inner()))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.no_grad",
            about: "Runs a function whose results carry no record for gradients, which saves their memory.",
            params: &[("body", "function", "called with the further arguments"), ("...", "any", "passed on")],
            returns: &[("any", "whatever the function returns")],
            example: "local v = lft.var(lft.ones({2}))\nlocal y = lft.no_grad(function() return v * 2 end)\nassert(not pcall(y.backward, y:sum()))",
        },
        |lua, mut args: MultiValue| {
            let Some(Value::Function(body)) = args.pop_front() else {
                bail!("expected a function");
            };
            Ok(State::of(lua)?.untracked(|| Function::call::<MultiValue>(&body, args))?)
        },
    )?;
    let about = "The gradients of one backward pass: `grads[v]` is that of the variable v, nil where the loss does not depend on it.";
    registry.class::<Gradients>(Class { name: "Gradients", about, fields: &[] }, |class| {
        class.meta(
            Entry {
                name: "Gradients.__index",
                about: "The gradient of the loss with respect to a variable.",
                params: &[("variable", "Tensor", "made by lft.var or taken from a model's parameters")],
                returns: &[("Tensor|nil", "of the variable's shape")],
                example: "local v = lft.var(lft.ones({2}))\nlocal grads = (v * 3):sum():backward()\nassert(grads[v][1]:item() == 3)",
            },
            |_, grads: &Gradients, variable: TensorArg| Ok(grads.0.get(&variable.0).cloned().map(Handle::new)),
        );
    })
}

/// What concerns gradients on a tensor.
pub fn members(class: &mut Members<'_, Handle>) {
    class.method(
        Entry {
            name: "Tensor:backward",
            about: "The gradients of this one number with respect to every variable that it was computed from.",
            params: &[],
            returns: &[("Gradients", "indexed by variable")],
            example: "local w = lft.var(lft.tensor({2}))\nlocal grads = (w ^ 3):sum():backward()\nassert(math.abs(grads[w]:item() - 12) < 1e-5)",
        },
        |lua, this: &Handle, ()| {
            let loss = this.get()?;
            if loss.elem_count() != 1 {
                bail!("the loss must be one number, its shape is {:?}; reduce it with :sum() or :mean()", loss.dims());
            }
            if !loss.track_op() {
                bail!("the loss depends on no variable; make one with lft.var, and compute it outside lft.no_grad");
            }
            let gradients = Gradients(loss.backward()?);
            // To Lua a loss is a few words, though everything that it was computed from hangs on it.
            let bytes = |node: &&Tensor| node.elem_count() * node.dtype().size_in_bytes();
            Pressure::add(lua, loss.sorted_nodes().iter().map(bytes).sum())?;
            Ok(gradients)
        },
    );
    class.method(
        Entry {
            name: "Tensor:detach",
            about: "The same values without the record for gradients.",
            params: &[],
            returns: &[("Tensor", "a tensor that shares the elements")],
            example: "local v = lft.var(lft.ones({1}))\nlocal y = v:detach() * v\nassert(y:sum():backward()[v]:item() == 1)",
        },
        |_, this: &Handle, ()| Ok(Handle::new(this.get()?.detach())),
    );
    class.method(
        Entry {
            name: "Tensor:set",
            about: "Replaces the value of a variable.",
            params: &[("value", "Tensor", "of the same shape; the element type is converted")],
            returns: &[("nil", "nothing")],
            example: "local v = lft.var(lft.zeros({2}))\nv:set(lft.ones({2}))\nassert(v:sum():item() == 2)",
        },
        |_, this: &Handle, value: TensorArg| set(&this.get()?, &value.0),
    );
    class.method(
        Entry {
            name: "Tensor:is_var",
            about: "Whether the tensor is a variable.",
            params: &[],
            returns: &[("boolean", "true for what lft.var returns")],
            example: "assert(lft.var(lft.ones({1})):is_var() and not lft.ones({1}):is_var())",
        },
        |_, this: &Handle, ()| Ok(this.get()?.is_variable()),
    );
}

fn set(variable: &Tensor, value: &Tensor) -> anyhow::Result<()> {
    if !variable.is_variable() {
        bail!("only a variable can be set; make one with lft.var(t)");
    }
    if variable.dims() != value.dims() {
        bail!("the variable has shape {:?}, the value {:?}", variable.dims(), value.dims());
    }
    let value = value.detach().to_device(variable.device())?.to_dtype(variable.dtype())?;
    let value =
        if Var::from_tensor(variable)?.as_tensor().is_contiguous() { value.contiguous()? } else { value };
    Ok(Var::from_tensor(variable)?.set(&value)?)
}
