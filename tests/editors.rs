//! What editors make of the scripts: the linter, and the language server with the definitions of `lft types`.
//! Both are skipped, and say so, where the tool is not installed.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use program::{lft, output};
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The command, if a program of that name can be started.
fn tool(name: &str) -> Option<Command> {
    match Command::new(name).arg("--version").output() {
        Ok(Output { status, .. }) if status.success() => Some(Command::new(name)),
        _ => {
            println!("skipped: {name} is not installed");
            None
        }
    }
}

fn run(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(ROOT).join("scripts");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let scripts: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "lua")).collect();
    assert!(scripts.len() >= 3);
    scripts
}

/// A folder with the definitions, the settings and every script.
fn workspace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let types = output(&mut lft(folder.path()), &["types", folder.path().to_str().unwrap()]);
    assert_eq!(types.0, 0, "{}", types.2);
    for script in scripts() {
        fs::copy(&script, folder.path().join(script.file_name().unwrap())).unwrap();
    }
    folder
}

/// A call that is wrong in its type, in its name and in an option, which a checker that works must find.
const WRONG: &str = "local lft = require('lft')
local t = lft.zeros({2}, {dtype = 5})
t:smu()
lft.zeors({2})
return t:matmul('x')
";

#[test]
fn scripts_are_clean_to_luacheck() {
    let Some(mut luacheck) = tool("luacheck") else { return };
    let (clean, report) = run(luacheck.current_dir(ROOT).args(["--no-color", "scripts", "src/lua"]));
    assert!(clean, "{report}");
    assert!(report.contains("0 warnings / 0 errors"), "{report}");
}

#[test]
fn scripts_are_well_typed_to_the_language_server() {
    let Some(_) = tool("lua-language-server") else { return };
    let check = |folder: &Path| {
        let log = tempfile::tempdir().unwrap();
        let mut server = Command::new("lua-language-server");
        server.arg(format!("--check={}", folder.display())).arg("--checklevel=Warning");
        run(server.arg(format!("--logpath={}", log.path().display())))
    };
    let folder = workspace();
    let (clean, report) = check(folder.path());
    assert!(clean, "{report}");
    fs::write(folder.path().join("wrong.lua"), WRONG).unwrap();
    let (clean, report) = check(folder.path());
    assert!(!clean, "mistakes were not found: {report}");
}

/// The other checker that reads the same definitions.
#[test]
fn scripts_are_well_typed_to_emmylua() {
    let Some(_) = tool("emmylua_check") else { return };
    let check = |folder: &Path| run(Command::new("emmylua_check").arg("--warnings-as-errors").arg(folder));
    let folder = workspace();
    // What concerns the definitions. It also doubts that elements and variables are set, and that numbers are whole,
    // where a script knows better.
    let settings = r#"{"strict": {"arrayIndex": false}, "diagnostics": {"disable":
        ["need-check-nil", "unnecessary-if", "assign-type-mismatch", "call-non-callable"]}}"#;
    fs::write(folder.path().join(".emmyrc.json"), settings).unwrap();
    let (clean, report) = check(folder.path());
    assert!(clean, "{report}");
    fs::write(folder.path().join("wrong.lua"), WRONG).unwrap();
    let (clean, report) = check(folder.path());
    assert!(!clean, "mistakes were not found: {report}");
    for line in 2..=5 {
        assert!(report.contains(&format!("wrong.lua:{line}:")), "line {line}: {report}");
    }
}
