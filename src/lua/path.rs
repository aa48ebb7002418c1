//! Files and folders that scripts name.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use mlua::{FromLua, Lua, Value};

use super::error::text;
use super::state::State;

/// A path from a script. In the sandbox it is one that the fence opens, whether it will be read or written.
///
/// Every function of `lft` that is given a path takes it as one of these.
#[derive(Clone, Debug)]
pub struct ScriptPath(PathBuf);

impl ScriptPath {
    /// # Errors
    /// When the sandbox keeps the path closed.
    pub fn new(lua: &Lua, path: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let path = path.into();
        if let Some(fence) = &State::of(lua)?.fence {
            fence.path(&path)?;
        }
        Ok(Self(path))
    }
}

impl Deref for ScriptPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for ScriptPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl FromLua for ScriptPath {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        let path = PathBuf::from_lua(value, lua)?;
        Self::new(lua, path).map_err(|error| mlua::Error::FromLuaConversionError {
            from: "string",
            to: "path".into(),
            message: Some(text(&error)),
        })
    }
}
