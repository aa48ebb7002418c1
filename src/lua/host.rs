//! Makes a Lua state with the module `lft` in it and runs scripts there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use candle_core::Device;
use mlua::{Function, Lua, Table};

use super::catalogue::Catalogue;
use super::error::{Ended, ScriptError, text};
use super::limits::{self, Limits};
use super::memory::Pressure;
use super::register::Registry;
use super::results::Ending;
use super::state::State;
use super::{
    bench, data, eval, flags, flow, help, interrupt, latents, ode, optim, prelude, pretrain, print, progress,
    pythia, results, rivals, sandbox, sweep, tensor, tokenizer, train,
};
use crate::bench::Baselines;
use crate::console;
use crate::threads;

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
    /// Keeps the script within the working folder and that of the runs, away from programs and the network.
    pub sandbox: bool,
    /// How much memory and time the script may take.
    pub limits: Limits,
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
            sandbox: false,
            limits: Limits::default(),
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
    /// When Lua is out of memory, and when the sandbox has no folder to close.
    pub fn new(options: &HostOptions, path: &Path, source: &str) -> mlua::Result<Self> {
        let lua = Lua::new();
        let fence = options.sandbox.then(|| sandbox::fence(&options.runs_dir)).transpose()?;
        let state = Arc::new(State::new(options, path.to_owned(), source.to_owned(), fence));
        lua.set_app_data(state.clone());
        Pressure::install(&lua);
        let runner = prelude::load(&lua)?;
        let (module, catalogue) = module(&lua)?;
        state.set_catalogue(catalogue);
        lua.register_module("lft", module)?;
        search_path(&lua, path)?;
        if options.sandbox {
            sandbox::install(&lua)?;
        }
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
    on_deep_stack(|| run_here(path, options))
}

/// Runs `script` on a thread whose stack is deep enough for what scripts do.
///
/// # Errors
/// Those of `script`, and when there is no such thread to be had.
pub fn on_deep_stack(script: impl FnOnce() -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
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
    if let Some(fence) = &host.state.fence
        && !sandbox::raise(fence.folders())?
        && !options.quiet
    {
        console::note("this system has no Landlock, so that only lft itself holds the sandbox");
    }
    threads::join_rayon();
    interrupt::install(&host.lua)?;
    let _watch = limits::enforce(&host.lua, options.limits)?;
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
    rivals::register(&mut registry)?;
    results::register(&mut registry)?;
    bench::register(&mut registry)?;
    sweep::register(&mut registry)?;
    Ok(registry.finish())
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
