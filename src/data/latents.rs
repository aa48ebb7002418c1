//! Latents of a teacher on disk, computed once and read by many trainings.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::Permutation;
use crate::atomic;

const FORMAT: u32 = 1;
const PLAN: &str = "latents.json";
const IDS: &str = "ids";
const CHECKSUM: &str = "blake3";

/// Everything that decides what a cache holds. A folder belongs to one plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatentPlan {
    /// Version of the layout.
    pub format: u32,
    /// Boundaries whose latents are kept, ascending.
    pub boundaries: Vec<usize>,
    /// Format of the latents: `f16`, `bf16` or `f32`.
    pub dtype: String,
    /// Residual width D.
    pub width: usize,
    /// Tokens T of a window.
    pub seq_len: usize,
    /// Number of windows.
    pub windows: usize,
    /// Windows in a file; the last may hold fewer.
    pub shard_windows: usize,
    /// BLAKE3 over the teacher's weights.
    pub teacher: String,
    /// Which text: BLAKE3 over the tokens of the windows.
    pub text: String,
}

impl LatentPlan {
    /// Version of the layout that this program writes.
    pub const FORMAT: u32 = FORMAT;

    fn dtype(&self) -> Result<DType> {
        self.dtype.parse().map_err(|_| anyhow!("{} is no format of latents", self.dtype))
    }

    fn shards(&self) -> usize {
        self.windows.div_ceil(self.shard_windows)
    }
}

/// A cache whose files are complete.
pub struct LatentCache {
    /// What it holds.
    pub plan: LatentPlan,
    folder: PathBuf,
    shards: Vec<Shard>,
}

/// One file in memory, with the places of its tensors.
struct Shard {
    bytes: Mmap,
    ids: usize,
    latents: Vec<usize>,
}

/// Some windows with their latents.
#[derive(Clone, Debug)]
pub struct LatentBatch {
    /// (B, T) of u32.
    pub ids: Tensor,
    /// (B, T, D) in f32 for each boundary of the plan, in its order.
    pub latents: Vec<Tensor>,
}

impl LatentCache {
    /// Opens a cache of this plan, after computing the files that it lacks. `compute(first, count)` gives the windows
    /// `first..first + count` with their latents in any format, on any device; `progress` is told the windows done.
    ///
    /// # Errors
    /// A folder of another plan or one that cannot be written, and those of `compute`; complete files stay.
    pub fn build(
        folder: &Path,
        plan: LatentPlan,
        mut compute: impl FnMut(usize, usize) -> Result<LatentBatch>,
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        ensure!(plan.windows > 0, "a cache of latents needs at least one window");
        claim(folder, &plan)?;
        let dtype = plan.dtype()?;
        for shard in 0..plan.shards() {
            let path = file(folder, shard);
            let first = shard * plan.shard_windows;
            let count = plan.shard_windows.min(plan.windows - first);
            if !path.is_file() {
                let LatentBatch { ids, latents } = compute(first, count)?;
                let mut tensors = vec![(IDS.to_owned(), ids.to_device(&Device::Cpu)?.contiguous()?)];
                for (boundary, x) in plan.boundaries.iter().zip(&latents) {
                    let x = x.to_dtype(dtype)?.to_device(&Device::Cpu)?.contiguous()?;
                    tensors.push((name(*boundary), x));
                }
                tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
                let sum = atomic::checksum(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
                atomic::write_tensors(&path, tensors, Some([(CHECKSUM.to_owned(), sum)].into()))?;
            }
            progress(first + count)?;
        }
        Self::open(folder)
    }

    /// Opens a complete cache. Sizes are checked, checksums by [`LatentCache::verify`].
    ///
    /// # Errors
    /// A folder that is none, and files that are missing or of another size.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(PLAN);
        let text = fs::read(&path)
            .with_context(|| format!("{} holds no latents: cannot read {PLAN}", folder.display()))?;
        let plan: LatentPlan =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        ensure!(
            plan.format == FORMAT,
            "{} has format {}, this program reads format {FORMAT}",
            path.display(),
            plan.format
        );
        let shards = (0..plan.shards()).map(|shard| {
            let path = file(folder, shard);
            let count = plan.shard_windows.min(plan.windows - shard * plan.shard_windows);
            Shard::open(&path, &plan, count)
                .with_context(|| format!("cannot read latents from {}", path.display()))
        });
        Ok(Self { shards: shards.collect::<Result<_>>()?, folder: folder.to_owned(), plan })
    }

    /// Reads everything and compares the checksums.
    ///
    /// # Errors
    /// Names the first file that was changed.
    pub fn verify(&self) -> Result<()> {
        (0..self.shards.len()).into_par_iter().try_for_each(|shard| {
            let path = file(&self.folder, shard);
            let bytes = &self.shards[shard].bytes;
            let (_, header) = SafeTensors::read_metadata(bytes)?;
            let said = header.metadata().as_ref().and_then(|entries| entries.get(CHECKSUM));
            let mut tensors: Vec<_> =
                candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?.into_iter().collect();
            tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
            let found = atomic::checksum(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
            ensure!(said == Some(&found), "{} is damaged: the checksum differs", path.display());
            Ok(())
        })
    }

    /// The windows of a training step: every window once an epoch, in an order that the seed decides.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn batch(&self, step: u64, batch: usize, seed: u64) -> Result<LatentBatch> {
        let count = self.plan.windows as u64;
        let windows = (0..batch as u64).map(|row| {
            let index = step * batch as u64 + row;
            Permutation::new(count, seed, index / count).at(index % count) as usize
        });
        self.windows(&windows.collect::<Vec<_>>())
    }

    /// Some windows by their numbers.
    ///
    /// # Errors
    /// When there is no memory for them.
    ///
    /// # Panics
    /// If a window does not exist.
    pub fn windows(&self, windows: &[usize]) -> Result<LatentBatch> {
        let LatentPlan { seq_len, width, shard_windows, .. } = self.plan;
        let dtype = self.plan.dtype()?;
        let stack = |start: &dyn Fn(&Shard) -> usize, row: usize| {
            let mut bytes = Vec::with_capacity(windows.len() * row);
            for &window in windows {
                let shard = &self.shards[window / shard_windows];
                let from = start(shard) + window % shard_windows * row;
                bytes.extend_from_slice(&shard.bytes[from..from + row]);
            }
            bytes
        };
        let ids = stack(&|shard| shard.ids, seq_len * 4);
        let ids = Tensor::from_raw_buffer(&ids, DType::U32, &[windows.len(), seq_len], &Device::Cpu)?;
        let latents = (0..self.plan.boundaries.len()).map(|i| {
            let bytes = stack(&|shard| shard.latents[i], seq_len * width * dtype.size_in_bytes());
            let shape = [windows.len(), seq_len, width];
            Ok(Tensor::from_raw_buffer(&bytes, dtype, &shape, &Device::Cpu)?.to_dtype(DType::F32)?)
        });
        Ok(LatentBatch { ids, latents: latents.collect::<Result<_>>()? })
    }
}

impl Shard {
    fn open(path: &Path, plan: &LatentPlan, count: usize) -> Result<Self> {
        let file = File::open(path)?;
        // SAFETY: mapped read-only; like every reader of safetensors this relies on nobody truncating the file.
        let bytes = unsafe { Mmap::map(&file)? };
        let parsed = SafeTensors::deserialize(&bytes)?;
        let place = |name: &str, shape: &[usize]| {
            let view = parsed.tensor(name)?;
            ensure!(
                view.shape() == shape,
                "{name} has the shape {:?}, but should have {shape:?}",
                view.shape()
            );
            Ok(view.data().as_ptr().addr() - bytes.as_ptr().addr())
        };
        let ids = place(IDS, &[count, plan.seq_len])?;
        let shape = [count, plan.seq_len, plan.width];
        let latents = plan.boundaries.iter().map(|boundary| place(&name(*boundary), &shape));
        let latents = latents.collect::<Result<_>>()?;
        Ok(Self { ids, latents, bytes })
    }
}

fn claim(folder: &Path, plan: &LatentPlan) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join(PLAN);
    if !path.exists() {
        return atomic::write(&path, |file| Ok(serde_json::to_writer_pretty(file, plan)?));
    }
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let other: LatentPlan =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    ensure!(
        other == *plan,
        "{} holds latents of another teacher, text or form: choose an empty folder, or delete this one.\nthere: {other:?}\nhere:  {plan:?}",
        folder.display()
    );
    Ok(())
}

fn name(boundary: usize) -> String {
    format!("boundary.{boundary}")
}

pub(super) fn file(folder: &Path, shard: usize) -> PathBuf {
    folder.join(format!("{shard:05}.safetensors"))
}
