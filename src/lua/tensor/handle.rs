//! The userdata that holds a tensor, and how tensors and numbers come in from Lua.

use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use candle_core::Tensor;
use mlua::{FromLua, IntoLua, Lua, Value};

use super::args::{TENSOR_OPTIONS, placement};
use crate::lua::catalogue::Entry;
use crate::lua::memory::Pressure;
use crate::lua::options::Options;
use crate::lua::register::Members;
use crate::lua::state::State;
use crate::lua::types::describe;
use crate::lua::{device, literal};

/// A tensor in Lua's hands; empty once it was freed.
pub struct Handle(Mutex<Option<Tensor>>);

impl Handle {
    /// Wraps a result.
    pub fn new(tensor: Tensor) -> Self {
        Self(Mutex::new(Some(tensor)))
    }

    /// The tensor.
    ///
    /// # Errors
    /// When it was freed.
    pub fn get(&self) -> anyhow::Result<Tensor> {
        let tensor = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tensor.context("this tensor was freed")
    }

    fn free(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl IntoLua for Handle {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        let untracked = State::of(lua).is_ok_and(|state| state.is_untracked());
        let tensor = self.get().map_err(mlua::Error::from)?;
        let tensor = if untracked && !tensor.is_variable() { tensor.detach() } else { tensor };
        Pressure::add(lua, tensor.elem_count() * tensor.dtype().size_in_bytes())?;
        lua.create_any_userdata(Self::new(tensor)).map(Value::UserData)
    }
}

/// A tensor argument.
#[derive(Clone, Debug)]
pub struct TensorArg(pub Tensor);

impl TensorArg {
    /// The tensor that `value` holds.
    ///
    /// # Errors
    /// When it is no tensor, or one that was freed.
    pub fn of(value: &Value) -> anyhow::Result<Tensor> {
        match value.as_userdata().and_then(|data| data.borrow::<Handle>().ok()) {
            Some(handle) => handle.get(),
            None => anyhow::bail!("expected Tensor, found {}", describe(value)),
        }
    }
}

impl FromLua for TensorArg {
    fn from_lua(value: Value, _: &Lua) -> mlua::Result<Self> {
        Self::of(&value).map(Self).map_err(|error| mlua::Error::FromLuaConversionError {
            from: "value",
            to: "Tensor".into(),
            message: Some(error.to_string()),
        })
    }
}

/// One side of an operator: a tensor, a whole number or a real one.
#[derive(Clone, Debug)]
pub enum Operand {
    /// A tensor.
    Tensor(Tensor),
    /// A Lua integer, which leaves integer tensors integer.
    Whole(i64),
    /// A Lua float.
    Real(f64),
}

impl FromLua for Operand {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        match value {
            Value::Integer(number) => Ok(Self::Whole(number)),
            Value::Number(number) => Ok(Self::Real(number)),
            Value::UserData(_) => Ok(Self::Tensor(TensorArg::from_lua(value, lua)?.0)),
            other => Err(mlua::Error::FromLuaConversionError {
                from: other.type_name(),
                to: "Tensor".into(),
                message: Some(format!("expected Tensor or number, found {}", describe(&other))),
            }),
        }
    }
}

/// What a tensor is, its values, and its end.
pub fn members(class: &mut Members<'_, Handle>) {
    class.method(
        Entry {
            name: "Tensor:dtype",
            about: "The element type.",
            params: &[],
            returns: &[("string", "\"f32\", \"bf16\", \"u32\" and so on")],
            example: "assert(lft.zeros({2}):dtype() == \"f32\")",
        },
        |_, this: &Handle, ()| Ok(this.get()?.dtype().as_str()),
    );
    class.method(
        Entry {
            name: "Tensor:device",
            about: "Where the tensor lives.",
            params: &[],
            returns: &[("string", "\"cpu\", \"cuda:0\" and so on")],
            example: "assert(lft.zeros({2}):device() == \"cpu\")",
        },
        |_, this: &Handle, ()| Ok(device::name(this.get()?.device())),
    );
    class.method(
        Entry {
            name: "Tensor:to",
            about: "The tensor with another element type or on another device.",
            params: &[("options", "TensorOptions", "what to change")],
            returns: &[("Tensor", "the converted tensor")],
            example: "assert(lft.ones({2}):to{dtype = \"bf16\"}:dtype() == \"bf16\")",
        },
        |lua, this: &Handle, options| {
            let tensor = this.get()?;
            let options = Options::read(lua, Some(options), &TENSOR_OPTIONS)?;
            let (dtype, device) = placement(&options, tensor.dtype(), tensor.device())?;
            Ok(Handle::new(tensor.to_device(&device)?.to_dtype(dtype)?))
        },
    );
    class.method(
        Entry {
            name: "Tensor:item",
            about: "The only element as a Lua number.",
            params: &[],
            returns: &[("number", "the element")],
            example: "assert(lft.ones({2, 3}):sum():item() == 6)",
        },
        |_, this: &Handle, ()| literal::to_number(&this.get()?),
    );
    class.method(
        Entry {
            name: "Tensor:totable",
            about: "The elements as nested Lua tables.",
            params: &[],
            returns: &[("table|number", "one table a dimension; a number for a tensor without dimensions")],
            example: "assert(lft.tensor({{1, 2}, {3, 4}}):totable()[2][1] == 3)",
        },
        |lua, this: &Handle, ()| literal::to_table(lua, &this.get()?),
    );
    class.method(
        Entry {
            name: "Tensor:free",
            about: "Gives the memory back now rather than at the next collection. `local t <close> = …` does so at the end of the block.",
            params: &[],
            returns: &[("nil", "nothing")],
            example: "local t = lft.zeros({1000})\nt:free()\nassert(not pcall(t.sum, t))",
        },
        |_, this: &Handle, ()| {
            this.free();
            Ok(())
        },
    );
    class.hidden("Tensor.__close", |_, this: &Handle, _: mlua::MultiValue| {
        this.free();
        Ok(())
    });
    class.meta(
        Entry {
            name: "Tensor.__tostring",
            about: "Shape, element type, device and the values, shortened in the middle when there are many.",
            params: &[],
            returns: &[("string", "the text")],
            example: "assert(tostring(lft.ones({2, 3})):find(\"2, 3\"))",
        },
        |_, this: &Handle, _: mlua::MultiValue| {
            let tensor = this.get()?;
            let shown = tensor.to_string();
            let values = shown.rsplit_once("\nTensor[").map_or(shown.as_str(), |(values, _)| values);
            let dims: Vec<String> = tensor.dims().iter().map(usize::to_string).collect();
            let kind = if tensor.is_variable() { "Variable" } else { "Tensor" };
            let place = device::name(tensor.device());
            Ok(format!("{kind} ({}) {} {place}\n{values}", dims.join(", "), tensor.dtype().as_str()))
        },
    );
}
