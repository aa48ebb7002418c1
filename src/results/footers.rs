//! The columns of each run's own file.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::{PolarsResult, Schema, SchemaRef};
use rayon::prelude::*;

use super::catalog::{self, Catalog};
use super::memo::{Memo, Stamp};
use super::{parts, scan, schema_text, union};

/// One run's own file.
struct Own {
    path: PathBuf,
    stamp: Stamp,
    /// What the memo knows its schema by.
    known: Option<usize>,
    /// Its schema from its footer, when the memo does not know it.
    opened: Option<PolarsResult<Schema>>,
}

/// For each run the schema of its own file, where it has one that can be opened and is not in `broken`. Equal
/// schemas are one and the same, so that files are grouped by comparing pointers.
pub(super) fn own(
    catalog: &Catalog,
    file: &str,
    broken: &HashSet<PathBuf>,
    warnings: &mut Vec<String>,
) -> Vec<Option<SchemaRef>> {
    let mut memo = Memo::<usize>::open(&catalog.root, parts::stem(file));
    let look = |folder: &Path| {
        let path = folder.join(file);
        let stamp = Stamp::of(&path).filter(|_| !broken.contains(&path))?;
        let known = catalog::key(folder).and_then(|key| memo.get(key, stamp)).copied();
        let opened = known.is_none().then(|| scan::schema(&path));
        Some(Own { path, stamp, known, opened })
    };
    let found: Vec<Option<Own>> = catalog.entries.par_iter().map(|entry| look(&entry.folder)).collect();

    let mut shared = Shared::default();
    let mut schemas = vec![];
    for (entry, own) in catalog.entries.iter().zip(found) {
        let schema = own.and_then(|own| match own {
            Own { known: Some(index), .. } => shared.known(&memo, index),
            Own { opened: Some(Ok(schema)), stamp, .. } => {
                if let Some((key, text)) = catalog::key(&entry.folder).zip(schema_text::write(&schema)) {
                    let index = memo.share(&text);
                    memo.learn(key.to_owned(), stamp, index);
                }
                Some(shared.opened(schema))
            }
            Own { opened: Some(Err(error)), path, .. } => {
                // A file that is gone since is no broken one: its rows have moved to a part.
                if path.exists() {
                    warnings.push(union::skipped(&path, &error));
                }
                None
            }
            Own { opened: None, .. } => None,
        });
        schemas.push(schema);
    }
    memo.save(|key| catalog.root.join(key).join(file).exists());
    schemas
}

/// The schemas met so far.
#[derive(Default)]
struct Shared {
    all: Vec<SchemaRef>,
    by_index: HashMap<usize, SchemaRef>,
}

impl Shared {
    fn known(&mut self, memo: &Memo<usize>, index: usize) -> Option<SchemaRef> {
        if let Some(schema) = self.by_index.get(&index) {
            return Some(schema.clone());
        }
        let schema = self.opened(schema_text::read(memo.shared(index)?)?);
        self.by_index.insert(index, schema.clone());
        Some(schema)
    }

    fn opened(&mut self, schema: Schema) -> SchemaRef {
        let same = |known: &&SchemaRef| known.iter().eq(schema.iter());
        if let Some(known) = self.all.iter().find(same) {
            return known.clone();
        }
        self.all.push(Arc::new(schema));
        self.all[self.all.len() - 1].clone()
    }
}
