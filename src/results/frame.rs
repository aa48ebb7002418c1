//! A table that was read: column names and typed cells, whatever library holds them.

use std::path::Path;

use anyhow::Result;
use polars::prelude::{AnyValue, DataFrame, Series};

use super::parquet;
use super::value::Value;

/// A table in memory.
#[derive(Clone, Debug)]
pub struct Frame(DataFrame);

impl Frame {
    pub(super) fn new(mut frame: DataFrame) -> Self {
        // Rows of thousands of files come in as many chunks, among which each cell would be looked for.
        frame.rechunk_mut();
        Self(frame)
    }

    /// Column names, left to right.
    pub fn columns(&self) -> Vec<String> {
        self.0.get_column_names().iter().map(|name| name.to_string()).collect()
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.0.height()
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.0.width()
    }

    /// The cell at a row and column, both from 0; null outside the table.
    pub fn get(&self, row: usize, column: usize) -> Value {
        match self.0.columns().get(column).map(|c| c.get(row)) {
            Some(Ok(cell)) => to_value(&cell),
            _ => Value::Null,
        }
    }

    /// All cells of a column, or `None` when there is no such column.
    pub fn column(&self, name: &str) -> Option<Vec<Value>> {
        let index = self.0.get_column_index(name)?;
        Some((0..self.height()).map(|row| self.get(row, index)).collect())
    }

    /// The rows, each with its cells from left to right.
    pub fn rows(&self) -> impl Iterator<Item = Vec<Value>> {
        (0..self.height()).map(|row| (0..self.width()).map(|column| self.get(row, column)).collect())
    }

    /// Writes the table as a Parquet file, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_parquet(&self, path: &Path) -> Result<()> {
        parquet::write(path, &mut self.0.clone())
    }
}

fn to_value(cell: &AnyValue) -> Value {
    match cell {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(b) => Value::Bool(*b),
        AnyValue::List(items) => Value::String(list_to_json(items)),
        cell if cell.is_integer() => match cell.extract::<i64>() {
            Some(i) => Value::Int(i),
            None => cell.extract::<f64>().map_or(Value::Null, Value::Float),
        },
        // Widening goes through the shortest text, so that the f32 0.1 reads as 0.1.
        AnyValue::Float32(f) => Value::Float(f.to_string().parse().unwrap_or(f64::from(*f))),
        cell if cell.is_float() => cell.extract::<f64>().map_or(Value::Null, Value::Float),
        cell => match cell.get_str() {
            Some(text) => Value::String(text.to_owned()),
            None => Value::String(cell.to_string()),
        },
    }
}

fn list_to_json(items: &Series) -> String {
    serde_json::Value::Array(items.iter().map(|item| to_value(&item).to_json()).collect()).to_string()
}

#[cfg(test)]
mod tests {
    use polars::df;
    use polars::prelude::NamedFrom;

    use super::*;

    #[test]
    fn every_type_becomes_a_value() {
        let nested = Series::new("".into(), [1i32, 2]);
        let frame = Frame::new(
            df!(
                "int" => [7i32], "big" => [u64::MAX], "single" => [0.1f32], "text" => ["a"],
                "flag" => [true], "none" => [None::<i64>], "list" => [nested],
            )
            .unwrap(),
        );
        let row = frame.rows().next().unwrap();
        let big = Value::Float(u64::MAX as f64);
        let expected = [7i64.into(), big, 0.1.into(), "a".into(), true.into(), Value::Null, "[1,2]".into()];
        assert_eq!(row, expected);
        assert_eq!(frame.get(1, 0), Value::Null);
        assert_eq!(frame.get(0, 99), Value::Null);
        assert!(frame.column("absent").is_none());
    }
}
