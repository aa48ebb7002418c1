//! The interactive session: history, input over several lines, completion.

mod complete;
mod session;

use std::path::{Path, PathBuf};

use anyhow::Context;
use mlua::Lua;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Editor, Helper};

use complete::Completion;
use session::Session;

use super::host::{HostOptions, on_deep_stack};
use super::interrupt;
use super::results::Ending;
use crate::console;

/// Reads, evaluates and prints until the input ends.
///
/// # Errors
/// When the terminal cannot be read; errors of what is typed are printed and the session goes on.
pub fn repl(options: &HostOptions) -> anyhow::Result<()> {
    on_deep_stack(|| converse(options))
}

fn converse(options: &HostOptions) -> anyhow::Result<()> {
    let mut session = Session::new(options)?;
    let config = Config::builder().auto_add_history(true).completion_type(CompletionType::List).build();
    let mut editor: Editor<Typing, DefaultHistory> = Editor::with_config(config)?;
    // After the editor, which takes Ctrl-C for itself when it is made.
    interrupt::install(session.lua())?;
    let completion = Completion::new(session.lua(), session.catalogue());
    editor.set_helper(Some(Typing { lua: session.lua().clone(), completion }));
    let history = history_file();
    if let Some(path) = &history {
        // A first session has no history yet.
        editor.load_history(path).ok();
    }
    let version = env!("CARGO_PKG_VERSION");
    console::print(&format!("lft {version}, Lua 5.4. lft.help() lists what there is; Ctrl-D ends.\n"))?;
    while !session.left() {
        match editor.readline("> ") {
            Ok(code) => {
                remember(&mut editor, history.as_deref())?;
                interrupt::clear();
                if let Some(answer) = session.evaluate(&code) {
                    console::print(&format!("{answer}\n"))?;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("cannot read the terminal"),
        }
    }
    session.finish(&Ending::WELL)
}

/// Writes down what was typed before it runs, as it may be the last.
fn remember(editor: &mut Editor<Typing, DefaultHistory>, history: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = history else { return Ok(()) };
    editor.append_history(path).with_context(|| format!("cannot write {}", path.display()))
}

fn history_file() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".lft_history"))
}

/// What the line editor asks while somebody types.
struct Typing {
    lua: Lua,
    completion: Completion,
}

impl Helper for Typing {}
impl Highlighter for Typing {}
impl Hinter for Typing {
    type Hint = String;
}

/// Enter begins a new line for as long as Lua expects more.
impl Validator for Typing {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(match session::is_unfinished(&self.lua, context.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Completer for Typing {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.completion.candidates(&line[..cursor]))
    }
}
