//! What was learnt of many small files, kept between commands.
//!
//! Opening ten thousand files costs a second; asking for their sizes and times of change costs some hundredths.
//! A memo keeps what a file told as long as both are the same. It is a cache: losing it costs time only.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::atomic;

/// A memo is written when at least this many files were new to it; fewer are as quickly read again. So small
/// runs folders never get one.
pub(super) const WORTHWHILE: usize = 256;

/// A file that changed this recently could change again without its time of change moving on.
const SETTLED: Duration = Duration::from_secs(2);

/// Size and time of change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Nanoseconds since 1970.
    changed: u64,
    pub bytes: u64,
}

impl Stamp {
    /// `None` when there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self { changed: u64::try_from(changed.as_nanos()).ok()?, bytes: metadata.len() })
    }

    pub fn is_settled(self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_nanos(self.changed)) > SETTLED
    }
}

/// What files told, by their keys.
#[derive(Debug)]
pub(super) struct Memo<V> {
    path: PathBuf,
    kept: Kept<V>,
    indices: HashMap<String, usize>,
    learnt: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept<V> {
    /// Version of the program that wrote it; others start anew.
    version: String,
    /// Texts that many files share, stored once.
    texts: Vec<String>,
    files: HashMap<String, (Stamp, V)>,
}

impl<V: Serialize + DeserializeOwned> Memo<V> {
    /// Reads the memo `name` of a runs folder; one that is missing, broken or of another version is empty.
    pub fn open(root: &Path, name: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let path = root.join(format!(".lft-{name}.json"));
        let read = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Kept<V>>(&bytes).ok());
        let kept = read.filter(|kept| kept.version == version).unwrap_or_else(|| Kept {
            version: version.to_owned(),
            texts: vec![],
            files: HashMap::new(),
        });
        let indices = kept.texts.iter().enumerate().map(|(i, text)| (text.clone(), i)).collect();
        Self { path, kept, indices, learnt: 0 }
    }

    /// What the file told when it had this stamp.
    pub fn get(&self, key: &str, stamp: Stamp) -> Option<&V> {
        self.kept.files.get(key).filter(|(then, _)| *then == stamp).map(|(_, value)| value)
    }

    pub fn learn(&mut self, key: String, stamp: Stamp, value: V) {
        if stamp.is_settled() {
            self.kept.files.insert(key, (stamp, value));
            self.learnt += 1;
        }
    }

    /// The index of a text that many files share.
    pub fn share(&mut self, text: &str) -> usize {
        if let Some(&index) = self.indices.get(text) {
            return index;
        }
        self.indices.insert(text.to_owned(), self.kept.texts.len());
        self.kept.texts.push(text.to_owned());
        self.kept.texts.len() - 1
    }

    /// The text with that index.
    pub fn shared(&self, index: usize) -> Option<&str> {
        self.kept.texts.get(index).map(String::as_str)
    }

    /// Writes the memo if enough is new; `exists` says which keys are still of use.
    pub fn save(&mut self, exists: impl Fn(&str) -> bool) {
        if self.learnt < WORTHWHILE {
            return;
        }
        self.kept.files.retain(|key, _| exists(key));
        // A runs folder that cannot be written is read all the same, only less quickly.
        let _ = atomic::write(&self.path, |w| {
            serde_json::to_writer(&mut *w, &self.kept)?;
            Ok(w.flush()?)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old_file(folder: &Path, name: &str) -> Stamp {
        let path = folder.join(name);
        fs::write(&path, name).unwrap();
        let hour = Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - hour).unwrap();
        Stamp::of(&path).unwrap()
    }

    #[test]
    fn what_was_learnt_holds_until_the_file_changes() {
        let root = tempfile::tempdir().unwrap();
        let stamp = old_file(root.path(), "a");
        let mut memo = Memo::<usize>::open(root.path(), "test");
        let text = memo.share("schema");
        assert_eq!(memo.share("schema"), text);
        for i in 0..WORTHWHILE {
            memo.learn(i.to_string(), stamp, text);
        }
        memo.save(|key| key != "7");

        let memo = Memo::<usize>::open(root.path(), "test");
        assert_eq!(memo.get("1", stamp).and_then(|&i| memo.shared(i)), Some("schema"));
        assert_eq!(memo.get("7", stamp), None);
        assert_eq!(memo.get("1", Stamp { bytes: stamp.bytes + 1, ..stamp }), None);
        assert_eq!(memo.get("1", Stamp { changed: stamp.changed + 1, ..stamp }), None);
    }

    #[test]
    fn little_news_fresh_files_and_broken_memos_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let stamp = old_file(root.path(), "a");
        let mut memo = Memo::<usize>::open(root.path(), "test");
        memo.learn("a".to_owned(), stamp, 1);
        memo.save(|_| true);
        assert!(!memo.path.exists());

        fs::write(root.path().join("fresh"), "").unwrap();
        memo.learn("fresh".to_owned(), Stamp::of(&root.path().join("fresh")).unwrap(), 1);
        assert_eq!(memo.learnt, 1);

        fs::write(&memo.path, "{").unwrap();
        assert!(Memo::<usize>::open(root.path(), "test").kept.files.is_empty());
        assert_eq!(Stamp::of(root.path()), None);
    }
}
