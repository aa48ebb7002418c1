//! Velocity fields from scripts: a trained one or a Lua function.

use std::sync::Arc;

use anyhow::anyhow;
use candle_core::Tensor;
use mlua::{FromLua, Function, IntoLua, Lua, Value};

use super::error::ScriptError;
use super::flow::Velocity;
use super::tensor::{Handle, TensorArg};
use super::types::describe;
use crate::flow::{Field, Stage, VelocityField};

/// LuaCATS type of a field whose time is one number.
pub const AT_NUMBER: &str = "VelocityField|fun(x: Tensor, t: number): Tensor";
/// LuaCATS type of a field whose time is one number an example.
pub const AT_TIMES: &str = "VelocityField|fun(x: Tensor, t: Tensor): Tensor";

/// A velocity field as an argument.
pub enum FieldArg {
    /// One of lft's own.
    Velocity(Arc<VelocityField>),
    /// A Lua function `f(x, t)`.
    Function(Scripted),
}

/// A Lua function as a velocity field.
pub struct Scripted(pub Function);

impl Scripted {
    /// The function's value, which must be of type `R`.
    ///
    /// # Errors
    /// Those of the function, unchanged, and a value of another type.
    pub fn call<R: FromLua>(&self, lua: &Lua, x: impl IntoLua, t: impl IntoLua) -> anyhow::Result<R> {
        let value = self.0.call::<Value>((x, t))?;
        R::from_lua(value, lua).map_err(|error| {
            anyhow!(
                "the function f(x, t) must return the velocity of x: {}",
                ScriptError::new(&error).message
            )
        })
    }
}

impl Field for Scripted {
    fn velocity(&self, x: &Tensor, t: &Tensor) -> anyhow::Result<Tensor> {
        let value = self.0.call::<Value>((Handle::new(x.clone()), Handle::new(t.clone())))?;
        TensorArg::of(&value)
            .map_err(|error| anyhow!("the function f(x, t) must return the velocity of x: {error}"))
    }
}

impl Field for FieldArg {
    fn velocity(&self, x: &Tensor, t: &Tensor) -> anyhow::Result<Tensor> {
        match self {
            Self::Velocity(field) => field.velocity(x, t),
            Self::Function(field) => field.velocity(x, t),
        }
    }

    fn scaled_velocity(&self, x: &Tensor, t: &Tensor, d: &Tensor) -> anyhow::Result<Tensor> {
        match self {
            Self::Velocity(field) => field.scaled_velocity(x, t, d),
            Self::Function(field) => field.scaled_velocity(x, t, d),
        }
    }

    fn advance(&self, base: &Tensor, at: (&Tensor, &Tensor), d: &Tensor, c: f64) -> anyhow::Result<Tensor> {
        match self {
            Self::Velocity(field) => field.advance(base, at, d, c),
            Self::Function(field) => field.advance(base, at, d, c),
        }
    }

    fn carry(&self, x0: &Tensor, stages: &[Stage]) -> anyhow::Result<Option<Tensor>> {
        match self {
            Self::Velocity(field) => field.carry(x0, stages),
            Self::Function(_) => Ok(None),
        }
    }

    fn unchanged(
        &self,
        times: &[Tensor],
        body: impl FnOnce() -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Tensor> {
        match self {
            Self::Velocity(field) => field.unchanged(times, body),
            Self::Function(_) => body(),
        }
    }
}

impl FromLua for FieldArg {
    fn from_lua(value: Value, _: &Lua) -> mlua::Result<Self> {
        if let Value::Function(function) = value {
            return Ok(Self::Function(Scripted(function)));
        }
        let field = value.as_userdata().and_then(|data| data.borrow::<Velocity>().ok());
        field.map(|field| Self::Velocity(field.0.clone())).ok_or_else(|| {
            mlua::Error::FromLuaConversionError {
                from: value.type_name(),
                to: "VelocityField".into(),
                message: Some(format!(
                    "expected a VelocityField or a function f(x, t), found {}",
                    describe(&value)
                )),
            }
        })
    }
}
