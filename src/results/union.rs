//! One lazy table over the Parquet files of many runs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use polars::prelude::*;

use super::catalog::{self, Catalog, Entry};
use super::footers::{self, Own};
use super::gathered;
use super::parts::{self, Part};
use super::record::RunRecord;
use super::scan::{self, Source};

/// How often files are looked for anew when they go while they are read.
const ATTEMPTS: usize = 100;

/// Scans that are worth having for the sake of the rows' order; thousands would take seconds to plan.
const IN_ORDER: usize = 64;

/// The files that make up one table.
pub(super) struct Union<'a> {
    catalog: &'a Catalog,
    file: &'static str,
    sources: Vec<Source>,
    schema: SchemaRef,
    /// Files that turned out to be broken further in than their footers.
    broken: HashSet<PathBuf>,
}

/// The rows of one run in one table, and where they are.
struct Holding<'a> {
    entry: &'a Entry,
    schema: SchemaRef,
    place: Place,
}

enum Place {
    /// A file with so many rows.
    Own(PathBuf, usize),
    /// By its place in the list of parts.
    Part(usize),
}

impl<'a> Union<'a> {
    /// Opens `file` in every run folder that has one, and the parts that hold the rows of the others; only footers
    /// are read, and those of many files are remembered. What cannot be opened is skipped and named in `warnings`.
    pub fn open(catalog: &'a Catalog, file: &'static str, warnings: &mut Vec<String>) -> Self {
        let schema = Arc::new(Schema::default());
        let mut union = Self { catalog, file, sources: vec![], schema, broken: HashSet::new() };
        union.find(warnings);
        union
    }

    fn find(&mut self, warnings: &mut Vec<String>) {
        // Own files are looked for before the parts: rows that move to a part meanwhile are then found there.
        let own = footers::own(self.catalog, self.file, &self.broken, warnings);
        let (mut copies, copied) = gathered::places(self.catalog, self.file, &own, &self.broken);
        let mut parts = parts::list(&self.catalog.root, self.file, warnings);
        parts.retain(|part| !self.broken.contains(&part.path));
        let holder = parts::holders(&parts);
        let held = |((entry, own), copy): ((&'a Entry, Option<Own>), Option<usize>)| {
            let (schema, place) = match (own, copy) {
                (Some(own), Some(at)) => (own.schema, Place::Part(parts.len() + at)),
                (Some(own), None) => (own.schema, Place::Own(entry.folder.join(self.file), own.rows)),
                (None, _) => {
                    let at = *holder.get(entry.record.id.as_str())?;
                    (parts[at].schema.clone(), Place::Part(at))
                }
            };
            Some(Holding { entry, schema, place })
        };
        let entries = self.catalog.entries.iter();
        let holdings: Vec<Holding> = entries.zip(own).zip(copied).filter_map(held).collect();
        self.schema = Arc::new(common_schema(&holdings));
        parts.append(&mut copies);
        self.sources = sources(&holdings, &parts);
    }

    /// All rows of all files. A column takes a type that holds every file's values ([`common`]) and is
    /// null where a file lacks it; `latest` marks the rows of the newest run of each name.
    pub fn table(&self) -> PolarsResult<LazyFrame> {
        let aligned: Vec<_> =
            self.sources.iter().map(|source| source.table(&self.schema)).collect::<PolarsResult<_>>()?;
        if aligned.is_empty() {
            return Ok(DataFrame::empty_with_schema(&self.schema).lazy());
        }
        concat(aligned, UnionArgs::default())
    }

    /// Columns of the table with their types; `run`, `run_id` and `latest` always exist and lead.
    pub fn schema(&self) -> Schema {
        self.schema.as_ref().clone()
    }

    /// How many rows there are, when that is known without looking at them.
    pub fn rows(&self) -> Option<usize> {
        self.sources.iter().map(Source::rows).sum()
    }

    /// How many files each query over all rows has to open.
    pub fn files(&self) -> usize {
        self.paths().count()
    }

    /// Whether files have gone since they were found: a run was removed, or its rows moved to a part.
    fn is_outdated(&self) -> bool {
        self.paths().any(|path| !path.exists())
    }

    /// Reads every file to its end and drops those that fail, named in `warnings`. Returns whether any did.
    fn drop_unreadable(&mut self, warnings: &mut Vec<String>) -> bool {
        let failure = |path: &Path| Some((path.to_owned(), scan::read(path, None).err()?));
        let mut failures: Vec<(PathBuf, PolarsError)> = self.paths().filter_map(failure).collect();
        failures.retain(|(path, _)| path.exists());
        for (path, error) in &failures {
            match gathered::is_copy(path) {
                // The rows are still in the runs' own files.
                true => drop(fs::remove_file(path)),
                false => warnings.push(skipped(path, error)),
            }
        }
        self.broken.extend(failures.iter().map(|(path, _)| path.clone()));
        self.find(&mut vec![]);
        !failures.is_empty()
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().flat_map(Source::paths)
    }
}

/// First the parts, each a scan of its own, then the own files. Neighbours in age with equal columns are scanned
/// together, but the newest runs of their names apart from others, so that `latest` is a constant for each scan.
///
/// Rows so stand in the order of their runs. Where that would take more than [`IN_ORDER`] scans, all files alike are
/// scanned together.
fn sources(holdings: &[Holding], parts: &[Part]) -> Vec<Source> {
    let entries: Vec<&Entry> = holdings.iter().map(|holding| holding.entry).collect();
    let mut of_parts: Vec<Vec<(&RunRecord, bool)>> = vec![vec![]; parts.len()];
    let mut own = vec![];
    for (holding, latest) in holdings.iter().zip(catalog::latest(&entries)) {
        match &holding.place {
            Place::Part(at) => of_parts[*at].push((&holding.entry.record, latest)),
            Place::Own(path, rows) => own.push((holding, path, *rows, latest)),
        }
    }
    let counted = parts.iter().zip(&of_parts).rev().filter(|(_, runs)| !runs.is_empty());
    let mut sources: Vec<Source> = counted.map(|(part, runs)| Source::part(part, runs)).collect();

    let kind =
        |(holding, _, _, latest): &(&Holding, &PathBuf, usize, bool)| (Arc::as_ptr(&holding.schema), *latest);
    let in_order = own.windows(2).filter(|pair| kind(&pair[0]) != kind(&pair[1])).count() < IN_ORDER;
    let mut open: HashMap<(*const Schema, bool), usize> = HashMap::new();
    for file in &own {
        if in_order && !open.contains_key(&kind(file)) {
            open.clear();
        }
        let (holding, path, rows, latest) = file;
        let at = *open.entry(kind(file)).or_insert_with(|| {
            sources.push(Source::own(holding.schema.clone(), *latest));
            sources.len() - 1
        });
        sources[at].push((*path).clone(), *rows, &holding.entry.record);
    }
    sources
}

/// The columns of all files in the order of their first appearance, oldest run first.
fn common_schema(holdings: &[Holding]) -> Schema {
    let mut common_to_all = Schema::default();
    common_to_all.insert("run".into(), DataType::String);
    common_to_all.insert("run_id".into(), DataType::String);
    common_to_all.insert("latest".into(), DataType::Boolean);
    let mut seen = HashSet::new();
    for schema in holdings.iter().map(|holding| &holding.schema) {
        if !seen.insert(Arc::as_ptr(schema)) {
            continue;
        }
        for (name, dtype) in schema.iter().filter(|(name, _)| *name != "latest") {
            let wide = common_to_all.get(name).map_or(dtype.clone(), |known| common(known, dtype));
            common_to_all.insert(name.clone(), wide);
        }
    }
    common_to_all
}

/// Collects `plan` over the unions.
///
/// When reading fails because files have gone meanwhile (a run was removed, or `lft compact` moved its rows), they are
/// looked for anew. A file whose footer is whole may also be broken further in, which shows only now: such files
/// are dropped and named in `warnings`. In both cases the plan runs once more.
///
/// # Errors
/// Whatever the plan returned last. An error that does not come from Polars is passed on at once.
pub(super) fn collect<T>(
    unions: &mut [Union],
    warnings: &mut Vec<String>,
    mut plan: impl FnMut(&[Union]) -> Result<T>,
) -> Result<T> {
    let mut failure = match plan(unions) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    if !may_be_a_file(&failure) {
        return Err(failure);
    }
    for _ in 0..ATTEMPTS {
        if !unions.iter().any(Union::is_outdated) {
            break;
        }
        unions.iter_mut().for_each(|union| union.find(&mut vec![]));
        failure = match plan(unions) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
    }
    let mut dropped = false;
    for union in unions.iter_mut() {
        dropped |= union.drop_unreadable(warnings);
    }
    if dropped { plan(unions) } else { Err(failure) }
}

/// Whether a file can be at fault, and not the statement or what is done with the rows.
fn may_be_a_file(error: &anyhow::Error) -> bool {
    use PolarsError::{ColumnNotFound, SQLInterface, SQLSyntax};
    let polars = error.downcast_ref::<PolarsError>();
    polars.is_some_and(|error| !matches!(error, SQLSyntax(_) | SQLInterface(_) | ColumnNotFound(_)))
}

/// The type that holds the values of both: integers widen to 64 bits, integers and floats to doubles,
/// any other mixture becomes text.
fn common(a: &DataType, b: &DataType) -> DataType {
    match (a, b) {
        (a, b) if a == b => a.clone(),
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (a, b) if a.is_integer() && b.is_integer() => DataType::Int64,
        (a, b) if a.is_primitive_numeric() && b.is_primitive_numeric() => DataType::Float64,
        _ => DataType::String,
    }
}

pub(super) fn skipped(path: &Path, error: &PolarsError) -> String {
    format!("skipped: {} is broken: {}", path.display(), super::explain::first_line(error))
}
