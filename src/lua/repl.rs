//! The interactive session: history, input over several lines, completion.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use mlua::{Function, MultiValue};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Editor, Helper};

use super::catalogue::{Catalogue, Kind};
use super::error::{Ended, ScriptError};
use super::host::{Host, HostOptions};
use super::interrupt;
use super::results::Ending;
use super::show::show;
use crate::console;

/// Reads, evaluates and prints until the input ends.
///
/// # Errors
/// When the terminal cannot be read; errors of what is typed are printed and the session goes on.
pub fn repl(options: &HostOptions) -> anyhow::Result<()> {
    let mut session = Session::new(options)?;
    interrupt::install(&session.host.lua)?;
    let config = Config::builder().auto_add_history(true).build();
    let mut editor: Editor<Names, DefaultHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Names(session.host.state.catalogue())));
    let history = history_file();
    if let Some(path) = &history {
        // A first session has no history yet.
        editor.load_history(path).ok();
    }
    let version = env!("CARGO_PKG_VERSION");
    console::print(&format!("lft {version}, Lua 5.4. lft.help() lists what there is; Ctrl-D ends.\n"))?;
    loop {
        let prompt = if session.pending.is_empty() { "> " } else { ">> " };
        match editor.readline(prompt) {
            Ok(line) => {
                interrupt::clear();
                if let Some(answer) = session.line(&line) {
                    console::print(&format!("{answer}\n"))?;
                }
                if session.left {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => session.pending.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("cannot read the terminal"),
        }
    }
    session.host.state.end_runs(&Ending::WELL)?;
    if let Some(path) = &history {
        editor.save_history(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn history_file() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".lft_history"))
}

/// The state between two lines.
struct Session {
    host: Host,
    pending: String,
    /// Whether `os.exit` was called.
    left: bool,
}

impl Session {
    fn new(options: &HostOptions) -> anyhow::Result<Self> {
        let host = Host::new(options, Path::new("stdin"), "")?;
        let lft: mlua::Value = host.lua.globals().get::<Function>("require")?.call("lft")?;
        host.lua.globals().set("lft", lft)?;
        Ok(Self { host, pending: String::new(), left: false })
    }

    /// Takes one line; what is to be shown, or nothing when more lines must follow or nothing came out.
    fn line(&mut self, line: &str) -> Option<String> {
        self.pending.push_str(line);
        let code = self.pending.clone();
        let outcome = match self.load(&format!("return {code}")) {
            Err(_) => self.load(&code),
            expression => expression,
        };
        let error = match outcome.and_then(|chunk| chunk.call::<MultiValue>(())) {
            Err(mlua::Error::SyntaxError { incomplete_input: true, .. }) => {
                self.pending.push('\n');
                return None;
            }
            Ok(values) => return self.finish(&values),
            Err(error) => error,
        };
        self.pending.clear();
        match Ended::of(&error) {
            Some(Ended::Exit(_)) => {
                self.left = true;
                None
            }
            _ => Some(ScriptError::new(&error).to_string()),
        }
    }

    fn load(&self, code: &str) -> mlua::Result<Function> {
        self.host.lua.load(code).set_name("=stdin").set_mode(mlua::chunk::ChunkMode::Text).into_function()
    }

    fn finish(&mut self, values: &MultiValue) -> Option<String> {
        self.pending.clear();
        let shown: Vec<String> = values.iter().map(show).collect();
        (!shown.is_empty()).then(|| shown.join("\t"))
    }
}

/// Completes names of the module and of methods.
struct Names(Arc<Catalogue>);

impl Names {
    /// Where the word before the cursor begins, and the names that go on from it.
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let start = line
            .rfind(|c: char| !(c.is_alphanumeric() || "_.:".contains(c)))
            .map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8));
        let word = &line[start..];
        let mut names: Vec<String> = match word.rsplit_once(':') {
            Some((object, method)) => self
                .0
                .entries
                .iter()
                .filter(|entry| entry.kind() == Kind::Method && entry.short().starts_with(method))
                .map(|entry| format!("{object}:{}", entry.short()))
                .collect(),
            None => self
                .0
                .entries
                .iter()
                .filter(|entry| entry.kind() == Kind::Function && entry.name.starts_with(word))
                .map(|entry| entry.name.to_owned())
                .collect(),
        };
        names.sort();
        names.dedup();
        (start, names)
    }
}

impl Helper for Names {}
impl Highlighter for Names {}
impl Validator for Names {}
impl Hinter for Names {
    type Hint = String;
}

impl Completer for Names {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(&line[..cursor]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> anyhow::Result<Session> {
        Session::new(&HostOptions::default())
    }

    #[test]
    fn expressions_are_printed_and_statements_are_not() -> anyhow::Result<()> {
        let mut session = session()?;
        assert_eq!(session.line("1 + 2, 'x'"), Some("3\tx".into()));
        assert_eq!(session.line("a = 5"), None);
        assert_eq!(session.line("{a, b = {a}}"), Some("{5, b = {5}}".into()));
        assert!(session.line("lft.ones({2})").is_some_and(|shown| shown.contains("Tensor (2) f32 cpu")));
        Ok(())
    }

    #[test]
    fn input_goes_on_over_lines() -> anyhow::Result<()> {
        let mut session = session()?;
        assert_eq!(session.line("for i = 1, 3 do"), None);
        assert_eq!(session.line("  total = (total or 0) + i"), None);
        assert_eq!(session.line("end"), None);
        assert_eq!(session.line("total"), Some("6".into()));
        Ok(())
    }

    #[test]
    fn errors_leave_the_session() -> anyhow::Result<()> {
        let mut session = session()?;
        assert!(
            session.line("lft.zeros('x')").is_some_and(|shown| shown.starts_with("stdin:1: lft.zeros: "))
        );
        assert!(session.line("x = = 2").is_some_and(|shown| shown.contains("unexpected symbol")));
        assert_eq!(session.line("1"), Some("1".into()));
        Ok(())
    }

    #[test]
    fn names_are_completed() -> anyhow::Result<()> {
        let names = Names(session()?.host.state.catalogue());
        assert_eq!(names.candidates("x = lft.zer"), (4, vec!["lft.zeros".to_owned()]));
        assert_eq!(names.candidates("t:index_s"), (0, vec!["t:index_select".to_owned()]));
        Ok(())
    }
}
