//! Ctrl-C in the REPL: ends the call that is running and leaves the session.

use std::sync::atomic::{AtomicBool, Ordering};

use mlua::{HookTriggers, Lua, VmState};

static PRESSED: AtomicBool = AtomicBool::new(false);

/// Lua instructions between two looks at the flag.
const EVERY: u32 = 10_000;

/// Notes Ctrl-C from now on and has `lua` look for it.
///
/// # Errors
/// When a handler is set already or the hook cannot be.
pub fn install(lua: &Lua) -> anyhow::Result<()> {
    ctrlc::set_handler(|| PRESSED.store(true, Ordering::SeqCst))?;
    let triggers = HookTriggers::new().every_nth_instruction(EVERY);
    lua.set_global_hook(triggers, |_, _| match PRESSED.swap(false, Ordering::SeqCst) {
        true => Err(mlua::Error::runtime("interrupted")),
        false => Ok(VmState::Continue),
    })?;
    Ok(())
}

/// For loops below Lua, which the hook does not see.
///
/// # Errors
/// When Ctrl-C was pressed.
pub fn check() -> anyhow::Result<()> {
    match PRESSED.swap(false, Ordering::SeqCst) {
        true => anyhow::bail!("interrupted"),
        false => Ok(()),
    }
}

/// Forgets a Ctrl-C that came while nothing ran.
pub fn clear() {
    PRESSED.store(false, Ordering::SeqCst);
}
