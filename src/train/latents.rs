//! Filling a cache of latents from a teacher.

use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};

use crate::atomic;
use crate::data::{LatentBatch, LatentCache, LatentPlan, Tokens};
use crate::pythia::Pythia;

/// Size that a file of latents is meant to have, in bytes.
const FILE: usize = 64 << 20;

/// What to keep.
#[derive(Clone, Debug)]
pub struct LatentOptions {
    /// Boundaries whose latents are kept.
    pub boundaries: Vec<usize>,
    /// Tokens of a window.
    pub seq_len: usize,
    /// The first so many windows of the text; all of them when None.
    pub windows: Option<usize>,
    /// Format on disk: f16, bf16 or f32.
    pub dtype: DType,
    /// Windows that the teacher reads at a time.
    pub batch: usize,
}

/// Opens the cache in `folder`, after the teacher has computed what it lacks: without a graph, and only as far as the
/// last boundary. `progress` is told the windows done and of all.
///
/// # Errors
/// Boundaries that the teacher lacks, a text shorter than a window, and those of [`LatentCache::build`].
pub fn cache_latents(
    teacher: &Pythia,
    text: &dyn Tokens,
    folder: &Path,
    options: &LatentOptions,
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<LatentCache> {
    let LatentOptions { seq_len, dtype, batch, .. } = *options;
    ensure!(seq_len >= 1 && batch >= 1, "windows and batches need at least one token");
    let available = text.len() / seq_len;
    ensure!(available > 0, "the text has {} tokens, less than one window of {seq_len}", text.len());
    let windows = options.windows.map_or(available, |windows| windows.min(available));
    let mut boundaries = options.boundaries.clone();
    boundaries.sort_unstable();
    boundaries.dedup();
    let layers = teacher.config.num_hidden_layers;
    ensure!(
        boundaries.last().is_some_and(|last| *last <= layers),
        "boundaries {boundaries:?} do not lie in a teacher with boundaries 0..={layers}"
    );
    ensure!(
        matches!(dtype, DType::F16 | DType::BF16 | DType::F32),
        "latents are kept as f16, bf16 or f32, not as {}",
        dtype.as_str()
    );
    let width = teacher.config.hidden_size;
    let bytes = seq_len * width * dtype.size_in_bytes() * boundaries.len();
    let plan = LatentPlan {
        format: LatentPlan::FORMAT,
        dtype: dtype.as_str().to_owned(),
        width,
        seq_len,
        windows,
        shard_windows: (FILE / bytes).max(1),
        teacher: weights_hash(teacher)?,
        text: text_hash(text, windows * seq_len),
        boundaries: boundaries.clone(),
    };
    let compute = |first: usize, count: usize| {
        let (mut ids, mut latents) = (Vec::new(), vec![Vec::new(); boundaries.len()]);
        for start in (first..first + count).step_by(batch) {
            let rows = batch.min(first + count - start);
            let mut tokens = Vec::with_capacity(rows * seq_len);
            text.read(start * seq_len, rows * seq_len, &mut tokens);
            let part = Tensor::from_vec(tokens, (rows, seq_len), &Device::Cpu)?;
            let (mut x, mut at) = (teacher.embed(&part)?, 0);
            for (boundary, kept) in boundaries.iter().zip(&mut latents) {
                x = teacher.run(&x, at, *boundary)?;
                at = *boundary;
                kept.push(x.to_dtype(dtype)?.to_device(&Device::Cpu)?);
            }
            ids.push(part);
        }
        let latents = latents.iter().map(|parts| Ok(Tensor::cat(parts, 0)?)).collect::<Result<_>>()?;
        Ok(LatentBatch { ids: Tensor::cat(&ids, 0)?, latents })
    };
    LatentCache::build(folder, plan, compute, |done| progress(done, windows))
}

/// BLAKE3 over a model's weights.
fn weights_hash(model: &Pythia) -> Result<String> {
    let mut tensors = Vec::new();
    for (name, tensor) in model.tensors() {
        tensors.push((name, tensor.to_device(&Device::Cpu)?.contiguous()?));
    }
    atomic::checksum(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))
}

/// BLAKE3 over the first tokens of a text.
fn text_hash(text: &dyn Tokens, count: usize) -> String {
    const STRETCH: usize = 1 << 20;
    let mut hasher = blake3::Hasher::new();
    for start in (0..count).step_by(STRETCH) {
        let mut tokens = Vec::new();
        text.read(start, STRETCH.min(count - start), &mut tokens);
        let bytes: Vec<u8> = tokens.into_iter().flat_map(u32::to_le_bytes).collect();
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::TokenSet;
    use crate::pythia::Config;

    #[test]
    fn latents_are_the_teachers_and_layers_behind_them_never_run() -> Result<()> {
        let config = Config {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 4,
            num_attention_heads: 2,
            vocab_size: 31,
            initializer_range: 0.2,
            ..Config::default()
        };
        let teacher = Pythia::random(config, 7, DType::F32, &Device::Cpu)?;
        // Whatever runs the last layer gets NaN.
        let poison = teacher.layer(3).map(&mut |w| w.affine(f64::NAN, 0.0))?;
        let layers = [&teacher.layers()[..3], &[poison]].concat();
        let teacher = teacher.with_layers(layers);
        let text = TokenSet { tokens: (0..100u32).map(|i| i * 7 % 31).collect(), documents: 1, bytes: 0 };
        let options = LatentOptions {
            boundaries: vec![3, 1],
            seq_len: 12,
            windows: Some(5),
            dtype: DType::F16,
            batch: 2,
        };
        let folder = tempfile::tempdir()?;
        let cache = cache_latents(&teacher, &text, folder.path(), &options, |_, _| Ok(()))?;
        assert_eq!((cache.plan.windows, &cache.plan.boundaries[..]), (5, &[1, 3][..]));
        let batch = cache.windows(&[4, 1])?;
        for (boundary, found) in [1, 3].into_iter().zip(&batch.latents) {
            let exact = teacher.hidden(&batch.ids, boundary)?;
            let worst = (found - exact)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(worst < 2e-3, "boundary {boundary}: {worst}");
        }
        let none = LatentOptions { boundaries: vec![5], ..options };
        let error = cache_latents(&teacher, &text, folder.path(), &none, |_, _| Ok(())).err().unwrap();
        assert!(error.to_string().contains("boundaries 0..=4"), "{error}");
        Ok(())
    }
}
