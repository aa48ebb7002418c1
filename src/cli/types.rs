//! `lft types`: what editors and readers need to know of the module `lft`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Global;
use crate::lua::{self, docs, stubs};
use crate::{atomic, console};

/// Settings for lua-language-server: the dialect, and where `require` looks from a script.
const SETTINGS: &str = r#"{
  "$schema": "https://raw.githubusercontent.com/LuaLS/vscode-lua/master/setting/schema.json",
  "runtime.version": "Lua 5.4",
  "runtime.path": ["?.lua", "?/init.lua", "lua/?.lua", "lua/?/init.lua"],
  "workspace.checkThirdParty": false
}
"#;

/// Write type definitions of the module `lft` for editors.
///
/// The folder receives `lft.lua` (LuaCATS definitions) and, unless it has one, a `.luarc.json`. Open it with an
/// editor that speaks to lua-language-server, and names complete, hover texts show and calls are checked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lft types .\n  lft types --reference docs/lua.md")]
#[group(required = true, multiple = true)]
pub(super) struct Arguments {
    /// The folder of the scripts; made where it is missing.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write the reference of every function, as Markdown.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let catalogue = lua::catalogue()?;
    if let Some(folder) = arguments.folder {
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        write(&folder.join("lft.lua"), &stubs::luacats(&catalogue))?;
        let settings = folder.join(".luarc.json");
        match settings.exists() {
            true => global.note(&format!("kept {} as it is", settings.display())),
            false => write(&settings, SETTINGS)?,
        }
    }
    match arguments.reference {
        Some(file) => write(&file, &docs::markdown(&catalogue)),
        None => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    atomic::write(path, |file| Ok(file.write_all(text.as_bytes())?))?;
    console::print(&format!("{}\n", path.display()))
}
