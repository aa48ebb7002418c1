//! Preparing on small texts: what is written, interruptions, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Result, bail};
use tokenizers::Tokenizer;

use super::*;
use crate::data::input::Cut;

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_file("data/teacher/tokenizer.json").unwrap());

fn options() -> PrepareOptions {
    let cut = Cut { separator: SEPARATOR.to_owned(), field: "text".to_owned() };
    PrepareOptions { cut, quotes: Quotes::Kept, end_of_text: 0, holdout: 0.0, shard_tokens: 500 }
}

fn sources(paths: &[PathBuf]) -> Vec<Source> {
    let source = |path: &PathBuf| Source {
        path: path.clone(),
        open: Box::new(|path, read| input::open(path, &options().cut, read)),
    };
    paths.iter().map(source).collect()
}

/// A folder with two texts of forty short documents each.
fn texts() -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["one.txt", "two.txt"].map(|name| {
        let document =
            |i: usize| format!("{name} has a document of number {i}. {}", "It is long. ".repeat(i % 9));
        let path = folder.path().join(name);
        fs::write(&path, (0..40).map(document).collect::<Vec<_>>().join(SEPARATOR)).unwrap();
        path
    });
    (folder, paths.to_vec())
}

fn done(paths: &[PathBuf], folder: &Path, options: &PrepareOptions) -> Result<Manifest> {
    prepare(sources(paths), &TOKENIZER, folder, options, |_| Ok(()))
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn all(tokens: &impl Tokens) -> Vec<u32> {
    let mut out = Vec::new();
    tokens.read(0, tokens.len(), &mut out);
    out
}

#[test]
fn the_tokens_are_those_of_the_text() {
    let (folder, paths) = texts();
    let output = folder.path().join("tokens");
    let manifest = done(&paths, &output, &options()).unwrap();
    assert!(manifest.shards.len() > 2 && manifest.valid_tokens == 0);
    let found = TokenFolder::open(&output, Split::Train).unwrap();
    let of_file = |path: &PathBuf| {
        let set = TokenSet::read(&[path], Quotes::Kept, &TOKENIZER, 4096).unwrap();
        [set.tokens, vec![0]].concat()
    };
    let plain: Vec<u32> = paths.iter().flat_map(of_file).collect();
    assert_eq!(all(&found), plain);
    assert_eq!((found.documents(), manifest.documents), (80, 80));
    let lengths = found.document_lengths().unwrap();
    assert_eq!(lengths.iter().map(|&length| length as usize).sum::<usize>(), found.len());
    let mut at = 0;
    for length in lengths {
        at += length as usize;
        let mut last = Vec::new();
        found.read(at - 1, 1, &mut last);
        assert_eq!(last, [0]);
    }
    let mut across = Vec::new();
    found.read(450, 900, &mut across);
    assert_eq!(across, plain[450..1350]);
}

#[test]
fn an_interrupted_preparation_goes_on_and_ends_the_same() {
    let (folder, paths) = texts();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let options = PrepareOptions { holdout: 0.2, ..options() };
    let manifest = done(&paths, &whole, &options).unwrap();
    done(&paths, &broken, &options).unwrap();
    // As if it had been killed while it wrote the second shard, and earlier still.
    for keep in [1, 0] {
        for name in contents(&broken).into_keys() {
            let number = name.split('.').next().and_then(|number| number.parse::<usize>().ok());
            let record = name.ends_with(".json") && number.is_some_and(|number| number >= keep);
            if record || name == "manifest.json" || name == "tokenizer.json" {
                fs::remove_file(broken.join(name)).unwrap();
            }
        }
        let error = TokenFolder::open(&broken, Split::Train).err().unwrap().to_string();
        assert!(error.contains("not prepared to its end"), "{error}");
        let mut resumed = usize::MAX;
        let again = prepare(sources(&paths), &TOKENIZER, &broken, &options, |progress| {
            resumed = progress.resumed_shards;
            Ok(())
        });
        assert_eq!((again.unwrap(), resumed), (manifest.clone(), keep));
        assert!(contents(&broken) == contents(&whole));
    }
}

#[test]
fn documents_are_held_out_by_their_text() {
    let (folder, paths) = texts();
    let output = folder.path().join("tokens");
    let manifest = done(&paths, &output, &PrepareOptions { holdout: 0.25, ..options() }).unwrap();
    let (train, valid) = (
        TokenFolder::open(&output, Split::Train).unwrap(),
        TokenFolder::open(&output, Split::Valid).unwrap(),
    );
    assert_eq!(train.documents() + valid.documents(), 80);
    assert!((8..=32).contains(&valid.documents()), "{}", valid.documents());
    assert_eq!((train.len(), valid.len()), (manifest.train_tokens, manifest.valid_tokens));
    // The same text on its own falls on the same side.
    let text = |tokens: &TokenFolder| TOKENIZER.decode(&all(tokens), false).unwrap();
    for document in text(&valid).split(SEPARATOR).filter(|text| !text.is_empty()) {
        assert!(!text(&train).contains(document));
    }
}

#[test]
fn quotation_marks_change_but_not_what_is_held_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let documents: Vec<String> = (0..40).map(|i| format!("“It’s number {i},” she said.")).collect();
    fs::write(&path, documents.join(SEPARATOR)).unwrap();
    let sides = |name: &str, quotes| {
        let output = folder.path().join(name);
        let manifest =
            done(std::slice::from_ref(&path), &output, &PrepareOptions { quotes, holdout: 0.3, ..options() })
                .unwrap();
        assert_eq!(Manifest::read(&output).unwrap().plan.quotes, quotes);
        assert_eq!(manifest.plan.quotes, quotes);
        Split::ALL
            .map(|split| TOKENIZER.decode(&all(&TokenFolder::open(&output, split).unwrap()), false).unwrap())
    };
    let (kept, ascii) = (sides("kept", Quotes::Kept), sides("ascii", Quotes::Ascii));
    assert_eq!(kept.map(|text| Quotes::Ascii.apply(text)), ascii);
    assert!(ascii[0].contains("\"It's number"), "{}", ascii[0]);
    let other = PrepareOptions { quotes: Quotes::Ascii, holdout: 0.3, ..options() };
    let error =
        done(std::slice::from_ref(&path), &folder.path().join("kept"), &other).unwrap_err().to_string();
    assert!(error.contains("another treatment of quotation marks"), "{error}");
}

#[test]
fn another_plan_needs_another_folder() {
    let (folder, paths) = texts();
    let output = folder.path().join("tokens");
    done(&paths, &output, &options()).unwrap();
    let refusal =
        |paths: &[PathBuf], options: &PrepareOptions| done(paths, &output, options).unwrap_err().to_string();
    assert!(refusal(&paths[..1], &options()).contains("another set of inputs"));
    assert!(
        refusal(&paths, &PrepareOptions { holdout: 0.5, ..options() }).contains("another share held out")
    );
    fs::write(&paths[0], "changed").unwrap();
    assert!(refusal(&paths, &options()).contains("another set of inputs"));
    assert!(refusal(&paths, &PrepareOptions { holdout: 1.0, ..options() }).contains("holdout = 1"));
    assert!(refusal(&[], &options()).contains("no input"));
}

#[test]
fn errors_of_reading_and_watching_end_the_work() {
    let (folder, paths) = texts();
    let output = folder.path().join("tokens");
    let stopped = prepare(sources(&paths), &TOKENIZER, &output, &options(), |_| bail!("enough"));
    assert_eq!(stopped.unwrap_err().to_string(), "enough");
    let missing = done(&[folder.path().join("missing.txt")], &output, &options());
    assert!(missing.unwrap_err().to_string().contains("missing.txt"));
    let empty = folder.path().join("empty.txt");
    fs::write(&empty, " \n<|endoftext|>\n").unwrap();
    let error = done(&[empty], &folder.path().join("none"), &options()).unwrap_err().to_string();
    assert!(error.contains("no text"), "{error}");
}

#[test]
fn damage_is_found() {
    let (folder, paths) = texts();
    let output = folder.path().join("tokens");
    done(&paths, &output, &options()).unwrap();
    TokenFolder::verify(&output).unwrap();
    let victim = output.join("00001.train.tokens");
    let mut bytes = fs::read(&victim).unwrap();
    bytes[40] ^= 1;
    fs::write(&victim, &bytes).unwrap();
    assert!(TokenFolder::verify(&output).unwrap_err().to_string().contains("00001.train.tokens"));
    fs::write(&victim, &bytes[..40]).unwrap();
    let error = TokenFolder::open(&output, Split::Train).err().unwrap().to_string();
    assert!(error.contains("has 40 bytes, but should have"), "{error}");
    let error = TokenFolder::open(folder.path(), Split::Train).err().unwrap().to_string();
    assert!(error.contains("holds no prepared tokens"), "{error}");
    let error = TokenFolder::open(&output, Split::Valid).err().unwrap().to_string();
    assert!(error.contains("--holdout"), "{error}");
}
