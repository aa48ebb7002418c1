//! What one host holds beside the Lua state: device, random numbers, options and the script itself.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Device;
use mlua::Lua;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::catalogue::Catalogue;
use super::device;
use super::host::HostOptions;
use super::results::{Ending, Run};
use super::sandbox::Fence;
use crate::bench::{Baselines, Ledger, Origin};
use crate::console;

/// State shared by the bindings of one host.
pub struct State {
    /// Where tensors live unless an option says otherwise.
    pub device: Device,
    /// Seed of the host's random stream.
    pub seed: u64,
    /// Whether progress is kept off the terminal.
    pub quiet: bool,
    /// Where run folders are made.
    pub runs_dir: PathBuf,
    /// Arguments after the script's name.
    pub args: Vec<String>,
    /// Path of the script; empty in the REPL.
    pub script: PathBuf,
    /// Text of the script.
    pub source: String,
    /// What keeps the script in, when it runs in the sandbox.
    pub fence: Option<Fence>,
    catalogue: Mutex<Arc<Catalogue>>,
    random: Mutex<ChaCha12Rng>,
    flags: Mutex<Vec<(String, serde_json::Value)>>,
    untracked: AtomicUsize,
    runs: Mutex<Vec<Run>>,
    benchmarks: Mutex<Option<Ledger>>,
    sweeping: Mutex<Option<usize>>,
}

impl State {
    /// State for one script.
    pub fn new(options: &HostOptions, script: PathBuf, source: String, fence: Option<Fence>) -> Self {
        Self {
            device: options.device.clone(),
            seed: options.seed,
            quiet: options.quiet,
            runs_dir: options.runs_dir.clone(),
            args: options.args.clone(),
            script,
            source,
            fence,
            catalogue: Mutex::default(),
            random: Mutex::new(ChaCha12Rng::seed_from_u64(options.seed)),
            flags: Mutex::default(),
            untracked: AtomicUsize::new(0),
            runs: Mutex::default(),
            benchmarks: Mutex::default(),
            sweeping: Mutex::default(),
        }
    }

    /// The state that belongs to `lua`.
    ///
    /// # Errors
    /// When `lua` was not made by the host.
    pub fn of(lua: &Lua) -> anyhow::Result<Arc<Self>> {
        let state = lua.app_data_ref::<Arc<Self>>().map(|state| state.clone());
        state.ok_or_else(|| anyhow::anyhow!("this Lua state has no host"))
    }

    /// The script's file name without its ending, which names what is given no name.
    pub fn script_name(&self) -> String {
        let stem = self.script.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        stem.unwrap_or_else(|| "script".to_owned())
    }

    /// The stream that seeds whatever is random and was given no seed.
    pub fn random(&self) -> MutexGuard<'_, ChaCha12Rng> {
        lock(&self.random)
    }

    /// A generator of its own for `seed`, or one drawn from the host's stream.
    pub fn generator(&self, seed: Option<u64>) -> ChaCha12Rng {
        match seed {
            Some(seed) => ChaCha12Rng::seed_from_u64(seed),
            None => ChaCha12Rng::from_rng(&mut *self.random()),
        }
    }

    /// What is registered.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        lock(&self.catalogue).clone()
    }

    /// Keeps what was registered.
    pub fn set_catalogue(&self, catalogue: Catalogue) {
        *lock(&self.catalogue) = Arc::new(catalogue);
    }

    /// The script's options with the values in force, as they go into `run.json`.
    pub fn flags(&self) -> Vec<(String, serde_json::Value)> {
        lock(&self.flags).clone()
    }

    /// Keeps the script's options.
    pub fn set_flags(&self, flags: Vec<(String, serde_json::Value)>) {
        *lock(&self.flags) = flags;
    }

    /// Keeps a run, to end it when the script does.
    pub fn add_run(&self, run: Run) {
        lock(&self.runs).push(run);
    }

    /// The newest run that has not ended.
    pub fn open_run(&self) -> Option<Run> {
        lock(&self.runs).iter().rev().find(|run| run.is_open()).cloned()
    }

    /// Writes what was logged to any run so far.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn flush_runs(&self) -> anyhow::Result<()> {
        lock(&self.runs).iter().try_for_each(Run::flush)
    }

    /// Ends every run that the script left open.
    ///
    /// # Errors
    /// The first file that cannot be written; the other runs are ended all the same.
    pub fn end_runs(&self, ending: &Ending) -> anyhow::Result<()> {
        let ended: Vec<_> = lock(&self.runs).drain(..).map(|run| run.end(ending)).collect();
        ended.into_iter().collect()
    }

    /// Reads the baseline that the script's benchmarks will be held against.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_baselines(&self, baselines: &Baselines) -> anyhow::Result<()> {
        if *baselines == Baselines::default() {
            return Ok(());
        }
        let origin = Origin::here(&device::name(&self.device));
        *lock(&self.benchmarks) =
            Some(Ledger::open(&self.runs_dir, &self.script_name(), baselines.clone(), origin)?);
        Ok(())
    }

    /// Keeps the samples of a benchmark for baselines.
    pub fn record_benchmark(&self, name: &str, samples: &[f64]) {
        if let Some(ledger) = lock(&self.benchmarks).as_mut() {
            ledger.record(name, samples);
        }
    }

    /// Saves the benchmarks and holds them against the baseline, as the command line says.
    ///
    /// # Errors
    /// As [`Ledger::close`].
    pub fn close_benchmarks(&self) -> anyhow::Result<()> {
        let tell = |line: &str| {
            if !self.quiet {
                console::note(line);
            }
        };
        lock(&self.benchmarks).as_ref().map_or(Ok(()), |ledger| ledger.close(tell))
    }

    /// The address of the coroutine in which the point of a sweep runs now.
    pub fn sweeping(&self) -> Option<usize> {
        *lock(&self.sweeping)
    }

    /// Runs `body`, which resumes the coroutine of a sweep's point at address `thread`.
    pub fn sweep_in<R>(&self, thread: usize, body: impl FnOnce() -> R) -> R {
        let outer = lock(&self.sweeping).replace(thread);
        let value = body();
        *lock(&self.sweeping) = outer;
        value
    }

    /// Whether results are cut from the graph, as inside `lft.no_grad`.
    pub fn is_untracked(&self) -> bool {
        self.untracked.load(Ordering::Relaxed) > 0
    }

    /// Runs `body` with results cut from the graph.
    pub fn untracked<R>(&self, body: impl FnOnce() -> R) -> R {
        self.untracked.fetch_add(1, Ordering::Relaxed);
        let _tracked_again = TrackAgain(&self.untracked);
        body()
    }
}

/// Ends a stretch without records however it is left, by a panic as well.
struct TrackAgain<'a>(&'a AtomicUsize);

impl Drop for TrackAgain<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
