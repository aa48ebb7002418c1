//! What a checkpoint holds, without loading it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::config::Parameters;
use super::weights::Weights;
use super::{Config, checkpoint, hub, tokenizer};

/// The numbers behind `lft info`.
#[derive(Clone, Debug)]
pub struct Info {
    /// The folder that was looked at.
    pub folder: PathBuf,
    /// The architecture: layers, width, heads and the rest.
    pub config: Config,
    /// Weights of the model and of its parts.
    pub parameters: Parameters,
    /// Number formats of the embedding and the layers as the weight files store them (`BF16`), each once.
    pub dtypes: Vec<String>,
    /// Weight files with their sizes in bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// Tokens that the tokenizer knows, added ones included; None without a tokenizer.
    pub tokenizer_size: Option<usize>,
}

impl Info {
    /// Reads a folder or a model of the hub; only headers of the weights are looked at.
    ///
    /// # Errors
    /// Those of loading the model, up to the weights' headers.
    pub fn read(path_or_hub_id: &str) -> Result<Self> {
        let folder = hub::resolve(path_or_hub_id)?;
        let config = Config::read(&folder.join(checkpoint::CONFIG))?;
        let tokenizer = tokenizer::load(&folder, config.vocab_size)?;
        let weights = Weights::open(&folder)?;
        let files = weights
            .paths()
            .map(|path| {
                let size =
                    std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
                Ok((path.to_path_buf(), size.len()))
            })
            .collect::<Result<_>>()?;
        let parameters = config.parameters();
        let tokenizer_size = tokenizer.map(|tokenizer| tokenizer.get_vocab_size(true));
        Ok(Self { dtypes: dtypes(&weights, &config), folder, config, parameters, files, tokenizer_size })
    }

    /// Bytes of all weight files.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes that the weights take in memory with `bytes` per number: 4 for f32, 2 for bf16 and f16.
    pub fn memory_bytes(&self, bytes: usize) -> usize {
        self.parameters.total * bytes
    }
}

fn dtypes(weights: &Weights, config: &Config) -> Vec<String> {
    let layers =
        (0..config.num_hidden_layers).map(|i| format!("gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight"));
    let names = std::iter::once("gpt_neox.embed_in.weight".to_string()).chain(layers);
    let mut found: Vec<String> =
        names.filter_map(|name| weights.declared(&name)).map(|declared| declared.dtype).collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_the_embedded_teacher() {
        let info = Info::read(concat!(env!("CARGO_MANIFEST_DIR"), "/data/teacher")).unwrap();
        assert_eq!(info.parameters.total, 5_807_360);
        assert_eq!(info.parameters.non_embedding, 24 * info.parameters.per_layer + 2 * 128);
        assert_eq!((info.config.num_hidden_layers, info.tokenizer_size), (24, Some(4096)));
        assert_eq!(info.dtypes, ["BF16"]);
        assert_eq!((info.files.len(), info.file_bytes()), (1, 11_647_424));
        assert_eq!((info.memory_bytes(4), info.memory_bytes(2)), (23_229_440, 11_614_720));
    }
}
