//! A text column of a Parquet file from any source, one row group in memory at a time.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use polars::prelude::{ParquetReader, SerReader};

use crate::nearest::nearest;

/// The texts of one column of a Parquet file, row by row; nulls are skipped.
///
/// # Errors
/// A file that is missing or no Parquet file, and a column that does not exist or holds no text.
pub fn text_column(path: &Path, column: &str) -> Result<impl Iterator<Item = Result<String>> + Send + use<>> {
    let what = || format!("cannot read {}", path.display());
    let mut reader = ParquetReader::new(File::open(path).with_context(what)?);
    let schema = reader.schema().with_context(what)?;
    if !schema.contains(column) {
        let names: Vec<&str> = schema.iter_names().map(|name| name.as_str()).collect();
        match nearest(column, names.iter().copied()) {
            Some(near) => bail!("{} has no column '{column}' (did you mean '{near}'?)", path.display()),
            None => bail!("{} has no column '{column}'; it has {}", path.display(), names.join(", ")),
        }
    }
    let groups: Vec<usize> =
        reader.get_metadata().with_context(what)?.row_groups.iter().map(|group| group.num_rows()).collect();
    let (path, column) = (path.to_owned(), column.to_owned());
    let mut first = 0;
    Ok(groups.into_iter().flat_map(move |rows| {
        let texts = group(&path, &column, first, rows);
        first += rows;
        match texts {
            Ok(texts) => texts.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        }
    }))
}

fn group(path: &Path, column: &str, first: usize, rows: usize) -> Result<Vec<String>> {
    let what = || format!("cannot read column '{column}' of {}", path.display());
    let frame = ParquetReader::new(File::open(path).with_context(what)?)
        .with_columns(Some(vec![column.to_owned()]))
        .with_slice(Some((first, rows)))
        .finish()
        .with_context(what)?;
    let texts = frame.column(column).with_context(what)?.str().with_context(what)?;
    Ok(texts.iter().flatten().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use polars::df;
    use polars::prelude::ParquetWriter;

    use super::*;

    #[test]
    fn every_row_group_is_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let texts: Vec<Option<String>> = (0..25).map(|i| (i % 7 != 3).then(|| format!("text {i}"))).collect();
        let mut frame = df!("id" => (0..25i64).collect::<Vec<_>>(), "text" => texts.clone()).unwrap();
        let file = File::create(&path).unwrap();
        ParquetWriter::new(file).with_row_group_size(Some(10)).finish(&mut frame).unwrap();
        let found: Vec<String> = text_column(&path, "text").unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(found, texts.into_iter().flatten().collect::<Vec<_>>());
        let refusal = |column: &str| {
            let texts = text_column(&path, column).and_then(|texts| texts.collect::<Result<Vec<_>>>());
            format!("{:#}", texts.unwrap_err())
        };
        assert!(refusal("texts").contains("did you mean 'text'"));
        assert!(refusal("id").contains("cannot read column 'id'"));
        assert!(text_column(Path::new("/no/such.parquet"), "text").is_err());
    }
}
