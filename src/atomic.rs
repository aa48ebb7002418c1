//! Whole-file writes: readers see the old file or the new one, never a part.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Tensor;
use safetensors::View;
use tempfile::NamedTempFile;

/// Writes `path` by filling a temporary file in the same folder and renaming it into place.
///
/// A symbolic link is followed, and something that is not a plain file (a device, a pipe) is written
/// to directly, since renaming would replace the thing itself.
///
/// # Errors
/// When the folder is missing or cannot be written, or `fill` fails; the file at `path` is then as before.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    if fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        let mut device = File::create(path).with_context(what)?;
        return fill(&mut device);
    }
    replace(path, |temporary| {
        let mut writer = BufWriter::new(temporary.as_file());
        fill(&mut writer)?;
        Ok(writer.flush()?)
    })
    .with_context(what)
}

/// Writes named tensors as a safetensors file, whole or not at all. `metadata` stands in its header.
///
/// # Errors
/// When the folder is missing or cannot be written, or a tensor cannot be read; the file at `path` is then as
/// before.
pub fn write_tensors(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    // Contiguous here, because a failure inside the writer would be a panic.
    let tensors = tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.contiguous()?)));
    let tensors: Vec<(String, Tensor)> = tensors.collect::<Result<_>>().with_context(what)?;
    replace(path, |temporary| {
        let permissions = temporary.as_file().metadata()?.permissions();
        safetensors::serialize_to_file(tensors, metadata, temporary.path())?;
        // That writer puts a file of its own in place, which only its owner may read.
        fs::set_permissions(temporary.path(), permissions)?;
        *temporary.as_file_mut() = File::open(temporary.path())?;
        Ok(())
    })
    .with_context(what)
}

/// BLAKE3 over names, formats, shapes and values of contiguous tensors on the CPU, in hexadecimal.
///
/// # Errors
/// None for such tensors.
pub fn checksum<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in tensors {
        hasher.update(format!("{name} {:?} {:?}\n", tensor.dtype(), tensor.dims()).as_bytes());
        hasher.update(&View::data(&tensor));
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Fills a temporary file beside `path` and renames it into place.
fn replace(path: &Path, fill: impl FnOnce(&mut NamedTempFile) -> Result<()>) -> Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut temporary = temporary_beside(&target)?;
    fill(&mut temporary)?;
    temporary.as_file().sync_all()?;
    temporary.persist(&target).map_err(|e| e.error)?;
    Ok(())
}

fn temporary_beside(target: &Path) -> std::io::Result<NamedTempFile> {
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lft-").suffix(".tmp");
    // Temporary files are private by default; a results file gets the permissions of any new file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        for text in ["first", "second"] {
            write(&path, |w| Ok(w.write_all(text.as_bytes())?)).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_failing_writer_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "old").unwrap();
        let error = write(&path, |w| {
            w.write_all(b"half")?;
            anyhow::bail!("the writer broke")
        })
        .unwrap_err();
        assert!(format!("{error:#}").contains("a.txt"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write(Path::new("/no/such/folder/a.txt"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder/a.txt"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_stay_devices() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(&link, |w| Ok(w.write_all(b"new")?)).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        write(Path::new("/dev/null"), |w| Ok(w.write_all(b"gone")?)).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        write(&at("ours"), |_| Ok(())).unwrap();
        write_tensors(&at("tensors"), [], None).unwrap();
        fs::write(at("plain"), "").unwrap();
        let mode = |name| fs::metadata(at(name)).unwrap().permissions().mode();
        assert_eq!(mode("ours"), mode("plain"));
        assert_eq!(mode("tensors"), mode("plain"));
        assert_eq!(names(folder.path()), ["ours", "plain", "tensors"]);
    }

    #[test]
    fn tensors_of_any_layout_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let device = candle_core::Device::Cpu;
        let tensor = Tensor::arange(0f32, 6f32, &device).unwrap().reshape((2, 3)).unwrap().t().unwrap();
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        write_tensors(&path, [("x".to_owned(), tensor.clone())], Some(metadata)).unwrap();
        let read = candle_core::safetensors::load(&path, &device).unwrap();
        assert_eq!(read["x"].to_vec2::<f32>().unwrap(), tensor.to_vec2::<f32>().unwrap());
    }
}
