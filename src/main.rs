use std::process::ExitCode;

use clap::Parser;
use lft::bench::memory::Counting;
use lft::cli::{self, Cli};

/// `lft.bench` reports how much memory a function needs.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    cli::report_panics_in_one_line();
    let command_line = Cli::parse();
    cli::catch(|| command_line.execute())
}
