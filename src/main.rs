use std::process::ExitCode;

use clap::Parser;
use lft::cli::{self, Cli};

fn main() -> ExitCode {
    cli::report_panics_in_one_line();
    let command_line = Cli::parse();
    cli::catch(|| command_line.execute())
}
