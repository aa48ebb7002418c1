//! `lft run`: run a Lua script.

use std::path::PathBuf;

use anyhow::Result;

use super::Global;
use crate::console;
use crate::live::{Server, Watched, Which};

/// Run a Lua script.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lft run scripts/ablate_steps.lua --seed 7 -- --steps 500\n  lft run scripts/ablate_steps.lua --watch"
)]
pub(super) struct Arguments {
    /// The script.
    script: PathBuf,
    /// Serve a page on 127.0.0.1 that shows the run while it goes on.
    #[arg(long)]
    watch: bool,
    /// Arguments for the script, after `--`.
    #[arg(last = true, value_name = "ARGS")]
    pub(super) arguments: Vec<String>,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let options = global.host_options(arguments.arguments)?;
    let server = match arguments.watch {
        true => {
            let watched = Watched { root: global.runs_dir(), which: Which::OwnProcess };
            let server = Server::start(watched, None)?;
            console::note(&format!("watch the run at {}", server.address()));
            Some(server)
        }
        false => None,
    };
    let outcome = crate::lua::run_script(&arguments.script, &options);
    if let Some(server) = server {
        server.let_pages_catch_up();
    }
    outcome
}
