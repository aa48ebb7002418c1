//! Token ids as scripts write them.

use candle_core::{DType, Device, Tensor};
use mlua::{FromLua, Lua, Value};

use super::literal;
use super::tensor::TensorArg;

/// LuaCATS type of token ids.
pub const IDS: &str = "Tensor|integer[]|integer[][]";

/// Token ids (B, T), from a tensor or from tables; one sequence by itself is a batch of one.
pub struct Ids(pub Tensor);

impl FromLua for Ids {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        let ids = match &value {
            Value::Table(_) => literal::to_tensor(&value, DType::U32, &Device::Cpu)
                .map_err(|error| conversion(format!("token ids: {error}")))?,
            _ => TensorArg::from_lua(value, lua)?.0,
        };
        let batch = if ids.rank() == 1 { ids.unsqueeze(0) } else { Ok(ids) };
        batch.map(Self).map_err(|error| conversion(error.to_string()))
    }
}

fn conversion(message: String) -> mlua::Error {
    mlua::Error::FromLuaConversionError { from: "table", to: "Tensor".into(), message: Some(message) }
}
