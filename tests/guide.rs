//! The guide to scripting: what it shows runs.

mod program;

use std::fs;

use program::{lft, output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The blocks of Lua in a page, with the line that each begins on.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line) {
            (None, "```lua") => open = Some((number + 2, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, code)), line) => {
                code.push_str(line);
                code.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[test]
fn every_block_of_the_guide_runs() {
    let page = fs::read_to_string(format!("{ROOT}/docs/scripting.md")).unwrap();
    let blocks = blocks(&page);
    assert!(blocks.len() >= 6);
    let desk = tempfile::tempdir().unwrap();
    for (line, code) in blocks {
        let script = desk.path().join("guide.lua");
        fs::write(&script, code).unwrap();
        let mut command = lft(&desk.path().join("runs"));
        command.current_dir(ROOT).args(["--quiet", "--device", "cpu"]);
        let (status, _, stderr) = output(&mut command, &["run", script.to_str().unwrap()]);
        assert_eq!((status, stderr.as_str()), (0, ""), "the block at docs/scripting.md:{line}");
    }
}
