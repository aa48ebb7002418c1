//! What ends a call from outside: Ctrl-C, so that runs are finished and, in the REPL, the session goes on, and the
//! limits of [`super::limits`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use mlua::{HookTriggers, Lua, VmState};

use super::error::Ended;
use super::limits;

static PRESSED: AtomicBool = AtomicBool::new(false);

/// Lua instructions between two looks at the flag.
const EVERY: u32 = 10_000;

/// Notes Ctrl-C from now on and has `lua` look for it. A second one, before anybody has looked, ends the
/// process at once.
///
/// # Errors
/// When the handler or the hook cannot be set.
pub fn install(lua: &Lua) -> anyhow::Result<()> {
    static HANDLER: OnceLock<Result<(), String>> = OnceLock::new();
    let set = HANDLER.get_or_init(|| ctrlc::set_handler(pressed).map_err(|error| error.to_string()));
    set.clone().map_err(|error| anyhow!("cannot watch for Ctrl-C: {error}"))?;
    let triggers = HookTriggers::new().every_nth_instruction(EVERY);
    lua.set_global_hook(triggers, |_, _| match due() {
        Ok(()) => Ok(VmState::Continue),
        Err(ended) => Err(mlua::Error::external(ended)),
    })?;
    Ok(())
}

fn pressed() {
    if PRESSED.swap(true, Ordering::SeqCst) {
        std::process::exit(Ended::Interrupted.code().into());
    }
}

/// For loops below Lua, which the hook does not see.
///
/// # Errors
/// When Ctrl-C was pressed or a limit is reached.
pub fn check() -> anyhow::Result<()> {
    Ok(due()?)
}

fn due() -> Result<(), Ended> {
    match take() {
        true => Err(Ended::Interrupted),
        false => limits::check(),
    }
}

/// Forgets a Ctrl-C that came while nothing ran.
pub fn clear() {
    take();
}

fn take() -> bool {
    PRESSED.swap(false, Ordering::SeqCst)
}
