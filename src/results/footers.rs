//! The columns of each run's own file.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::{PolarsResult, Schema, SchemaRef};
use rayon::prelude::*;

use super::catalog::{self, Catalog};
use super::memo::{Memo, Stamp, WORTHWHILE};
use super::{parts, scan, schema_text, union};

/// One run's own file, as its footer tells.
#[derive(Clone)]
pub(super) struct Own {
    pub stamp: Stamp,
    pub schema: SchemaRef,
    pub rows: usize,
}

/// What the memo keeps of a footer: the index of the schema's text, and the number of rows.
type Remembered = (usize, usize);

/// A file that was looked at.
struct Found {
    path: PathBuf,
    stamp: Stamp,
    known: Option<Remembered>,
    /// Its footer, when the memo does not know it.
    opened: Option<PolarsResult<(Schema, usize)>>,
}

/// For each run its own file, where it has one that can be opened and is not in `broken`. Equal schemas are one and
/// the same, so that files are grouped by comparing pointers.
pub(super) fn own(
    catalog: &Catalog,
    file: &str,
    broken: &HashSet<PathBuf>,
    warnings: &mut Vec<String>,
) -> Vec<Option<Own>> {
    // A few files are opened as quickly as the memo is read.
    let many = catalog.entries.len() >= WORTHWHILE;
    let mut memo = many.then(|| Memo::<Remembered>::open(&catalog.root, parts::stem(file)));
    let look = |folder: &Path| {
        let path = folder.join(file);
        let stamp = Stamp::of(&path).filter(|_| !broken.contains(&path))?;
        let known = memo.as_ref().and_then(|memo| memo.get(catalog::key(folder)?, stamp)).copied();
        let opened = known.is_none().then(|| scan::footer(&path));
        Some(Found { path, stamp, known, opened })
    };
    let found: Vec<Option<Found>> = catalog.entries.par_iter().map(|entry| look(&entry.folder)).collect();

    let mut shared = Shared::default();
    let mut own = vec![];
    for (entry, found) in catalog.entries.iter().zip(found) {
        own.push(found.and_then(|found| match found {
            Found { known: Some((index, rows)), stamp, .. } => {
                let schema = shared.known(memo.as_ref()?, index)?;
                Some(Own { stamp, schema, rows })
            }
            Found { opened: Some(Ok((schema, rows))), stamp, .. } => {
                let text = schema_text::write(&schema);
                if let Some(((memo, key), text)) = memo.as_mut().zip(catalog::key(&entry.folder)).zip(text) {
                    let index = memo.share(&text);
                    memo.learn(key.to_owned(), stamp, (index, rows));
                }
                Some(Own { stamp, schema: shared.opened(schema), rows })
            }
            Found { opened: Some(Err(error)), path, .. } => {
                // A file that is gone since is no broken one: its rows have moved to a part.
                if path.exists() {
                    warnings.push(union::skipped(&path, &error));
                }
                None
            }
            Found { opened: None, .. } => None,
        }));
    }
    if let Some(memo) = &mut memo {
        memo.save(|key| catalog.root.join(key).join(file).exists());
    }
    own
}

/// The schemas met so far.
#[derive(Default)]
struct Shared {
    all: Vec<SchemaRef>,
    by_index: HashMap<usize, SchemaRef>,
}

impl Shared {
    fn known(&mut self, memo: &Memo<Remembered>, index: usize) -> Option<SchemaRef> {
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
