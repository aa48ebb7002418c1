//! The tensors of a checkpoint, found by name and converted one at a time.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::pickle::PthTensors;
use candle_core::safetensors::{Load, MmapedSafetensors};
use candle_core::{DType, Device, Tensor};

use super::{checkpoint, mapped};

/// Prefix of the body's tensor names; files saved from the bare model lack it.
const PREFIX: &str = "gpt_neox.";

/// The open weight files of a checkpoint folder.
///
/// Only headers are read at first. Tensors that nobody asks for, such as the masks and frequencies
/// that real Pythia files carry, are never touched.
pub struct Weights {
    files: Vec<File>,
    /// Which file holds a tensor.
    place: HashMap<String, usize>,
}

struct File {
    path: PathBuf,
    content: Content,
}

enum Content {
    Safetensors(MmapedSafetensors),
    Pickle(PthTensors),
}

/// A tensor as a file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Number format, as the file format spells it (`F32`, `BF16`, …).
    pub dtype: String,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
}

impl Weights {
    /// Opens the weights of a folder: safetensors or pickle, whole or in shards.
    ///
    /// # Errors
    /// Names the file that is missing, truncated or not what its name promises.
    pub fn open(folder: &Path) -> Result<Self> {
        let files =
            checkpoint::weight_files(folder)?.into_iter().map(File::open).collect::<Result<Vec<_>>>()?;
        let mut place = HashMap::new();
        for (i, file) in files.iter().enumerate() {
            place.extend(file.names().into_iter().map(|name| (name, i)));
        }
        Ok(Self { files, place })
    }

    /// The files in use.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// What the files declare about a tensor; None if they lack it. The `gpt_neox.` prefix is optional.
    pub fn declared(&self, name: &str) -> Option<Declared> {
        let (file, name) = self.find(name)?;
        file.declared(name)
    }

    /// Reads one tensor and converts it.
    ///
    /// # Errors
    /// Names the file, the tensor, and the expected and found shape or format.
    pub fn read(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let Some((file, stored)) = self.find(name) else {
            let paths: Vec<String> = self.paths().map(|path| path.display().to_string()).collect();
            let place =
                if paths.len() == 1 { &paths[0] } else { &format!("{} shards at {}", paths.len(), paths[0]) };
            return Err(anyhow!("tensor {name} (expected shape {shape:?}) is missing in {place}"));
        };
        let path = file.path.display();
        let found =
            file.declared(stored).with_context(|| format!("{path}: cannot read the entry of {stored}"))?;
        ensure!(
            found.shape == shape,
            "{path}: tensor {stored} has the shape {:?}, but config.json asks for {shape:?}",
            found.shape
        );
        let floating = ["F64", "F32", "F16", "BF16"].contains(&found.dtype.as_str());
        ensure!(floating, "{path}: tensor {stored} holds {}, expected F32, F16 or BF16", found.dtype);
        let tensor =
            file.load(stored).with_context(|| format!("{path}: cannot read tensor {stored} {shape:?}"))?;
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }

    /// The file that holds a tensor, and the tensor's name there.
    fn find<'a>(&'a self, name: &'a str) -> Option<(&'a File, &'a str)> {
        [Some(name), name.strip_prefix(PREFIX)]
            .into_iter()
            .flatten()
            .find_map(|name| self.place.get(name).map(|&i| (&self.files[i], name)))
    }
}

impl File {
    fn open(path: PathBuf) -> Result<Self> {
        let content = Self::content(&path).with_context(|| {
            let hint = if is_lfs_pointer(&path) {
                "it is a Git LFS pointer, fetch the file itself with `git lfs pull`"
            } else {
                "the file is truncated or not what its name promises"
            };
            format!("cannot read weights from {}: {hint}", path.display())
        })?;
        Ok(Self { path, content })
    }

    fn content(path: &Path) -> candle_core::Result<Content> {
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            // SAFETY: mapped read-only and dropped when loading ends; like every reader of safetensors
            // this relies on nobody truncating the file meanwhile.
            return Ok(Content::Safetensors(unsafe { MmapedSafetensors::new(path)? }));
        }
        Ok(Content::Pickle(PthTensors::new(path, None)?))
    }

    fn names(&self) -> Vec<String> {
        match &self.content {
            Content::Safetensors(file) => file.tensors().into_iter().map(|(name, _)| name).collect(),
            Content::Pickle(file) => file.tensor_infos().keys().cloned().collect(),
        }
    }

    fn declared(&self, name: &str) -> Option<Declared> {
        match &self.content {
            Content::Safetensors(file) => {
                let view = file.get(name).ok()?;
                Some(Declared { dtype: format!("{:?}", view.dtype()), shape: view.shape().to_vec() })
            }
            Content::Pickle(file) => {
                let info = file.tensor_infos().get(name)?;
                let dtype = info.dtype.as_str().to_uppercase();
                Some(Declared { dtype, shape: info.layout.dims().to_vec() })
            }
        }
    }

    /// Reads a tensor in its own format to the CPU, so that a conversion holds only one tensor twice.
    fn load(&self, name: &str) -> Result<Tensor> {
        match &self.content {
            Content::Safetensors(file) => {
                let view = file.get(name)?;
                let tensor = view.load(&Device::Cpu)?;
                mapped::release(view.data());
                Ok(tensor)
            }
            Content::Pickle(file) => {
                file.get(name)?.context("the pickle lists it without data")?.contiguous().map_err(Into::into)
            }
        }
    }
}

fn is_lfs_pointer(path: &Path) -> bool {
    let mut start = [0; 24];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.starts_with(b"version https://git-lfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/sharded_bf16");
    const PICKLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/pickle_fp16");
    const EMBEDDING: &str = "gpt_neox.embed_in.weight";

    /// A folder with a copy of a golden case's weights, some of them damaged or renamed.
    fn copy(from: &str, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(bytes) = change(name, std::fs::read(&path).unwrap()) {
                std::fs::write(folder.path().join(name), bytes).unwrap();
            }
        }
        folder
    }

    fn read(folder: &Path, name: &str, shape: &[usize]) -> Result<Tensor> {
        Weights::open(folder)?.read(name, shape, DType::F32, &Device::Cpu)
    }

    fn refusal<T>(result: Result<T>) -> String {
        format!("{:#}", result.err().expect("a refusal"))
    }

    fn assert_parts(message: &str, parts: &[&str]) {
        parts.iter().for_each(|part| assert!(message.contains(part), "{message:?} should contain {part:?}"));
    }

    #[test]
    fn the_prefix_is_optional_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let tensor = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape((3, 2)).unwrap();
        let tensors = HashMap::from([("embed_in.weight".to_string(), tensor.to_dtype(DType::F64).unwrap())]);
        candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
        let found = read(folder.path(), EMBEDDING, &[3, 2]).unwrap();
        assert_eq!(found.to_vec2::<f32>().unwrap(), tensor.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn missing_tensors_and_wrong_shapes_name_everything() {
        let pickle = Path::new(PICKLE);
        assert_parts(
            &refusal(read(pickle, EMBEDDING, &[98, 48])),
            &["pytorch_model.bin", EMBEDDING, "[97, 48]", "[98, 48]"],
        );
        let missing = refusal(read(Path::new(SHARDED), "gpt_neox.layers.9.x.weight", &[4]));
        assert_parts(&missing, &["gpt_neox.layers.9.x.weight", "[4]", "missing", "10 shards"]);
    }

    #[test]
    fn integers_are_no_weights() {
        let folder = tempfile::tempdir().unwrap();
        let ids = Tensor::new(&[1u32, 2], &Device::Cpu).unwrap();
        let tensors = HashMap::from([("w", ids)]);
        candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
        assert_parts(&refusal(read(folder.path(), "w", &[2])), &["tensor w holds U32", "expected F32"]);
    }

    #[test]
    fn truncated_files_are_named() {
        for (case, file) in [(SHARDED, "model-00003-of-00010.safetensors"), (PICKLE, "pytorch_model.bin")] {
            for keep in [0, 7, 100, 20_000] {
                let damage = |name: &str, mut bytes: Vec<u8>| {
                    bytes.truncate(if name == file { keep } else { bytes.len() });
                    Some(bytes)
                };
                let message = refusal(Weights::open(copy(case, damage).path()));
                assert_parts(&message, &[file, "truncated"]);
            }
        }
    }

    #[test]
    fn a_missing_shard_is_named() {
        let shard = "model-00003-of-00010.safetensors";
        let folder = copy(SHARDED, |name, bytes| (name != shard).then_some(bytes));
        let message = refusal(Weights::open(folder.path()));
        assert_parts(&message, &[shard, "is missing", "model.safetensors.index.json"]);
    }

    #[test]
    fn sharded_pickles_load() {
        let index = format!(r#"{{"weight_map": {{"{EMBEDDING}": "pytorch_model-00001-of-00001.bin"}}}}"#);
        let folder = copy(PICKLE, |name, bytes| (name == "pytorch_model.bin").then_some(bytes));
        let shard = folder.path().join("pytorch_model-00001-of-00001.bin");
        std::fs::rename(folder.path().join("pytorch_model.bin"), shard).unwrap();
        std::fs::write(folder.path().join("pytorch_model.bin.index.json"), index).unwrap();
        let (sharded, whole) =
            (read(folder.path(), EMBEDDING, &[97, 48]), read(Path::new(PICKLE), EMBEDDING, &[97, 48]));
        assert_eq!(sharded.unwrap().to_vec2::<f32>().unwrap(), whole.unwrap().to_vec2::<f32>().unwrap());
    }

    #[test]
    fn a_git_lfs_pointer_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        std::fs::write(folder.path().join("model.safetensors"), pointer).unwrap();
        assert_parts(&refusal(Weights::open(folder.path())), &["model.safetensors", "Git LFS pointer"]);
    }
}
