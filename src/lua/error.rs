//! Errors as a script sees them: plain strings that begin with the script's file and line.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use mlua::Lua;

use super::limits;

/// Why a script ended early: the message and the script's own traceback.
#[derive(Debug, Clone)]
pub struct ScriptError {
    /// `script.lua:12: lft.zeros: …`
    pub message: String,
    /// Lua frames, innermost first; empty for syntax errors.
    pub traceback: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match self.traceback.is_empty() {
            true => Ok(()),
            false => write!(formatter, "\n{}", self.traceback),
        }
    }
}

impl std::error::Error for ScriptError {}

/// Ends a script without being one of its errors, so that `pcall` does not catch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `os.exit` with this code; `lft.options` ends a script that was asked for `--help` with 0.
    Exit(u8),
    /// Ctrl-C.
    Interrupted,
    /// The limit on memory, in bytes.
    Memory(usize),
    /// The limit on time.
    Time(Duration),
}

impl Ended {
    /// The ending in an error of Lua, if it is one.
    pub fn of(error: &mlua::Error) -> Option<Self> {
        error.downcast_ref().copied().or_else(|| limits::ending(error))
    }

    /// The exit code of the program. After Ctrl-C it is what shells report of a program that was ended so: 128
    /// and the number of SIGINT. After the time limit it is that of the program `timeout`.
    pub fn code(self) -> u8 {
        match self {
            Self::Exit(code) => code,
            Self::Interrupted => 130,
            Self::Memory(_) => 125,
            Self::Time(_) => 124,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(formatter, "the script ended with exit code {code}"),
            Self::Interrupted => formatter.write_str("interrupted"),
            Self::Memory(limit) => {
                write!(formatter, "the memory limit of {} was reached", bytesize::ByteSize::b(*limit as u64))
            }
            Self::Time(limit) => {
                write!(formatter, "the time limit of {} was reached", humantime::format_duration(*limit))
            }
        }
    }
}

impl std::error::Error for Ended {}

const TRACEBACK: &str = "\nstack traceback:";

impl ScriptError {
    /// Reduces what mlua reports to the message and the innermost Lua traceback.
    pub fn new(error: &mlua::Error) -> Self {
        match error {
            mlua::Error::CallbackError { cause, traceback } => {
                let inner = Self::new(cause);
                match inner.traceback.is_empty() {
                    true => Self { traceback: frames(traceback), ..inner },
                    false => inner,
                }
            }
            mlua::Error::RuntimeError(text) | mlua::Error::MemoryError(text) => {
                match text.split_once(TRACEBACK) {
                    // An error that passed through several protected calls has the traceback of each.
                    Some((message, tracebacks)) => {
                        let innermost = tracebacks.split(TRACEBACK).next().unwrap_or_default();
                        Self { message: message.into(), traceback: frames(innermost) }
                    }
                    None => Self { message: text.clone(), traceback: String::new() },
                }
            }
            mlua::Error::SyntaxError { message, .. } => {
                Self { message: message.clone(), traceback: String::new() }
            }
            mlua::Error::BadArgument { cause, .. } | mlua::Error::WithContext { cause, .. } => {
                Self::new(cause)
            }
            mlua::Error::FromLuaConversionError { message: Some(text), .. } => {
                Self { message: text.clone(), traceback: String::new() }
            }
            mlua::Error::FromLuaConversionError { from, to, .. } => {
                Self { message: format!("expected {to}, found {from}"), traceback: String::new() }
            }
            other => Self { message: other.to_string(), traceback: String::new() },
        }
    }
}

/// The frames that belong to scripts, one a line; C frames without a name tell nothing.
pub fn frames(traceback: &str) -> String {
    let kept: Vec<&str> = traceback
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && *line != "stack traceback:" && !hidden(line))
        .collect();
    match kept.is_empty() {
        true => String::new(),
        false => format!("stack traceback:\n\t{}", kept.join("\n\t")),
    }
}

fn hidden(frame: &str) -> bool {
    frame == "[C]: in ?" || is_own(frame) || frame.ends_with("upvalue 'xpcall_'")
}

/// Whether a frame or source is Lua code of the host or of mlua, not of the script.
fn is_own(source: &str) -> bool {
    source.contains("[string \"lft\"]") || source.contains("__mlua_")
}

/// `file:line: ` of the nearest Lua frame that called the running binding, or nothing.
pub fn position(lua: &Lua) -> String {
    (1..64)
        .map_while(|level| {
            lua.inspect_stack(level, |frame| {
                let source = frame.source();
                let file = source.short_src.as_deref().unwrap_or("?").to_owned();
                frame.current_line().map(|line| (file, line))
            })
        })
        .flatten()
        .find(|(file, _)| !is_own(file))
        .map_or(String::new(), |(file, line)| format!("{file}:{line}: "))
}

/// Runs a binding; its errors and panics become a Lua error at the caller's position.
///
/// An error that arose in Lua code which the binding called passes unchanged, as it has its own position.
pub fn guard<R>(lua: &Lua, name: &str, body: impl FnOnce() -> anyhow::Result<R>) -> mlua::Result<R> {
    let outcome = quietly(|| catch_unwind(AssertUnwindSafe(body)));
    let error = match outcome {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(panic) => anyhow::anyhow!("internal error, please report it: {}", panic_text(panic.as_ref())),
    };
    if let Some(ended) = error.downcast_ref::<Ended>() {
        return Err(mlua::Error::external(*ended));
    }
    match error.downcast::<mlua::Error>() {
        Ok(
            nested @ (mlua::Error::RuntimeError(_)
            | mlua::Error::CallbackError { .. }
            | mlua::Error::MemoryError(_)),
        ) => Err(nested),
        Ok(ended) if Ended::of(&ended).is_some() => Err(ended),
        Ok(conversion) => Err(raise(lua, name, &ScriptError::new(&conversion).message)),
        Err(error) => Err(raise(lua, name, &text(&error))),
    }
}

fn raise(lua: &Lua, name: &str, message: &str) -> mlua::Error {
    mlua::Error::RuntimeError(format!("{}{name}: {message}", position(lua)))
}

/// The chain of causes in one line, without the backtraces that candle attaches.
pub fn text(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let part = match cause.downcast_ref::<candle_core::Error>() {
            Some(error) => tensor_text(error),
            None => match cause.downcast_ref::<mlua::Error>() {
                Some(error) => ScriptError::new(error).message,
                None => cause.to_string(),
            },
        };
        if !parts.iter().any(|earlier| earlier.contains(&part)) {
            parts.push(part);
        }
    }
    parts.join(": ")
}

fn tensor_text(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => tensor_text(inner),
        candle_core::Error::Context { inner, context } => format!("{context}: {}", tensor_text(inner)),
        candle_core::Error::WithPath { inner, path } => format!("{}: {}", path.display(), tensor_text(inner)),
        other => other.to_string(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown cause").to_owned()
}

thread_local! {
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

/// Runs `body` with the panic message kept off the terminal, as it becomes a Lua error.
fn quietly<R>(body: impl FnOnce() -> R) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let outer = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if INSIDE.with(Cell::get) == 0 {
                outer(info);
            }
        }));
    });
    INSIDE.with(|depth| depth.set(depth.get() + 1));
    let value = body();
    INSIDE.with(|depth| depth.set(depth.get() - 1));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors_that_pcall_catches() -> mlua::Result<()> {
        let lua = Lua::new();
        let broken = lua.create_function(|lua, ()| {
            guard(lua, "broken", || -> anyhow::Result<()> { panic!("index {} is wrong", 7) })
        })?;
        lua.globals().set("broken", broken)?;
        let error = lua.load("\nbroken()").set_name("@a.lua").exec().err();
        let message = error.map(|error| ScriptError::new(&error).message);
        let expected = "a.lua:2: broken: internal error, please report it: index 7 is wrong";
        assert_eq!(message.as_deref(), Some(expected));
        lua.load("assert(not pcall(broken))").exec()
    }

    #[test]
    fn causes_stand_in_one_line() {
        let error = anyhow::anyhow!("the file ends early").context("weights.bin").context("cannot load");
        assert_eq!(text(&error), "cannot load: weights.bin: the file ends early");
    }
}
