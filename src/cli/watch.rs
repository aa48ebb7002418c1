//! `lft watch`: look at a run while it goes on.

use anyhow::Result;

use super::Global;
use crate::live::{Server, Watched, Which, terminal, watched};

/// Look at a run while it goes on: a page in the browser, or curves in the terminal.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The page is served on 127.0.0.1 only, refreshes itself, and is read by no other site. Ctrl-C ends the \
                        server.\n\nExamples:\n  lft watch\n  lft watch ablate_steps --terminal"
)]
pub(super) struct Arguments {
    /// Name or id of the run; the newest that is running, else the newest, when left out.
    run: Option<String>,
    /// Draw in the terminal until the run ends, in place of serving a page.
    #[arg(long, short)]
    terminal: bool,
    /// Draw in the terminal once.
    #[arg(long, conflicts_with = "port")]
    once: bool,
    /// Port of the page; 7411, or another where that is taken, when left out.
    #[arg(long, value_name = "N", conflicts_with = "terminal")]
    port: Option<u16>,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let which = arguments.run.map_or(Which::Newest, Which::Named);
    let watched = Watched { root: global.runs_dir(), which };
    if arguments.terminal || arguments.once {
        return terminal::show(&watched, arguments.once);
    }
    // A name that does not exist is told at once, not by the page.
    watched::there(&watched)?;
    let server = Server::start(watched, arguments.port)?;
    crate::console::print(&format!("{}\n", server.address()))?;
    global.note("Ctrl-C ends the server");
    loop {
        std::thread::park();
    }
}

/// Runs a script, and serves the page of the run that it makes where the user wants to watch.
pub(super) fn during(global: &Global, wanted: bool, script: impl FnOnce() -> Result<()>) -> Result<()> {
    if !wanted {
        return script();
    }
    let server = Server::start(Watched { root: global.runs_dir(), which: Which::OwnProcess }, None)?;
    crate::console::note(&format!("watch the run at {}", server.address()));
    let outcome = script();
    server.let_pages_catch_up();
    outcome
}
