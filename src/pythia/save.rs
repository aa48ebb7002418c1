//! Writing a model as a Hugging Face folder.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::DType;
use serde_json::json;

use super::{Config, Pythia, checkpoint};
use crate::atomic;

impl Pythia {
    /// Writes `config.json`, `model.safetensors`, `generation_config.json` and, where there is one,
    /// `tokenizer.json` into a folder, which is made if need be. Each file appears whole or not at all.
    ///
    /// # Errors
    /// Names the folder or file that cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let tensors = self.tensors().into_iter().map(|(name, tensor)| (name, tensor.clone()));
        // `transformers` refuses files that do not say so.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        atomic::write_tensors(&folder.join(checkpoint::SAFETENSORS), tensors, Some(metadata))?;
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
