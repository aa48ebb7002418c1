//! What is typed, as Lua: expressions are shown, statements are run.

use std::path::Path;
use std::sync::Arc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, MultiValue};

use crate::lua::catalogue::Catalogue;
use crate::lua::error::{Ended, ScriptError};
use crate::lua::host::{Host, HostOptions};
use crate::lua::results::Ending;
use crate::lua::show::show;

/// A host, and whether the session is over.
pub struct Session {
    host: Host,
    left: bool,
}

impl Session {
    /// A session with `lft` loaded.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn new(options: &HostOptions) -> anyhow::Result<Self> {
        let host = Host::new(options, Path::new("stdin"), "")?;
        let lft: mlua::Value = host.lua.globals().get::<Function>("require")?.call("lft")?;
        host.lua.globals().set("lft", lft)?;
        Ok(Self { host, left: false })
    }

    /// The Lua state.
    pub fn lua(&self) -> &Lua {
        &self.host.lua
    }

    /// What `lft` offers.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.host.state.catalogue()
    }

    /// Whether `os.exit` was called.
    pub fn left(&self) -> bool {
        self.left
    }

    /// Runs what was typed; what is to be shown of it, if anything.
    pub fn evaluate(&mut self, code: &str) -> Option<String> {
        let chunk = as_expression(self.lua(), code).or_else(|_| load(self.lua(), code));
        let error = match chunk.and_then(|chunk| chunk.call::<MultiValue>(())) {
            Ok(values) => {
                let shown: Vec<String> = values.iter().map(show).collect();
                return (!shown.is_empty()).then(|| shown.join("\t"));
            }
            Err(error) => error,
        };
        if let Some(Ended::Exit(_)) = Ended::of(&error) {
            self.left = true;
            return None;
        }
        Some(ScriptError::new(&error).to_string())
    }

    /// Ends every run that is open.
    ///
    /// # Errors
    /// The first file that cannot be written.
    pub fn finish(&self, ending: &Ending) -> anyhow::Result<()> {
        self.host.state.end_runs(ending)
    }
}

/// Whether Lua expects more lines.
pub fn is_unfinished(lua: &Lua, code: &str) -> bool {
    let unfinished = |chunk: mlua::Result<Function>| {
        matches!(chunk, Err(mlua::Error::SyntaxError { incomplete_input: true, .. }))
    };
    as_expression(lua, code).is_err() && unfinished(load(lua, code))
}

fn as_expression(lua: &Lua, code: &str) -> mlua::Result<Function> {
    load(lua, &format!("return {code}"))
}

fn load(lua: &Lua, code: &str) -> mlua::Result<Function> {
    lua.load(code).set_name("=stdin").set_mode(ChunkMode::Text).into_function()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(&HostOptions::default()).unwrap()
    }

    #[test]
    fn expressions_are_printed_and_statements_are_not() {
        let mut session = session();
        assert_eq!(session.evaluate("1 + 2, 'x'"), Some("3\tx".into()));
        assert_eq!(session.evaluate("a = 5"), None);
        assert_eq!(session.evaluate("{a, b = {a}}"), Some("{5, b = {5}}".into()));
        let shown = session.evaluate("lft.tensor({{1, 2}, {3, 4.5}})").unwrap();
        assert_eq!(shown, "Tensor (2, 2) f32 cpu\n[[1.0000, 2.0000],\n [3.0000, 4.5000]]");
    }

    #[test]
    fn input_goes_on_over_lines() {
        let session = session();
        for more in
            ["for i = 1, 3 do", "f(", "{1,", "local x =", "function f()\n  return 1", "[[text", "if x then"]
        {
            assert!(is_unfinished(session.lua(), more), "{more}");
        }
        for whole in ["", "1", "x", "x = 1", "x = = 2", "for i = 1, 3 do end", "f()", "end", "lft.help("] {
            assert_eq!(is_unfinished(session.lua(), whole), whole == "lft.help(", "{whole}");
        }
    }

    #[test]
    fn errors_leave_the_session() {
        let mut session = session();
        assert!(session.evaluate("lft.zeros('x')").unwrap().starts_with("stdin:1: lft.zeros: "));
        assert!(session.evaluate("x = = 2").unwrap().contains("unexpected symbol"));
        assert_eq!(session.evaluate("1"), Some("1".into()));
        assert_eq!(session.evaluate("os.exit()"), None);
        assert!(session.left());
    }
}
