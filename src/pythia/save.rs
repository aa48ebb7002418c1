//! Writing a model as a Hugging Face folder.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Tensor};
use serde_json::json;

use super::{Config, Pythia, checkpoint};

impl Pythia {
    /// Writes `config.json`, `model.safetensors`, `generation_config.json` and, where there is one,
    /// `tokenizer.json` into a folder, which is made if need be. Each file appears whole or not at all.
    ///
    /// # Errors
    /// Names the folder or file that cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        replace(&folder.join(checkpoint::SAFETENSORS), |temporary| self.write_weights(temporary))?;
        if let Some(tokenizer) = &self.tokenizer {
            let text =
                tokenizer.to_string(false).map_err(|error| anyhow!("cannot write the tokenizer: {error}"))?;
            replace(&folder.join(checkpoint::TOKENIZER), |temporary| Ok(fs::write(temporary, &text)?))?;
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

    fn write_weights(&self, path: &Path) -> Result<()> {
        let tensors: Vec<(String, Tensor)> = self
            .tensors()
            .into_iter()
            // Contiguous here, because a failure inside the writer would be a panic.
            .map(|(name, tensor)| Ok((name, tensor.contiguous()?)))
            .collect::<Result<_>>()?;
        // `transformers` refuses files that do not say so.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        Ok(safetensors::serialize_to_file(tensors, Some(metadata), path)?)
    }
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
    let text = serde_json::to_string_pretty(value)? + "\n";
    replace(path, |temporary| Ok(fs::write(temporary, &text)?))
}

/// Writes a file under a temporary name beside its place and renames it when it is whole.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fill(&temporary, write).and_then(|()| Ok(fs::rename(&temporary, path)?));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn fill(temporary: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    // The writer of safetensors makes files that only their owner may read; this one is as any new file.
    let ordinary = fs::File::create(temporary)?.metadata()?.permissions();
    write(temporary)?;
    fs::set_permissions(temporary, ordinary)?;
    Ok(fs::File::open(temporary)?.sync_all()?)
}
