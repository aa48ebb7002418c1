//! Makes a Lua state with the module `lft` in it and runs scripts there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use candle_core::Device;
use mlua::{Function, Lua, Table, Value};

use super::catalogue::Catalogue;
use super::error::{Ended, ScriptError, text};
use super::memory::Pressure;
use super::register::Registry;
use super::results::Ending;
use super::show::show;
use super::state::State;
use super::{
    bench, data, eval, flags, flow, help, interrupt, latents, ode, optim, pretrain, print, progress, pythia,
    results, sweep, tensor, tokenizer, train,
};
use crate::bench::Baselines;
use crate::console;

/// Bytes of address space for the script's stack. Gradients are traced by recursion through every operation since
/// the last variable, and a loop in a script strings hundreds of thousands of them together easily.
const STACK: usize = 1 << 30;

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
    /// Which timings to hold the script's benchmarks against, and where to save them.
    pub baselines: Baselines,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            seed: 0,
            quiet: false,
            runs_dir: "runs".into(),
            args: Vec::new(),
            baselines: Baselines::default(),
        }
    }
}

/// A Lua state with `lft` loaded.
pub struct Host {
    /// The Lua state.
    pub lua: Lua,
    /// What the bindings share.
    pub state: Arc<State>,
    runner: Function,
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
        let runner = prelude(&lua)?;
        let (module, catalogue) = module(&lua)?;
        state.set_catalogue(catalogue);
        lua.register_module("lft", module)?;
        search_path(&lua, path)?;
        Ok(Self { lua, state, runner })
    }

    /// Runs the script, ends the runs that it leaves open, and holds its benchmarks against their baseline.
    ///
    /// # Errors
    /// [`crate::bench::Regressed`] when a benchmark became slower; the script's own [`ScriptError`], or [`Ended`] when it was interrupted or ended itself with an exit code
    /// other than 0; else what kept a run from being written.
    pub fn run(&self) -> anyhow::Result<()> {
        let outcome = self.execute();
        let written = self.state.end_runs(&outcome.as_ref().err().map_or(Ending::WELL, Ending::by));
        let Err(error) = outcome else { return written.and_then(|()| self.state.close_benchmarks()) };
        if let Err(error) = &written {
            console::note(&format!("warning: {}", text(error)));
        }
        match Ended::of(&error) {
            Some(Ended::Exit(0)) => self.state.close_benchmarks(),
            Some(ended) => Err(ended.into()),
            None => Err(ScriptError::new(&error).into()),
        }
    }

    fn execute(&self) -> mlua::Result<()> {
        let chunk = self.lua.load(&self.state.source).set_name(format!("@{}", self.state.script.display()));
        let script = chunk.set_mode(mlua::chunk::ChunkMode::Text).into_function()?;
        self.runner.call(script)
    }
}

/// Runs the script at `path` to its end.
///
/// # Errors
/// When the file cannot be read, and whatever the script ends with: a [`ScriptError`], whose text begins with the
/// script's file and line and goes on with its traceback, or [`Ended`].
pub fn run_script(path: &Path, options: &HostOptions) -> anyhow::Result<()> {
    let script = || run_here(path, options);
    let thread = std::thread::Builder::new().name("script".to_owned()).stack_size(STACK);
    std::thread::scope(|scope| match thread.spawn_scoped(scope, script) {
        Ok(running) => running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(error) => Err(error).context("cannot start a thread for the script"),
    })
}

fn run_here(path: &Path, options: &HostOptions) -> anyhow::Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the script {}", path.display()))?;
    let source = String::from_utf8(bytes).ok().with_context(|| format!("{} is not text", path.display()))?;
    let host = Host::new(options, path, &without_shebang(&source))
        .map_err(|error| anyhow::anyhow!(ScriptError::new(&error)))?;
    host.state.open_baselines(&options.baselines)?;
    interrupt::install(&host.lua)?;
    host.run()
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
    tokenizer::register(&mut registry)?;
    pythia::register(&mut registry)?;
    ode::register(&mut registry)?;
    data::register(&mut registry)?;
    latents::register(&mut registry)?;
    flow::register(&mut registry)?;
    optim::register(&mut registry)?;
    train::register(&mut registry)?;
    pretrain::register(&mut registry)?;
    eval::register(&mut registry)?;
    results::register(&mut registry)?;
    bench::register(&mut registry)?;
    sweep::register(&mut registry)?;
    Ok(registry.finish())
}

/// Adapts the standard library; the function that comes back runs a script.
fn prelude(lua: &Lua) -> mlua::Result<Function> {
    let plain = lua.create_function(|lua, error: Value| match error {
        Value::Error(error) => lua.create_string(ScriptError::new(&error).message).map(Value::String),
        other => Ok(other),
    })?;
    let ended =
        lua.create_function(|_, error: Value| Ok(error.as_error().is_some_and(|e| Ended::of(e).is_some())))?;
    let exit = lua.create_function(|_, code: Value| -> mlua::Result<()> {
        let code = match code {
            Value::Nil | Value::Boolean(true) => 0,
            Value::Integer(code) => u8::try_from(code).unwrap_or(1),
            _ => 1,
        };
        Err(mlua::Error::external(Ended::Exit(code)))
    })?;
    let traced = lua.create_function(|lua, error: Value| {
        let message = match &error {
            // Errors of bindings carry their traceback with them.
            Value::Error(_) => return Ok(error),
            Value::String(message) => message.to_string_lossy(),
            Value::Integer(_) | Value::Number(_) => show(&error),
            object => format!("error object {}", show(object)),
        };
        lua.traceback(Some(&message), 1).map(Value::String)
    })?;
    let chunk = lua.load(include_str!("prelude.lua")).set_name("=[string \"lft\"]");
    chunk.call((plain, ended, exit, traced))
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
