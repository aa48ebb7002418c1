//! Making a teacher, end to end: `scripts/pretrain.lua` on a small text, and the model that it leaves.

use std::fs;

use crate::program::{lft, output};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/pretrain.lua");
const VALID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/corpus/valid.txt");

#[test]
fn a_text_becomes_a_model_that_loads_and_predicts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = fs::read_to_string(VALID).unwrap();
    let cut = text.char_indices().nth(60_000).unwrap().0;
    let end = text.char_indices().nth(80_000).unwrap().0;
    fs::write(path.join("train.txt"), &text[..cut]).unwrap();
    fs::write(path.join("valid.txt"), &text[cut..end]).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = lft(&path.join("runs"));
        let (status, stdout, stderr) =
            output(command.current_dir(path).args(["--quiet", "--device", "cpu"]), arguments);
        assert_eq!((status, stderr.as_str()), (0, ""), "{arguments:?}");
        stdout
    };
    let train = |more: &[&str]| {
        let common = [
            "run",
            SCRIPT,
            "--",
            "--train",
            "train.txt",
            "--valid",
            "valid.txt",
            "--size",
            "2x32",
            "--vocab_size",
            "512",
            "--seq_len",
            "32",
            "--windows",
            "8",
        ];
        run(&[&common[..], more].concat())
    };
    fs::write(path.join("test.txt"), text[cut..end].replace('\'', "’")).unwrap();
    let stdout = train(&[
        "--steps", "60", "--batch", "4", "--lr", "1e-2", "--ema", "0.9", "--output", "model", "--test",
        "test.txt", "--quotes", "ascii",
    ]);
    assert!(stdout.contains("7680 tokens in"), "{stdout}");
    let row = run(&[
        "query",
        "SELECT valid_loss, test_loss, test_tokens FROM results WHERE run = 'pretrain'",
        "--format",
        "json",
    ]);
    let rows: serde_json::Value = serde_json::from_str(&row).unwrap();
    let loss = rows[0]["valid_loss"].as_f64().unwrap();
    // A model that knows nothing pays ln 512 = 6.24 nats.
    assert!(loss < 5.6, "{loss}");
    // The test text is the held-out one with other apostrophes: all of its windows, by the weights as they were written.
    let test = rows[0]["test_loss"].as_f64().unwrap();
    assert!((test - loss).abs() < 0.3 && test != loss, "{test} and {loss}");
    assert!(rows[0]["test_tokens"].as_u64().unwrap() > 8 * 32);
    assert!(stdout.contains(&format!("test.txt: {test:.4} nats a token")), "{stdout}");
    let curve =
        run(&["query", "SELECT count(*) AS n, count(valid_loss) AS held FROM training", "--format", "csv"]);
    assert_eq!(curve.trim(), "n,held\n60,20");

    fs::write(
        path.join("load.lua"),
        "local lft = require('lft')
         local m = lft.pythia.load('model')
         print(m.config.dtype, m.config.num_hidden_layers, m.config.vocab_size, m.tokenizer.size)
         print(#m:generate('It was', {max_tokens = 5}) > 0)",
    )
    .unwrap();
    assert_eq!(run(&["run", "load.lua"]), "bfloat16\t2\t512\t512\ntrue\n");

    // Prepared tokens feed the same script, with their own tokenizer.
    fs::write(path.join("parts.txt"), text[..end].replace("\n\n", "\n\n<|endoftext|>")).unwrap();
    run(&["data", "prepare", "parts.txt", "--tokenizer", "model", "--output", "parts", "--holdout", "0.2"]);
    let muon = [
        "--data",
        "parts",
        "--steps",
        "2",
        "--batch",
        "2",
        "--accumulate",
        "2",
        "--dtype",
        "bf16",
        "--optimizer",
        "muon",
        "--checkpoint",
        "saved",
    ];
    let stdout = train(&muon);
    assert!(stdout.contains("128 tokens in"), "{stdout}");
    // The same command finds its last checkpoint and has nothing left to do.
    let files = || {
        let names = fs::read_dir(path.join("saved")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let before = files();
    let again = train(&muon);
    let losses = |text: &str| text.lines().find_map(|line| Some(line.split_once(": loss ")?.1.to_owned()));
    assert_eq!(losses(&again), losses(&stdout));
    assert!(losses(&again).is_some() && files() == before, "{again}");
}
