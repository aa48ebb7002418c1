//! How the end-to-end tests call the program.

use std::path::Path;
use std::process::{Command, Output};

/// The program, with its runs in the given folder.
pub fn lft(runs: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lft"));
    command.env_remove("LFT_RUNS").arg("--runs-dir").arg(runs);
    command
}

/// Exit code, standard output and standard error.
pub fn output(command: &mut Command, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}
