//! Makes a Lua state with the module `lft` in it and runs scripts there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use candle_core::Device;
use mlua::{Lua, Table, Value};

use super::catalogue::Catalogue;
use super::error::{Finished, ScriptError};
use super::memory::Pressure;
use super::register::Registry;
use super::state::State;
use super::{data, eval, flags, flow, help, ode, print, progress, pythia, results, tensor, train};

/// How scripts are run.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Where tensors live unless a script says otherwise.
    pub device: Device,
    /// Seed of everything random that is given no seed of its own.
    pub seed: u64,
    /// Keeps progress off the terminal.
    pub quiet: bool,
    /// Where run folders are made.
    pub runs_dir: PathBuf,
    /// Arguments after the script's name, for `arg` and `lft.options`.
    pub args: Vec<String>,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, seed: 0, quiet: false, runs_dir: "runs".into(), args: Vec::new() }
    }
}

/// A Lua state with `lft` loaded.
pub struct Host {
    /// The Lua state.
    pub lua: Lua,
    /// What the bindings share.
    pub state: Arc<State>,
}

impl Host {
    /// A host for the script at `path`, whose text is `source`.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn new(options: &HostOptions, path: &Path, source: &str) -> mlua::Result<Self> {
        let lua = Lua::new();
        let state = Arc::new(State::new(options, path.to_owned(), source.to_owned()));
        lua.set_app_data(state.clone());
        Pressure::install(&lua);
        prelude(&lua)?;
        let (module, catalogue) = module(&lua)?;
        state.set_catalogue(catalogue);
        lua.register_module("lft", module)?;
        search_path(&lua, path)?;
        Ok(Self { lua, state })
    }

    /// Runs the script.
    ///
    /// # Errors
    /// The script's own error, with its traceback.
    pub fn run(&self) -> Result<(), ScriptError> {
        let chunk = self.lua.load(&self.state.source).set_name(format!("@{}", self.state.script.display()));
        match chunk.set_mode(mlua::chunk::ChunkMode::Text).exec() {
            Err(error) if error.downcast_ref::<Finished>().is_none() => Err(ScriptError::new(&error)),
            _ => Ok(()),
        }
    }
}

/// Runs the script at `path` to its end.
///
/// # Errors
/// When the file cannot be read, and whatever error the script ends with: its text begins with the
/// script's file and line and goes on with the script's traceback.
pub fn run_script(path: &Path, options: &HostOptions) -> anyhow::Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the script {}", path.display()))?;
    let source = String::from_utf8(bytes).ok().with_context(|| format!("{} is not text", path.display()))?;
    let host = Host::new(options, path, &without_shebang(&source))
        .map_err(|error| anyhow::anyhow!(ScriptError::new(&error)))?;
    host.run().map_err(anyhow::Error::new)
}

/// Everything that `lft` offers.
///
/// # Errors
/// When Lua is out of memory.
pub fn catalogue() -> anyhow::Result<Arc<Catalogue>> {
    Ok(Host::new(&HostOptions::default(), Path::new("lft"), "")?.state.catalogue())
}

/// Registers every room's functions.
fn module(lua: &Lua) -> mlua::Result<(Table, Catalogue)> {
    let mut registry = Registry::new(lua)?;
    registry.module("lft", "The Latent Flow Transformer laboratory.");
    registry.value("lft", "version", env!("CARGO_PKG_VERSION"))?;
    help::register(&mut registry)?;
    flags::register(&mut registry)?;
    print::register(&mut registry)?;
    progress::register(&mut registry)?;
    tensor::register(&mut registry)?;
    pythia::register(&mut registry)?;
    ode::register(&mut registry)?;
    data::register(&mut registry)?;
    flow::register(&mut registry)?;
    train::register(&mut registry)?;
    eval::register(&mut registry)?;
    results::register(&mut registry)?;
    Ok(registry.finish())
}

fn prelude(lua: &Lua) -> mlua::Result<()> {
    let plain = lua.create_function(|lua, error: Value| match error {
        Value::Error(error) => lua.create_string(ScriptError::new(&error).message).map(Value::String),
        other => Ok(other),
    })?;
    let finished = lua.create_function(|_, error: Value| {
        Ok(error.as_error().is_some_and(|error| error.downcast_ref::<Finished>().is_some()))
    })?;
    lua.load(include_str!("prelude.lua")).set_name("=[string \"lft\"]").call((plain, finished))
}

/// `require` looks beside the script and in the `lua` folders there and here; `arg` holds the arguments.
fn search_path(lua: &Lua, script: &Path) -> mlua::Result<()> {
    let state = State::of(lua).map_err(mlua::Error::from)?;
    let folder = script.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let places: Vec<String> = [folder.to_owned(), folder.join("lua"), PathBuf::from("lua")]
        .iter()
        .flat_map(|place| ["?.lua", "?/init.lua"].map(|file| place.join(file).display().to_string()))
        .collect();
    let package: Table = lua.globals().get("package")?;
    let standard: String = package.get("path")?;
    package.set("path", format!("{};{standard}", places.join(";")))?;
    let arg = lua.create_sequence_from(state.args.iter().map(String::as_str))?;
    arg.set(0, script.display().to_string())?;
    lua.globals().set("arg", arg)
}

/// Comments out a first line that begins with `#!`, so that line numbers stay.
fn without_shebang(source: &str) -> String {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    match source.starts_with("#!") {
        true => format!("--{source}"),
        false => source.to_owned(),
    }
}
