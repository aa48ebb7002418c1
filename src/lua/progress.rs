//! Progress bars in scripts.

use std::time::Duration;

use mlua::Lua;

use super::catalogue::{Class, Entry};
use super::register::{Registry, userdata};
use super::state::State;
pub use crate::meter::Meter;

/// A meter that shows itself when the work has lasted `patience`; never under `--quiet`.
///
/// # Errors
/// When `lua` has no host.
pub fn meter(
    lua: &Lua,
    total: u64,
    label: &str,
    unit: (&'static str, u64),
    patience: Duration,
) -> anyhow::Result<Meter> {
    Meter::new(State::of(lua)?.quiet, total, label, unit, patience)
}

/// A progress bar in a script's hands.
struct Progress(Meter);
userdata!(Progress);

/// Registers `lft.progress`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.function(
        Entry {
            name: "lft.progress",
            about: "Starts a progress bar on standard error, with rate and remaining time; a line every ten seconds \
                    where that is no terminal. Nothing is drawn under --quiet.",
            params: &[("total", "integer", "number of steps"), ("label?", "string", "text in front of the bar")],
            returns: &[("Progress", "the bar")],
            example: "local bar = lft.progress(10, \"training\")\nfor _ = 1, 10 do bar:step() end\nbar:finish()",
        },
        |lua, (total, label): (u64, Option<String>)| {
            Ok(Progress(meter(lua, total, &label.unwrap_or_default(), ("steps", 1), Duration::ZERO)?))
        },
    )?;
    let about = "A progress bar on standard error.";
    registry.class(Class { name: "Progress", about, fields: &[] }, |class| {
        class.method(
            Entry {
                name: "Progress:step",
                about: "Moves the bar forward.",
                params: &[
                    ("count?", "integer", "steps done since the last call, 1 when left out"),
                    ("text?", "string", "replaces the text behind the bar"),
                ],
                returns: &[("nil", "nothing")],
                example: "local bar = lft.progress(3)\nbar:step(2, \"loss 0.1\")",
            },
            |_, bar: &Progress, (count, text): (Option<u64>, Option<String>)| {
                bar.0.step(count.unwrap_or(1), text);
                Ok(())
            },
        );
        class.method(
            Entry {
                name: "Progress:finish",
                about: "Removes the bar.",
                params: &[],
                returns: &[("nil", "nothing")],
                example: "lft.progress(1):finish()",
            },
            |_, bar: &Progress, ()| {
                bar.0.finish();
                Ok(())
            },
        );
    })
}
