//! Checkpoints on disk: whole or absent, checksummed, the last few kept and the best.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::atomic;

const FORMAT: u32 = 1;
/// The key of the header's metadata that holds [`Header`].
const KEY: &str = "lft";
const BEST: &str = "best.json";

/// Where checkpoints go, and how many stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// A folder of this training alone.
    pub dir: PathBuf,
    /// Steps between two checkpoints; the last step is always saved.
    pub every: usize,
    /// The newest so many stay.
    pub keep: usize,
    /// Whether the one with the lowest score stays too.
    pub best: bool,
}

/// What a checkpoint holds: everything that the steps to come depend on.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Steps taken.
    pub step: usize,
    /// Lower is better; decides which is the best.
    pub score: Option<f64>,
    /// Describes model, data and options: another training must not go on from here.
    pub fingerprint: String,
    /// Weights, moments and history.
    pub tensors: Vec<(String, Tensor)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    step: usize,
    score: Option<f64>,
    fingerprint: String,
    /// Of all tensors, in the order of their names.
    blake3: String,
}

/// The checkpoints of one training.
#[derive(Debug)]
pub struct Checkpoints {
    options: CheckpointOptions,
    /// Steps on disk, ascending, each with its score.
    present: Vec<(usize, Option<f64>)>,
}

impl Checkpoints {
    /// Opens the folder, makes it if need be, and clears away what a killed process left half written.
    ///
    /// # Errors
    /// A folder that cannot be made, read or written.
    pub fn open(options: CheckpointOptions) -> Result<Self> {
        ensure!(options.every >= 1, "checkpoint: every = 0, but must be at least 1");
        ensure!(options.keep >= 1, "checkpoint: keep = 0, but must be at least 1");
        let dir = &options.dir;
        let what = || format!("checkpoint: cannot use the folder {}", dir.display());
        fs::create_dir_all(dir).with_context(what)?;
        let mut present = Vec::new();
        for entry in fs::read_dir(dir).with_context(what)? {
            let path = entry.with_context(what)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(".lft-") || name.starts_with(".tmp") {
                fs::remove_file(&path).with_context(what)?;
            } else if let Some(step) = step_of(&name) {
                present.push((step, header(&path).ok().and_then(|header| header.score)));
            }
        }
        present.sort_by_key(|(step, _)| *step);
        Ok(Self { options, present })
    }

    /// Whether a step is one after which the training is saved.
    pub fn due(&self, step: usize, last: usize) -> bool {
        step == last || step.is_multiple_of(self.options.every)
    }

    /// Whether there is anything to go on from.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Steps between two checkpoints.
    pub fn every(&self) -> usize {
        self.options.every
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Writes a checkpoint, and then removes those that need not stay.
    ///
    /// # Errors
    /// When it cannot be written, on a full disk say; those before it are intact then.
    pub fn save(&mut self, saved: &Saved) -> Result<()> {
        let what = || format!("cannot save the checkpoint of step {}", saved.step);
        let mut tensors = Vec::with_capacity(saved.tensors.len());
        for (name, tensor) in &saved.tensors {
            tensors.push((name.clone(), tensor.to_device(&Device::Cpu)?.contiguous()?));
        }
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        let header = Header {
            format: FORMAT,
            step: saved.step,
            score: saved.score,
            fingerprint: saved.fingerprint.clone(),
            blake3: atomic::checksum(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?,
        };
        let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&header)?)]);
        atomic::write_tensors(&self.path(saved.step), tensors, Some(metadata)).with_context(what)?;
        self.present.retain(|(step, _)| *step != saved.step);
        self.present.push((saved.step, saved.score));
        self.present.sort_by_key(|(step, _)| *step);
        self.tidy().with_context(what)
    }

    fn tidy(&mut self) -> Result<()> {
        let best = self.best().filter(|_| self.options.best);
        if let Some((step, score)) = best {
            let text = format!("{{\"step\": {step}, \"score\": {score:?}}}\n");
            atomic::write(&self.options.dir.join(BEST), |file| Ok(file.write_all(text.as_bytes())?))?;
        }
        let newest = self.present.len().saturating_sub(self.options.keep);
        let (old, kept) = self.present.split_at(newest);
        let (stays, goes): (Vec<_>, Vec<_>) =
            old.iter().partition(|(step, _)| best.is_some_and(|b| b.0 == *step));
        for (step, _) in &goes {
            let path = self.path(*step);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        self.present = [stays, kept.to_vec()].concat();
        Ok(())
    }

    /// The step with the lowest score, the earliest of equals.
    pub fn best(&self) -> Option<(usize, f64)> {
        let scored = self.present.iter().filter_map(|(step, score)| Some((*step, (*score)?)));
        scored.filter(|(_, score)| score.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The newest checkpoint that is whole; damaged ones are passed over, and `warn` is told of them.
    ///
    /// # Errors
    /// When there are checkpoints but none is whole, or the newest belongs to another training.
    pub fn latest(&self, fingerprint: &str, mut warn: impl FnMut(&str)) -> Result<Option<Saved>> {
        for (step, _) in self.present.iter().rev() {
            let path = self.path(*step);
            match read(&path) {
                Ok(saved) => {
                    ensure!(
                        saved.fingerprint == fingerprint,
                        "{} belongs to another training and cannot be resumed by this one.\nthere: {}\nhere:  {fingerprint}",
                        path.display(),
                        saved.fingerprint
                    );
                    return Ok(Some(saved));
                }
                Err(error) => warn(&format!("{error:#}; going back to the checkpoint before it")),
            }
        }
        match self.is_empty() {
            true => Ok(None),
            false => Err(anyhow!("no checkpoint in {} is whole", self.options.dir.display())),
        }
    }

    fn path(&self, step: usize) -> PathBuf {
        self.options.dir.join(format!("step-{step:09}.safetensors"))
    }
}

fn step_of(name: &str) -> Option<usize> {
    name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()
}

fn header(path: &Path) -> Result<Header> {
    let what = || format!("{} is no whole checkpoint", path.display());
    let mut file = fs::File::open(path).with_context(what)?;
    let mut length = [0; 8];
    std::io::Read::read_exact(&mut file, &mut length).with_context(what)?;
    let length = u64::from_le_bytes(length);
    ensure!(length <= file.metadata().with_context(what)?.len(), what());
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, length), &mut text).with_context(what)?;
    let json: serde_json::Value = serde_json::from_slice(&text).with_context(what)?;
    let own = json["__metadata__"][KEY].as_str().with_context(what)?;
    let header: Header = serde_json::from_str(own).with_context(what)?;
    ensure!(
        header.format == FORMAT,
        "{} has format {}, this program reads format {FORMAT}",
        path.display(),
        header.format
    );
    Ok(header)
}

fn read(path: &Path) -> Result<Saved> {
    let header = header(path)?;
    let what = || format!("{} is no whole checkpoint", path.display());
    let bytes = fs::read(path).with_context(what)?;
    SafeTensors::deserialize(&bytes).with_context(what)?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).with_context(what)?;
    let mut tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let found = atomic::checksum(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
    ensure!(found == header.blake3, "{}: its checksum differs", what());
    Ok(Saved { step: header.step, score: header.score, fingerprint: header.fingerprint, tensors })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(step: usize, score: f64) -> Saved {
        let tensor = Tensor::new(&[step as f32, 2.0], &Device::Cpu).unwrap();
        let tensors = vec![("w".to_owned(), tensor.clone()), ("a".to_owned(), (tensor * 2.0).unwrap())];
        Saved { step, score: Some(score), fingerprint: "this".to_owned(), tensors }
    }

    fn open(dir: &Path, keep: usize, best: bool) -> Result<Checkpoints> {
        Checkpoints::open(CheckpointOptions { dir: dir.to_owned(), every: 10, keep, best })
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_last_and_the_best_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = open(folder.path(), 2, true).unwrap();
        for (step, score) in [(10, 3.0), (20, 1.0), (30, 2.0), (40, 2.5), (50, f64::NAN)] {
            checkpoints.save(&saved(step, score)).unwrap();
        }
        let expected = [
            "best.json",
            "step-000000020.safetensors",
            "step-000000040.safetensors",
            "step-000000050.safetensors",
        ];
        assert_eq!(names(folder.path()), expected);
        assert_eq!(
            fs::read_to_string(folder.path().join("best.json")).unwrap(),
            "{\"step\": 20, \"score\": 1.0}\n"
        );
        let again = open(folder.path(), 2, true).unwrap();
        assert_eq!(again.best(), Some((20, 1.0)));
        let latest = again.latest("this", |_| ()).unwrap().unwrap();
        assert_eq!(latest.step, 50);
        assert_eq!(latest.tensors[1].1.to_vec1::<f32>().unwrap(), [50.0, 2.0]);
        assert!(again.due(60, 99) && again.due(99, 99) && !again.due(61, 99));
    }

    #[test]
    fn damage_is_passed_over_and_leftovers_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = open(folder.path(), 3, false).unwrap();
        assert!(checkpoints.latest("this", |_| ()).unwrap().is_none());
        for step in [10, 20, 30] {
            checkpoints.save(&saved(step, 1.0)).unwrap();
        }
        fs::write(folder.path().join(".tmpXyz"), "half").unwrap();
        fs::write(folder.path().join(".lft-a.tmp"), "half").unwrap();
        let newest = folder.path().join("step-000000030.safetensors");
        let mut bytes = fs::read(&newest).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&newest, &bytes).unwrap();
        let middle = folder.path().join("step-000000020.safetensors");
        fs::write(&middle, &fs::read(&middle).unwrap()[..60]).unwrap();
        let again = open(folder.path(), 3, false).unwrap();
        let mut warnings = Vec::new();
        let latest = again.latest("this", |warning| warnings.push(warning.to_owned())).unwrap().unwrap();
        assert_eq!(latest.step, 10);
        assert!(warnings[0].contains("step-000000030") && warnings[0].contains("checksum"), "{warnings:?}");
        assert!(warnings[1].contains("step-000000020"), "{warnings:?}");
        assert!(!names(folder.path()).iter().any(|name| name.starts_with('.')));
    }

    #[test]
    fn another_training_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 1, false).unwrap().save(&saved(10, 1.0)).unwrap();
        let error = open(folder.path(), 1, false).unwrap().latest("that", |_| ()).unwrap_err().to_string();
        assert!(error.contains("another training") && error.contains("there: this"), "{error}");
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = format!("{:#}", open(&file, 1, false).unwrap_err());
        assert!(error.contains("cannot use the folder") && error.contains("file"), "{error}");
    }
}
