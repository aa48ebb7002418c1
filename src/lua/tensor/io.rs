//! Safetensors files.

use anyhow::{Context, bail};
use candle_core::Tensor;
use mlua::Table;

use super::args::TENSOR_OPTIONS;
use super::handle::{Handle, TensorArg};
use super::placement;
use crate::atomic;
use crate::lua::catalogue::Entry;
use crate::lua::options::Options;
use crate::lua::path::ScriptPath;
use crate::lua::register::Registry;
use crate::lua::state::State;

/// Registers `lft.safetensors`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.safetensors", "Named tensors in files of the safetensors format.");
    registry.function(
        Entry {
            name: "lft.safetensors.load",
            about: "Reads every tensor of a file.",
            params: &[("path", "string", "the file"), ("options?", "TensorOptions", "converts what is read")],
            returns: &[("table<string, Tensor>", "name to tensor")],
            example: "local path = os.tmpname()\nlft.safetensors.save(path, {a = lft.ones({2})})\nassert(lft.safetensors.load(path).a:sum():item() == 2)\nos.remove(path)",
        },
        |lua, (path, options): (ScriptPath, Option<Table>)| {
            let options = Options::read(lua, options, &TENSOR_OPTIONS)?;
            let (_, device) = placement(&options, candle_core::DType::F32, &State::of(lua)?.device)?;
            if !path.is_file() {
                bail!("there is no file {}", path.display());
            }
            let tensors = candle_core::safetensors::load(&*path, &device)
                .with_context(|| format!("{} is not a whole safetensors file", path.display()))?;
            let table = lua.create_table()?;
            for (name, tensor) in tensors {
                let (dtype, _) = placement(&options, tensor.dtype(), &device)?;
                table.set(name, Handle::new(tensor.to_dtype(dtype)?))?;
            }
            Ok(table)
        },
    )?;
    registry.function(
        Entry {
            name: "lft.safetensors.save",
            about: "Writes tensors to a file, which is complete or, after an error, as it was.",
            params: &[("path", "string", "the file"), ("tensors", "table<string, Tensor>", "name to tensor")],
            returns: &[("nil", "nothing")],
            example: "local path = os.tmpname()\nlft.safetensors.save(path, {weight = lft.zeros({2, 2})})\nos.remove(path)",
        },
        |_, (path, tensors): (ScriptPath, Table)| atomic::write_tensors(&path, named(&tensors)?, None),
    )
}

/// The tensors of a Lua table.
///
/// # Errors
/// When it holds anything else.
pub fn named(tensors: &Table) -> anyhow::Result<Vec<(String, Tensor)>> {
    let mut named = Vec::new();
    for pair in tensors.pairs::<String, TensorArg>() {
        let (name, tensor) = pair.context("expected a table of names to tensors")?;
        named.push((name, tensor.0));
    }
    Ok(named)
}
