//! Lazy scans of Parquet files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::*;

use super::parts::Part;
use super::record::RunRecord;

/// Files with equal columns that are scanned together, and what is known of their rows beforehand.
pub(super) struct Source {
    paths: Vec<PathBuf>,
    schema: SchemaRef,
    /// Name and id of the run of each file, where each file holds one run; lets a query by run open only the files
    /// that it means.
    runs: Option<Vec<(String, String)>>,
    /// Ids of the runs whose rows count; `None` for all rows.
    only: Option<Vec<String>>,
    latest: Latest,
    /// How many rows the files hold together.
    rows: usize,
}

/// Which rows are of the newest run of their name.
enum Latest {
    All(bool),
    /// Those of the runs with these ids.
    Of(Vec<String>),
}

impl Source {
    /// The own files of runs that are all the newest of their names, or all not.
    pub fn own(schema: SchemaRef, latest: bool) -> Self {
        Self { paths: vec![], schema, runs: Some(vec![]), only: None, latest: Latest::All(latest), rows: 0 }
    }

    /// Adds the own file of a run, which has so many rows.
    pub fn push(&mut self, path: PathBuf, rows: usize, record: &RunRecord) {
        self.paths.push(path);
        self.rows += rows;
        self.runs.get_or_insert_default().push((record.name.clone(), record.id.clone()));
    }

    /// A part, of which the rows of `runs` count; each comes with whether it is the newest of its name.
    pub fn part(part: &Part, runs: &[(&RunRecord, bool)]) -> Self {
        let ids = |of: &dyn Fn(bool) -> bool| -> Vec<String> {
            runs.iter().filter(|(_, latest)| of(*latest)).map(|(record, _)| record.id.clone()).collect()
        };
        let newest = ids(&|latest| latest);
        let latest = match newest.len() {
            0 => Latest::All(false),
            n if n == runs.len() => Latest::All(true),
            _ => Latest::Of(newest),
        };
        let only = (runs.len() < part.runs.len()).then(|| ids(&|_| true));
        let (paths, schema) = (vec![part.path.clone()], part.schema.clone());
        Self { paths, schema, runs: None, only, latest, rows: part.rows }
    }

    /// How many rows count, when that is known without looking at them.
    pub fn rows(&self) -> Option<usize> {
        self.only.is_none().then_some(self.rows)
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }

    /// The rows with the columns of `schema`: cast to its types, null where the files lack them, and with `latest`.
    pub fn table(&self, schema: &Schema) -> PolarsResult<LazyFrame> {
        let statistics = self.runs.as_ref().map(|runs| statistics(&self.schema, runs)).transpose()?;
        let mut rows = scan(&self.paths, &self.schema, statistics)?;
        if let Some(ids) = &self.only {
            rows = rows.filter(is_one_of(ids));
        }
        let made = |(name, dtype): (&PlSmallStr, &DataType)| {
            let value = match self.schema.get(name) {
                _ if name == "latest" => match &self.latest {
                    Latest::All(latest) => lit(*latest),
                    Latest::Of(ids) => is_one_of(ids),
                },
                Some(own) if own == dtype => return None,
                Some(_) => col(name.clone()).cast(dtype.clone()),
                None => lit(NULL).cast(dtype.clone()),
            };
            Some(value.alias(name.clone()))
        };
        let made: Vec<Expr> = schema.iter().filter_map(made).collect();
        let names: Vec<Expr> = schema.iter_names().map(|name| col(name.clone())).collect();
        Ok(rows.with_columns(made).select(names))
    }
}

/// The columns of a file and how many rows it has, from its footer.
pub(super) fn footer(path: &Path) -> PolarsResult<(Schema, usize)> {
    let mut reader = ParquetReader::new(File::open(path)?);
    let arrow = reader.schema()?;
    Ok((Schema::from_arrow_schema(&arrow), reader.num_rows()?))
}

/// Reads a file to its end: all rows, or those of the runs with these ids.
pub(super) fn read(path: &Path, only: Option<&Vec<String>>) -> PolarsResult<DataFrame> {
    let schema = Arc::new(footer(path)?.0);
    let rows = scan(&[path.to_owned()], &schema, None)?;
    match only {
        Some(ids) => rows.filter(is_one_of(ids)).collect(),
        None => rows.collect(),
    }
}

/// Files with the same columns, one after the other. No file is opened before rows are asked for.
fn scan(
    paths: &[PathBuf],
    schema: &SchemaRef,
    table_statistics: Option<TableStatistics>,
) -> PolarsResult<LazyFrame> {
    let paths: Vec<PlRefPath> =
        paths.iter().map(|path| PlRefPath::try_from_path(path)).collect::<PolarsResult<_>>()?;
    let options = ParquetOptions { schema: Some(schema.clone()), ..ParquetOptions::default() };
    let arguments = UnifiedScanArgs {
        // Folder names are taken as they are: a `*` in a runs folder is no pattern, and a `=` no partition.
        glob: false,
        hive_options: HiveOptions::new_disabled(),
        table_statistics,
        ..UnifiedScanArgs::default()
    };
    let sources = ScanSources::Paths(paths.into_iter().collect());
    Ok(DslBuilder::scan_parquet(sources, options, arguments)?.build().into())
}

/// Smallest and largest values of each file, in the form that Polars skips files by: for each column `c` `c_min`,
/// `c_max` and the count of nulls `c_nc`. Known are those of `run` and `run_id`; nulls mean unknown.
fn statistics(schema: &Schema, runs: &[(String, String)]) -> PolarsResult<TableStatistics> {
    let names: Vec<&str> = runs.iter().map(|(name, _)| name.as_str()).collect();
    let ids: Vec<&str> = runs.iter().map(|(_, id)| id.as_str()).collect();
    let unknown =
        |name: String, dtype: DataType| Column::new_scalar(name.into(), Scalar::null(dtype), runs.len());
    let mut columns = vec![unknown("len".to_owned(), IDX_DTYPE)];
    for (name, dtype) in schema.iter() {
        let (least, greatest, nulls) = (format!("{name}_min"), format!("{name}_max"), format!("{name}_nc"));
        let known = match name.as_str() {
            "run" => Some(&names),
            "run_id" => Some(&ids),
            _ => None,
        };
        match known {
            Some(values) => {
                columns.push(Column::new(least.into(), values));
                columns.push(Column::new(greatest.into(), values));
                columns.push(Column::new_scalar(nulls.into(), Scalar::new_idxsize(0), runs.len()));
            }
            None => {
                columns.push(unknown(least, dtype.clone()));
                columns.push(unknown(greatest, dtype.clone()));
                columns.push(unknown(nulls, IDX_DTYPE));
            }
        }
    }
    Ok(TableStatistics(Arc::new(DataFrame::new(runs.len(), columns)?)))
}

fn is_one_of(ids: &[String]) -> Expr {
    col("run_id").is_in(lit(Series::new("ids".into(), ids)).implode(false), false)
}
