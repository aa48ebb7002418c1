//! One lazy table over the Parquet files of many runs.

use std::path::PathBuf;

use polars::prelude::*;

use super::catalog::{self, Catalog, Entry};

/// The files that make up one table.
pub(super) struct Union<'a> {
    files: Vec<File<'a>>,
}

struct File<'a> {
    entry: &'a Entry,
    path: PathBuf,
    frame: LazyFrame,
    schema: SchemaRef,
}

impl<'a> Union<'a> {
    /// Opens `file` in every run folder that has one; only the footers are read. What cannot be opened is
    /// skipped and named in `warnings`.
    pub fn open(catalog: &'a Catalog, file: &str, warnings: &mut Vec<String>) -> Self {
        let mut files = vec![];
        for entry in &catalog.entries {
            let path = entry.folder.join(file);
            if !path.exists() {
                continue;
            }
            match scan(&path) {
                Ok((frame, schema)) => files.push(File { entry, path, frame, schema }),
                Err(error) => warnings.push(skipped(&path, &error)),
            }
        }
        Self { files }
    }

    /// All rows of all files. A column takes a type that holds every file's values ([`common`]) and is
    /// null where a file lacks it; `latest` marks the rows of the newest run of each name.
    pub fn table(&self) -> PolarsResult<LazyFrame> {
        let schema = self.schema();
        if self.files.is_empty() {
            return Ok(DataFrame::empty_with_schema(&schema).lazy());
        }
        let entries: Vec<_> = self.files.iter().map(|f| f.entry).collect();
        let aligned: Vec<_> = self
            .files
            .iter()
            .zip(catalog::latest(&entries))
            .map(|(file, latest)| file.frame.clone().select(file.aligned(&schema, latest)))
            .collect();
        concat(aligned, UnionArgs::default())
    }

    /// Columns of the table with their types; `run`, `run_id` and `latest` always exist and lead.
    pub fn schema(&self) -> Schema {
        let mut schema = Schema::default();
        schema.insert("run".into(), DataType::String);
        schema.insert("run_id".into(), DataType::String);
        schema.insert("latest".into(), DataType::Boolean);
        for (name, dtype) in self.files.iter().flat_map(|f| f.schema.iter()).filter(|(n, _)| *n != "latest") {
            let wide = schema.get(name).map_or(dtype.clone(), |known| common(known, dtype));
            schema.insert(name.clone(), wide);
        }
        schema
    }

    /// Reads every file to its end and drops those that fail, named in `warnings`. Returns whether any did.
    fn drop_unreadable(&mut self, warnings: &mut Vec<String>) -> bool {
        let before = self.files.len();
        self.files.retain(|file| match file.frame.clone().collect() {
            Ok(_) => true,
            Err(error) => {
                warnings.push(skipped(&file.path, &error));
                false
            }
        });
        self.files.len() < before
    }
}

impl File<'_> {
    fn aligned(&self, schema: &Schema, latest: bool) -> Vec<Expr> {
        let cell = |(name, dtype): (&PlSmallStr, &DataType)| {
            let value = match self.schema.get(name) {
                _ if name == "latest" => lit(latest),
                Some(own) if own == dtype => col(name.clone()),
                Some(_) => col(name.clone()).cast(dtype.clone()),
                None => lit(NULL).cast(dtype.clone()),
            };
            value.alias(name.clone())
        };
        schema.iter().map(cell).collect()
    }
}

/// Collects `plan` over the unions. A file whose footer is whole may still be broken further in, which
/// shows only now: when reading fails, such files are dropped, named in `warnings`, and the plan runs once more.
pub(super) fn collect<'a>(
    unions: &mut [Union<'a>],
    warnings: &mut Vec<String>,
    plan: impl Fn(&[Union<'a>]) -> PolarsResult<DataFrame>,
) -> PolarsResult<DataFrame> {
    let failure = match plan(unions) {
        Ok(frame) => return Ok(frame),
        Err(error) => error,
    };
    if matches!(
        failure,
        PolarsError::SQLSyntax(_) | PolarsError::SQLInterface(_) | PolarsError::ColumnNotFound(_)
    ) {
        return Err(failure);
    }
    let mut dropped = false;
    for union in unions.iter_mut() {
        dropped |= union.drop_unreadable(warnings);
    }
    if dropped { plan(unions) } else { Err(failure) }
}

fn scan(path: &std::path::Path) -> PolarsResult<(LazyFrame, SchemaRef)> {
    // Folder names are taken as they are: a `*` in a runs folder is no pattern.
    let options = ScanArgsParquet { glob: false, ..Default::default() };
    let mut frame = LazyFrame::scan_parquet(PlRefPath::try_from_path(path)?, options)?;
    let schema = frame.collect_schema()?;
    Ok((frame, schema))
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

fn skipped(path: &std::path::Path, error: &PolarsError) -> String {
    format!("skipped: {} is broken: {}", path.display(), super::explain::first_line(error))
}
