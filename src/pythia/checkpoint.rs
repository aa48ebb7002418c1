//! Which files make up a Hugging Face checkpoint folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The architecture.
pub const CONFIG: &str = "config.json";
/// The tokenizer, optional.
pub const TOKENIZER: &str = "tokenizer.json";
/// Defaults of generation, optional.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The weights in one file.
pub const SAFETENSORS: &str = "model.safetensors";
/// The list of shards, where the weights lie in several files.
pub const INDEX: &str = "model.safetensors.index.json";

/// The files that say where the weights are, the preferred first; an `.index.json` lists shards.
pub const WEIGHTS: [&str; 4] = [SAFETENSORS, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Whether a weight file only lists shards.
pub fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}

/// Finds the files that hold a folder's weights.
///
/// # Errors
/// No weights, a broken index, or a shard that the index names and the folder lacks.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let Some(found) = WEIGHTS.into_iter().find(|name| folder.join(name).is_file()) else {
        bail!("{} holds no weights: looked for {}", folder.display(), WEIGHTS.join(", "));
    };
    if !is_index(found) {
        return Ok(vec![folder.join(found)]);
    }
    let shards: Vec<PathBuf> = shards(&folder.join(found))?.iter().map(|name| folder.join(name)).collect();
    for shard in &shards {
        ensure!(shard.is_file(), "{} is missing, though {found} beside it names it", shard.display());
    }
    Ok(shards)
}

/// Names of the shards that an index lists, in order and each once.
///
/// # Errors
/// An unreadable or empty index, or a shard name that leads out of the folder.
pub fn shards(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).with_context(|| format!("cannot read {}", index.display()))?;
    let index_json: Index = serde_json::from_str(&text).with_context(|| {
        format!("{} is no index of shards (an object with `weight_map`)", index.display())
    })?;
    let names: BTreeSet<String> = index_json.weight_map.into_values().collect();
    ensure!(!names.is_empty(), "{} lists no shards", index.display());
    for name in &names {
        let plain = Path::new(name).file_name().is_some_and(|file| file == name.as_str());
        ensure!(plain, "{} names the shard {name:?}, but shards must lie beside it", index.display());
    }
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn refusal(files: &[(&str, &str)]) -> String {
        format!("{:#}", weight_files(folder(files).path()).unwrap_err())
    }

    #[test]
    fn prefers_safetensors_over_pickles() {
        let both = folder(&[("pytorch_model.bin", ""), (SAFETENSORS, "")]);
        assert_eq!(weight_files(both.path()).unwrap(), [both.path().join(SAFETENSORS)]);
    }

    #[test]
    fn lists_each_shard_once() {
        let index = r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        let shards = folder(&[(WEIGHTS[1], index), ("1.safetensors", ""), ("2.safetensors", "")]);
        let expected = ["1.safetensors", "2.safetensors"].map(|name| shards.path().join(name));
        assert_eq!(weight_files(shards.path()).unwrap(), expected);
    }

    #[test]
    fn says_what_is_missing_or_broken() {
        assert!(refusal(&[]).contains("holds no weights: looked for model.safetensors, "));
        assert!(refusal(&[(WEIGHTS[1], "[]")]).contains("no index of shards"));
        assert!(refusal(&[(WEIGHTS[1], r#"{"weight_map": {}}"#)]).contains("lists no shards"));
        let missing = refusal(&[(WEIGHTS[3], r#"{"weight_map": {"a": "one.bin"}}"#)]);
        assert!(missing.contains("one.bin is missing, though pytorch_model.bin.index.json"), "{missing}");
        let outside = refusal(&[(WEIGHTS[1], r#"{"weight_map": {"a": "../secret"}}"#)]);
        assert!(outside.contains("\"../secret\", but shards must lie beside it"), "{outside}");
    }
}
