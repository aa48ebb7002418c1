//! Saving and loading a trained velocity field.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::velocity::compute_dtype;
use super::{Block, Extras, VelocityField};
use crate::atomic;
use crate::pythia::{Config, Pythia};

const WEIGHTS: &str = "velocity.safetensors";
const DESCRIPTION: &str = "lft.json";
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Description {
    format: u32,
    block: Block,
    #[serde(default)]
    extras: Extras,
    teacher: Config,
}

impl VelocityField {
    /// Writes `velocity.safetensors` and `lft.json` into a folder, each whole and then renamed into place.
    ///
    /// # Errors
    /// If the folder cannot be made or written.
    pub fn save(&self, folder: &Path, teacher: &Config) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let tensors = self.parameters().iter().map(|(name, v)| (name.clone(), v.as_tensor().clone()));
        atomic::write_tensors(&folder.join(WEIGHTS), tensors, None)?;
        let description = Description {
            format: FORMAT,
            block: self.block(),
            extras: self.extras(),
            teacher: teacher.clone(),
        };
        atomic::write(&folder.join(DESCRIPTION), |file| Ok(serde_json::to_writer_pretty(file, &description)?))
    }

    /// Reads what [`save`](Self::save) wrote, for use with `teacher`.
    ///
    /// # Errors
    /// If a file is missing or broken, or was trained on a teacher of another shape.
    pub fn load(folder: &Path, teacher: &Pythia) -> Result<Self> {
        let path = folder.join(DESCRIPTION);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let description: Description = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a description of a velocity field", path.display()))?;
        ensure!(
            description.format == FORMAT,
            "{} has format {}, this program reads format {FORMAT}",
            path.display(),
            description.format
        );
        let Block { m, n } = description.block;
        let block = Block::new(m, n, teacher.config.num_hidden_layers)?;
        let path = folder.join(WEIGHTS);
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let (extras, compute) = (description.extras, compute_dtype(teacher));
        Self::assemble(&teacher.config, block, extras, teacher.device(), compute, |name, shape| {
            let Some(tensor) = tensors.get(name) else { bail!("{} holds no {name}", path.display()) };
            ensure!(
                tensor.dims() == shape,
                "{}: {name} has shape {:?}, but this teacher needs {shape:?}",
                path.display(),
                tensor.dims()
            );
            Ok(tensor.to_device(teacher.device())?)
        })
    }
}
