//! `lft data`, end to end: preparing from every kind of file, stopping half-way, and reading the tokens in a script.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::program::{lft, output};

const TEACHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/teacher");
const VALID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/corpus/valid.txt");

fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    output(lft(&folder.join("runs")).current_dir(folder).arg("--quiet"), arguments)
}

fn well(folder: &Path, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = run(folder, arguments);
    assert_eq!((status, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

fn prepare(folder: &Path, inputs: &[&str], more: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["data", "prepare"];
    arguments.extend(inputs);
    arguments.extend(["--tokenizer", TEACHER, "--output", "tokens"]);
    arguments.extend(more);
    run(folder, &arguments)
}

/// The documents of the held-out text, cut into pieces of some paragraphs.
fn documents() -> Vec<String> {
    let text = fs::read_to_string(VALID).unwrap();
    let paragraphs: Vec<&str> = text.split("\n\n").collect();
    paragraphs.chunks(20).take(60).map(|chunk| chunk.join("\n\n")).collect()
}

#[test]
fn text_json_lines_and_parquet_become_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let documents: Vec<String> = documents().iter().map(|text| text.replace('\'', "’")).collect();
    fs::write(path.join("a.txt"), documents.join("<|endoftext|>")).unwrap();
    let lines: Vec<String> =
        documents.iter().map(|text| serde_json::json!({"id": 1, "body": text}).to_string()).collect();
    let mut gzip =
        flate2::write::GzEncoder::new(fs::File::create(path.join("a.jsonl.gz")).unwrap(), Default::default());
    gzip.write_all(lines.join("\n").as_bytes()).unwrap();
    gzip.finish().unwrap();
    // The program writes the Parquet file itself, from one run with a row a document.
    let rows: Vec<String> = documents.iter().map(|text| format!("run:log{{body = {}}}", lua(text))).collect();
    fs::write(
        path.join("rows.lua"),
        format!(
            "local lft = require('lft')\nlocal run = lft.run{{name = 'rows'}}\n{}\nrun:finish()",
            rows.join("\n")
        ),
    )
    .unwrap();
    well(path, &["run", "rows.lua"]);
    well(path, &["query", "SELECT body FROM results WHERE run = 'rows'", "--output", "a.parquet"]);

    let mut found = Vec::new();
    for (input, output) in [("a.txt", "text"), ("a.jsonl.gz", "lines"), ("a.parquet", "table")] {
        let arguments = [
            "data",
            "prepare",
            input,
            "--tokenizer",
            TEACHER,
            "--output",
            output,
            "--field",
            "body",
            "--holdout",
            "0.2",
            "--ascii-quotes",
        ];
        let stdout = well(path, &arguments);
        assert!(
            stdout.contains(&format!("documents   {}\n", documents.len()))
                && stdout.contains("vocabulary  4096 tokens"),
            "{stdout}"
        );
        assert!(well(path, &["data", "verify", output]).contains("1 shards agree"));
        found.push(
            ["train", "valid"]
                .map(|split| fs::read(path.join(format!("{output}/00000.{split}.tokens"))).unwrap()),
        );
    }
    assert!(found[0] == found[1] && found[1] == found[2]);
    assert!(found[0].iter().all(|tokens| !tokens.is_empty()));
    let manifest = fs::read_to_string(path.join("table/manifest.json")).unwrap();
    assert!(manifest.contains("\"quotes\": \"ascii\""), "{manifest}");
    // The marks were changed in each: the tokens are those of the text that had ASCII marks all along.
    fs::write(path.join("plain.txt"), documents.join("<|endoftext|>").replace('’', "'")).unwrap();
    well(path, &["data", "prepare", "plain.txt", "--tokenizer", TEACHER, "--output", "plain"]);
    let tokens = fs::read(path.join("plain/00000.train.tokens")).unwrap().len();
    assert_eq!(tokens, found[0].iter().map(Vec::len).sum::<usize>());
}

/// A text as a Lua string.
fn lua(text: &str) -> String {
    format!("[==[\n{text}]==]")
}

#[test]
fn a_killed_preparation_goes_on_and_a_script_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = documents().join("<|endoftext|>");
    fs::write(path.join("a.txt"), format!("{text}<|endoftext|>{text}")).unwrap();
    let more = ["--shard-tokens", "20000"];
    let (status, first, stderr) = prepare(path, &["a.txt"], &more);
    assert_eq!((status, stderr.as_str()), (0, ""));
    let whole = fs::read(path.join("tokens/00001.train.tokens")).unwrap();
    for name in ["manifest.json", "00001.json", "00002.json", "00001.train.tokens"] {
        fs::remove_file(path.join("tokens").join(name)).unwrap();
    }
    let script = "local lft = require('lft')
        local t = lft.tokenizer.load('tokens')
        local d = lft.data.open('tokens', {tokenizer = t, seq_len = 32})
        for batch in lft.data.open('tokens', {seq_len = 64, within_documents = true}):batches{batch = 64, steps = 1} do
          for _, row in ipairs(batch:totable()) do for i, id in ipairs(row) do assert(id ~= 0 or i == 64) end end
        end
        local ids = {}
        for batch in d:batches{batch = 2, seed = 5, steps = 2} do
          for _, row in ipairs(batch:totable()) do ids[#ids + 1] = t:decode(row) end
        end
        print(#d, d.documents, d.seq_len, table.concat(ids, '|'))";
    fs::write(path.join("script.lua"), script).unwrap();
    let (status, _, stderr) = run(path, &["run", "script.lua"]);
    assert!(status == 1 && stderr.contains("not prepared to its end"), "{stderr}");
    let (status, again, _) = prepare(path, &["a.txt"], &more);
    assert_eq!(status, 0);
    let figures =
        |text: &str| text.lines().filter(|line| !line.starts_with("took")).collect::<Vec<_>>().join("\n");
    assert_eq!(figures(&again), figures(&first));
    assert!(fs::read(path.join("tokens/00001.train.tokens")).unwrap() == whole);
    let printed = well(path, &["run", "script.lua"]);
    assert!(printed.contains(&format!("\t{}\t32\t", 2 * documents().len())), "{printed}");
    assert_eq!(printed, well(path, &["run", "script.lua"]));
    let sentence: String =
        printed.split('\t').nth(3).unwrap().split('|').next().unwrap().chars().skip(8).take(40).collect();
    assert!(text.contains(&sentence), "{sentence}");
}

#[test]
fn mistakes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("a.jsonl"), "{\"text\": \"It was night.\"}\n{\"texts\": \"no\"}\n").unwrap();
    fs::write(path.join("a.txt"), "It was night.").unwrap();
    fs::create_dir(path.join("none")).unwrap();
    let refused = |inputs: &[&str], more: &[&str], expected: &str| {
        let (status, _, stderr) = prepare(path, inputs, more);
        assert!(status == 1 && stderr.contains(expected), "{expected}: {stderr}");
    };
    refused(&["a.jsonl"], &[], "a.jsonl, line 2: there is no field `text`; the line has texts");
    refused(&["missing.txt"], &[], "cannot read missing.txt");
    refused(&["none"], &[], "the folder none holds no files");
    refused(&["a.txt"], &["--end-of-text", "<end>"], "has no token <end>");
    refused(&["a.txt"], &["--holdout", "1.5"], "holdout = 1.5");
    let (status, _, stderr) = run(path, &["data", "info", "none"]);
    assert!(status == 1 && stderr.contains("holds no prepared tokens"), "{stderr}");
    let (status, _, stderr) =
        run(path, &["data", "prepare", "a.txt", "--tokenizer", "a.txt", "--output", "a.txt/tokens"]);
    assert!(status == 1 && stderr.contains("cannot read a tokenizer from a.txt"), "{stderr}");
    let (status, _, stderr) =
        run(path, &["data", "prepare", "a.txt", "--tokenizer", TEACHER, "--output", "a.txt/tokens"]);
    assert!(status == 1 && stderr.contains("cannot make the folder a.txt/tokens"), "{stderr}");
}
