//! Limits on a script's memory and time, which no script can catch or put off.
//!
//! Three lines hold them. Bindings ask for room before they make a large tensor, and look again when they are done
//! ([`make_room`], [`check`]). A hook looks every few thousand instructions, so that loops, coroutines and what
//! `pcall` runs end as well; the error that they end with goes through every `pcall`. Where neither is reached,
//! because one call below Lua goes on for too long or takes too much, a watchman ends the process.
//!
//! Limits hold for the process, like the heap that they are measured on.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use mlua::{Lua, WeakLua};

use super::error::{Ended, ScriptError};
use super::results::Ending;
use super::state::State;
use crate::{console, heap, reuse};

/// What Lua says when an allocation is refused.
const LUA_OUT_OF_MEMORY: &str = "not enough memory";
/// How long a script that is over its time may take to come by a place where it can be ended.
const GRACE: Duration = Duration::from_secs(2);
/// How long runs may take to be written when the watchman ends the process.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often the watchman looks.
const ROUND: Duration = Duration::from_millis(20);
/// What Lua may have above the limit once that was reached, so that the script can be unwound.
const UNWINDING: usize = 4 << 20;

/// How much memory and time a script may take; nothing given is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Bytes on the heap: Lua's objects, tensors on the CPU and everything else.
    pub memory: Option<usize>,
    /// Wall time from the script's start.
    pub time: Option<Duration>,
}

struct Force {
    limits: Limits,
    begun: Instant,
    out_of_memory: AtomicBool,
}

static FORCE: OnceLock<Force> = OnceLock::new();

thread_local! {
    static LUA: RefCell<Option<WeakLua>> = const { RefCell::new(None) };
}

/// Puts limits in force for the script that the calling thread runs in `lua`. Dropping what comes back sends the
/// watchman home.
///
/// # Errors
/// When no thread can be started, and when limits are in force already.
pub fn enforce(lua: &Lua, limits: Limits) -> anyhow::Result<Watch> {
    let over = Arc::new(AtomicBool::new(false));
    if limits.memory.is_none() && limits.time.is_none() {
        return Ok(Watch(over));
    }
    let force = Force { limits, begun: Instant::now(), out_of_memory: AtomicBool::new(false) };
    FORCE.set(force).ok().context("limits are in force already")?;
    LUA.set(Some(lua.weak()));
    if let Some(memory) = limits.memory {
        lua.set_memory_limit(memory)?;
        heap::set_ceiling(memory + memory / 8);
        // What lies idle counts for nobody, but it is there.
        reuse::keep_at_most(memory / 8);
    }
    let (state, home) = (State::of(lua)?, over.clone());
    let watchman = std::thread::Builder::new().name("limits".to_owned());
    watchman.spawn(move || watch(&state, &home)).context("cannot start a thread for the limits")?;
    Ok(Watch(over))
}

/// A script under limits.
pub struct Watch(Arc<AtomicBool>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The limit on memory, where there is one.
pub fn memory() -> Option<usize> {
    FORCE.get()?.limits.memory
}

/// # Errors
/// When the script is over its time or its memory, and from then on always.
pub fn check() -> Result<(), Ended> {
    let Some(force) = FORCE.get() else { return Ok(()) };
    if let Some(time) = force.limits.time
        && force.begun.elapsed() >= time
    {
        return Err(Ended::Time(time));
    }
    make_room(0)
}

/// Makes sure that `bytes` more would stay within the limit on memory, if need be by collecting garbage.
///
/// # Errors
/// When they do not.
pub fn make_room(bytes: usize) -> Result<(), Ended> {
    let Some(force) = FORCE.get() else { return Ok(()) };
    let Some(limit) = force.limits.memory else { return Ok(()) };
    let fits = || heap::live().saturating_add(bytes) <= limit;
    LUA.with_borrow(|lua| {
        let lua = lua.as_ref().and_then(WeakLua::try_upgrade);
        if !fits()
            && let Some(lua) = &lua
        {
            // A finalizer that fails has nothing to do with the room that was made.
            let _ = lua.gc_collect();
        }
        let reached = force.out_of_memory.load(Ordering::Relaxed) || !fits();
        force.out_of_memory.store(reached, Ordering::Relaxed);
        if let Some(lua) = &lua {
            let others = heap::live().saturating_sub(lua.used_memory());
            let rest = limit.saturating_sub(others).max(1);
            let rest = if reached { rest.max(lua.used_memory()) + UNWINDING } else { rest };
            // The state is the host's own, whose memory can always be limited.
            let _ = lua.set_memory_limit(rest);
        }
        if reached { Err(Ended::Memory(limit)) } else { Ok(()) }
    })
}

/// The ending that Lua's own complaint about memory stands for under a limit.
pub fn out_of_memory(message: &str) -> Option<Ended> {
    let force = FORCE.get()?;
    let limit = force.limits.memory?;
    (message == LUA_OUT_OF_MEMORY).then(|| {
        force.out_of_memory.store(true, Ordering::Relaxed);
        Ended::Memory(limit)
    })
}

fn watch(state: &Arc<State>, over: &AtomicBool) {
    heap::ignore_ceiling();
    let Some(force) = FORCE.get() else { return };
    while !over.load(Ordering::Relaxed) {
        match force.limits {
            Limits { memory: Some(limit), .. } if heap::reached() => leave(state, Ended::Memory(limit)),
            Limits { time: Some(time), .. } if force.begun.elapsed() >= time + GRACE => {
                leave(state, Ended::Time(time));
            }
            _ => std::thread::sleep(ROUND),
        }
    }
}

/// Ends the process from outside the script, which may hold any lock: what has to be written is, if it can be.
fn leave(state: &Arc<State>, ended: Ended) -> ! {
    let (state, (written, wait)) = (state.clone(), mpsc::channel());
    let last_words = move || {
        heap::ignore_ceiling();
        console::note(&format!("error: {ended}"));
        // Whether the runs could be written or not, the process ends.
        let _ = state.end_runs(&Ending::by(&mlua::Error::external(ended)));
        let _ = written.send(());
    };
    if std::thread::Builder::new().spawn(last_words).is_ok() {
        let _ = wait.recv_timeout(LAST_WORDS);
    }
    exit(ended.code().into())
}

/// Ends the process without the usual farewell of the C library, which would wait for the lock of an output that
/// the script may hold.
#[cfg(unix)]
fn exit(code: i32) -> ! {
    // SAFETY: ends the process and touches nothing of it.
    unsafe { libc::_exit(code) }
}

#[cfg(not(unix))]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}

/// What ends a script that fails with `error` under a limit on memory, if that is what it failed for.
pub fn ending(error: &mlua::Error) -> Option<Ended> {
    memory().and_then(|_| out_of_memory(&ScriptError::new(error).message))
}
