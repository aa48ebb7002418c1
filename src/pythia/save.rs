//! Writing a model as a Hugging Face folder.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Tensor};
use serde_json::{Map, json};

use super::{Config, Pythia, checkpoint};
use crate::atomic;

/// Largest weight file, as Hugging Face has it.
pub const SHARD_BYTES: usize = 5_000_000_000;

impl Pythia {
    /// Writes `config.json`, `model.safetensors`, `generation_config.json` and, where there is one,
    /// `tokenizer.json` into a folder, which is made if need be. Each file appears whole or not at all.
    ///
    /// # Errors
    /// Names the folder or file that cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        self.save_sharded(folder, SHARD_BYTES)
    }

    /// [`save`](Self::save) with weights of more than `shard_bytes` split over `model-00001-of-….safetensors`
    /// and a `model.safetensors.index.json`, as Hugging Face does.
    ///
    /// # Errors
    /// Those of [`save`](Self::save).
    pub fn save_sharded(&self, folder: impl AsRef<Path>, shard_bytes: usize) -> Result<()> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        self.save_weights(folder, shard_bytes)?;
        if let Some(tokenizer) = &self.tokenizer {
            let text =
                tokenizer.to_string(false).map_err(|error| anyhow!("cannot write the tokenizer: {error}"))?;
            atomic::write(&folder.join(checkpoint::TOKENIZER), |file| Ok(file.write_all(text.as_bytes())?))?;
        }
        let generation = json!({
            "bos_token_id": self.config.bos_token_id,
            "eos_token_id": self.config.eos_token_id,
        });
        write_json(&folder.join(checkpoint::GENERATION_CONFIG), &generation)?;
        // Last, because a folder without config.json is not taken for a model.
        let config = Config { dtype: Some(torch_name(self.dtype()).to_string()), ..self.config.clone() };
        write_json(&folder.join(checkpoint::CONFIG), &config)
    }

    fn save_weights(&self, folder: &Path, shard_bytes: usize) -> Result<()> {
        // `transformers` refuses files that do not say so.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let shards = shards(self.tensors(), shard_bytes);
        if let [tensors] = &shards[..] {
            atomic::write_tensors(&folder.join(checkpoint::SAFETENSORS), owned(tensors), Some(metadata))?;
            return remove(&folder.join(checkpoint::INDEX));
        }
        let (mut map, mut total) = (Map::new(), 0);
        for (i, tensors) in shards.iter().enumerate() {
            let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
            atomic::write_tensors(&folder.join(&file), owned(tensors), Some(metadata.clone()))?;
            for (name, tensor) in tensors {
                map.insert(name.clone(), file.clone().into());
                total += bytes(tensor);
            }
        }
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        write_json(&folder.join(checkpoint::INDEX), &index)?;
        // A single file from before would be preferred to the shards.
        remove(&folder.join(checkpoint::SAFETENSORS))
    }
}

/// Removes the list of an earlier, differently split set of weights, if there is one.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the old {}", path.display()))
        }
        _ => Ok(()),
    }
}

type Named<'a> = (String, &'a Tensor);

/// Consecutive tensors in groups of at most `limit` bytes; a larger tensor stands alone.
fn shards(tensors: Vec<Named<'_>>, limit: usize) -> Vec<Vec<Named<'_>>> {
    let (mut shards, mut open, mut size) = (Vec::new(), Vec::new(), 0);
    for (name, tensor) in tensors {
        let more = bytes(tensor);
        if size > 0 && size + more > limit {
            shards.push(std::mem::take(&mut open));
            size = 0;
        }
        size += more;
        open.push((name, tensor));
    }
    shards.push(open);
    shards
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

fn owned(tensors: &[Named<'_>]) -> Vec<(String, Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.clone(), (*tensor).clone())).collect()
}

/// What PyTorch calls a number format.
fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::F64 => "float64",
        _ => "float32",
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    atomic::write(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        Ok(writeln!(file)?)
    })
}
