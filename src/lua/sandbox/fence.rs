//! Which files a script may touch: those under a few folders, wherever links lead.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{fs, path};

use anyhow::{Context, Result, bail, ensure};

/// A fence around folders.
#[derive(Clone, Debug)]
pub struct Fence {
    folders: Vec<PathBuf>,
}

impl Fence {
    /// A fence around the given folders, whose paths hold no links.
    pub fn around(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { folders: folders.into_iter().collect() }
    }

    /// The folders.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Where `path` leads, which may be something yet to be made.
    ///
    /// # Errors
    /// When that is outside.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        let found = resolve(path).with_context(|| format!("{} is closed in the sandbox", path.display()))?;
        ensure!(
            self.holds(&found),
            "{} is outside of what the sandbox opens: {}",
            path.display(),
            self.folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(" and ")
        );
        Ok(found)
    }

    /// As [`Fence::file`] for a path that may be a folder: what lies in it must be inside as well, since a model or
    /// a student is read and written file by file.
    ///
    /// # Errors
    /// When `path`, or a link in the folder, leads outside.
    pub fn path(&self, path: impl AsRef<Path>) -> Result<()> {
        let found = self.file(path)?;
        if !found.is_dir() {
            return Ok(());
        }
        let what = || format!("cannot read the folder {}", found.display());
        for entry in fs::read_dir(&found).with_context(what)? {
            let entry = entry.with_context(what)?;
            // Folders that links lead to are not entered, so that this comes to an end.
            match entry.file_type().with_context(what)?.is_dir() {
                true => self.path(entry.path())?,
                false => drop(self.file(entry.path())?),
            }
        }
        Ok(())
    }

    fn holds(&self, path: &Path) -> bool {
        self.folders.iter().any(|folder| path.starts_with(folder))
    }
}

/// The path without links and `..`: the part that exists as the system resolves it, the rest as it is written.
fn resolve(path: &Path) -> Result<PathBuf> {
    ensure!(!path.as_os_str().as_encoded_bytes().contains(&0), "the name holds a zero byte");
    let mut here = path::absolute(path).context("the name is empty")?;
    let mut missing: Vec<Box<OsStr>> = Vec::new();
    loop {
        match fs::canonicalize(&here) {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |path, name| path.join(name.as_ref()))),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Err(_) if fs::symlink_metadata(&here).is_ok() => bail!("{} is a broken link", here.display()),
            Err(_) => {}
        }
        let name = here.file_name().context("`..` follows a folder that does not exist")?;
        missing.push(name.into());
        ensure!(here.pop(), "there is no such folder");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk() -> (tempfile::TempDir, Fence) {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("inside");
        fs::create_dir_all(inside.join("folder")).unwrap();
        fs::write(root.path().join("secret"), "").unwrap();
        fs::write(root.path().join("inside-too"), "").unwrap();
        let fence = Fence::around([inside.canonicalize().unwrap()]);
        (root, fence)
    }

    #[test]
    fn paths_are_taken_for_where_they_lead() {
        let (root, fence) = desk();
        let at = |path: &str| fence.file(root.path().join(path));
        for inside in
            ["inside", "inside/new", "inside/a/b/c", "inside/folder/../x", "inside/./x", "inside/../inside/x"]
        {
            assert!(at(inside).is_ok(), "{inside}");
        }
        for outside in [
            "secret",
            "inside-too",
            "inside/../secret",
            "inside/folder/../../new",
            "new",
            "inside/new/../../secret",
        ] {
            assert!(at(outside).is_err(), "{outside}");
        }
        for path in ["", "/", "/etc/passwd", "/dev/stdin", "/proc/self/environ", "inside\0"] {
            assert!(fence.file(path).is_err(), "{path:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_where_they_point() {
        use std::os::unix::fs::symlink;
        let (root, fence) = desk();
        let at = |path: &str| root.path().join(path);
        symlink(at("secret"), at("inside/link")).unwrap();
        symlink(at("nowhere"), at("inside/broken")).unwrap();
        symlink(root.path(), at("inside/up")).unwrap();
        symlink(at("inside/folder"), at("inside/fine")).unwrap();
        for outside in ["inside/link", "inside/broken", "inside/up", "inside/up/secret", "inside/up/new"] {
            assert!(fence.file(at(outside)).is_err(), "{outside}");
        }
        assert_eq!(fence.file(at("inside/fine/x")).unwrap(), fence.folders()[0].join("folder/x"));
        // A folder is as open as what lies in it.
        assert!(fence.file(at("inside")).is_ok() && fence.path(at("inside")).is_err());
        assert!(fence.path(at("inside/folder")).is_ok());
        fs::create_dir(at("inside/deep")).unwrap();
        fs::create_dir(at("inside/deep/deeper")).unwrap();
        symlink(at("inside/deep"), at("inside/deep/loop")).unwrap();
        assert!(fence.path(at("inside/deep")).is_ok());
        symlink(at("secret"), at("inside/deep/deeper/link")).unwrap();
        assert!(fence.path(at("inside/deep")).is_err());
    }
}
