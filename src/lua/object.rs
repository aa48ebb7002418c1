//! Objects of registered classes as arguments.

use mlua::{FromLua, Lua, Value};

use super::types::describe;

/// An argument that is an object of class `T`. Classes are handles to shared data, so the clone is cheap and
/// keeps the data alive for as long as the binding needs it.
pub struct Object<T>(pub T);

impl<T: Clone + 'static> FromLua for Object<T> {
    fn from_lua(value: Value, _: &Lua) -> mlua::Result<Self> {
        let object = value.as_userdata().and_then(|data| data.borrow::<T>().ok());
        object.map(|object| Self(object.clone())).ok_or_else(|| mlua::Error::FromLuaConversionError {
            from: value.type_name(),
            to: "object".into(),
            message: Some(format!("{} is an object of another class", describe(&value))),
        })
    }
}
