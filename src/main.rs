use std::process::ExitCode;

use clap::Parser;
use lft::cli::{self, Cli};
use lft::threads;

fn main() -> ExitCode {
    // SAFETY: this is the first statement of the only thread.
    unsafe { threads::leave_to_rayon() };
    cli::report_panics_in_one_line();
    let command_line = Cli::parse();
    cli::catch(|| command_line.execute())
}
