//! `lft run --sandbox`: scripts from strangers.
//!
//! The standard library loses what reaches beyond the script ([`install`], `sandbox.lua`): processes, the
//! environment, compiled chunks, modules in C, finalizers. What is left of the files it names goes through the
//! [`Fence`], and so does every path that a function of `lft` is given ([`super::path`]). On Linux the kernel
//! holds a second wall around the same folders ([`wall`]), for what the first may have overlooked.

mod fence;
mod wall;

use std::path::Path;

use anyhow::{Context, ensure};
use mlua::{Lua, MultiValue, Value};

pub use fence::Fence;
pub use wall::raise;

use super::state::State;
use super::types::describe;

/// The fence around the working folder and the folder of the runs, which is made if it is missing.
///
/// # Errors
/// When one of the folders cannot be found or made, and when the working folder is the root of the file system or
/// the user's home, around which a fence keeps nothing in.
pub fn fence(runs: &Path) -> anyhow::Result<Fence> {
    let here = std::env::current_dir().context("the working folder is gone")?;
    let here = here.canonicalize().with_context(|| format!("cannot find the folder {}", here.display()))?;
    let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
    ensure!(
        here.parent().is_some() && Some(&here) != home.as_ref(),
        "in the sandbox a script may use every file under the working folder, and that is {}; change into a \
         folder of its own",
        here.display()
    );
    std::fs::create_dir_all(runs).with_context(|| format!("cannot make the folder {}", runs.display()))?;
    let runs = runs.canonicalize().with_context(|| format!("cannot find the folder {}", runs.display()))?;
    Ok(Fence::around([here, runs]))
}

/// Takes out of `lua` what reaches beyond the fence of its host.
///
/// # Errors
/// When Lua is out of memory.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    // What the C library opens is what was looked at: the path without links.
    let permitted = lua.create_function(|lua, path: Value| {
        let path = match &path {
            Value::String(_) | Value::Integer(_) | Value::Number(_) => path.to_string()?,
            other => {
                let message = format!("expected the name of a file, found {}", describe(other));
                return Err(mlua::Error::RuntimeError(message));
            }
        };
        let state = State::of(lua)?;
        let found = state.fence.as_ref().context("there is no fence").and_then(|fence| fence.file(&path));
        match found {
            Ok(found) => Ok(MultiValue::from_iter([Value::String(
                lua.create_string(found.as_os_str().as_encoded_bytes())?,
            )])),
            Err(error) => {
                let message = lua.create_string(super::error::text(&error))?;
                Ok(MultiValue::from_iter([Value::Nil, Value::String(message)]))
            }
        }
    })?;
    let temporary = lua.create_function(|_, ()| {
        let file = tempfile::Builder::new().prefix("lua_").tempfile_in(".")?;
        let (_, path) = file.keep().map_err(|error| error.error)?;
        Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()))
    })?;
    let chunk = lua.load(include_str!("sandbox.lua")).set_name("=[string \"lft\"]");
    chunk.call((permitted, temporary))
}
