//! Rows collected in memory, column by column, until they are written.

use anyhow::{Result, bail};
use polars::prelude::{Column, DataFrame, DataType, IntoColumn, NamedFrom, PlSmallStr, Series};

use super::value::{Row, Value};

/// A growing table whose rows may have different columns; what a row lacks is null.
#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<(String, Vec<Value>)>,
    height: usize,
}

/// The type of a column that holds several: integers widen to floats, any other mixture becomes text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Int,
    Float,
    Text,
}

impl Table {
    /// Adds one row.
    ///
    /// # Errors
    /// When a column has no name or appears twice; the table is then unchanged.
    pub fn push(&mut self, row: Row) -> Result<()> {
        for (i, (name, _)) in row.iter().enumerate() {
            if name.is_empty() {
                bail!("a column has an empty name");
            }
            if row[..i].iter().any(|(earlier, _)| earlier == name) {
                bail!("column `{name}` appears twice in one row");
            }
        }
        for (name, value) in row {
            self.column_mut(name).push(value);
        }
        self.height += 1;
        for (_, values) in &mut self.columns {
            values.resize(self.height, Value::Null);
        }
        Ok(())
    }

    pub fn height(&self) -> usize {
        self.height
    }

    fn column_mut(&mut self, name: String) -> &mut Vec<Value> {
        let index = self.columns.iter().position(|(n, _)| *n == name).unwrap_or_else(|| {
            self.columns.push((name, vec![Value::Null; self.height]));
            self.columns.len() - 1
        });
        &mut self.columns[index].1
    }

    /// The table as a Polars frame, with `constants` as leading columns that hold one text in every row.
    pub(super) fn to_polars(&self, constants: &[(&str, &str)]) -> Result<DataFrame> {
        let leading = constants.iter().map(|(name, text)| {
            let text: PlSmallStr = (*text).into();
            Column::new_scalar((*name).into(), text.into(), self.height)
        });
        let logged = self.columns.iter().map(|(name, values)| series(name, values).into_column());
        Ok(DataFrame::new(self.height, leading.chain(logged).collect())?)
    }
}

fn series(name: &str, values: &[Value]) -> Series {
    let name = name.into();
    match values.iter().map(kind).fold(Kind::Null, widen) {
        Kind::Null => Series::full_null(name, values.len(), &DataType::Null),
        Kind::Bool => Series::new(name, values.iter().map(Value::as_bool).collect::<Vec<_>>()),
        Kind::Int => Series::new(name, values.iter().map(Value::as_i64).collect::<Vec<_>>()),
        Kind::Float => Series::new(name, values.iter().map(Value::as_f64).collect::<Vec<_>>()),
        Kind::Text => {
            let texts = values.iter().map(|v| (!v.is_null()).then(|| v.to_string()));
            Series::new(name, texts.collect::<Vec<_>>())
        }
    }
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Null => Kind::Null,
        Value::Bool(_) => Kind::Bool,
        Value::Int(_) => Kind::Int,
        Value::Float(_) => Kind::Float,
        Value::String(_) => Kind::Text,
    }
}

fn widen(a: Kind, b: Kind) -> Kind {
    match (a, b) {
        (a, b) if a == b => a,
        (Kind::Null, other) | (other, Kind::Null) => other,
        (Kind::Int, Kind::Float) | (Kind::Float, Kind::Int) => Kind::Float,
        _ => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Frame;

    fn row(cells: &[(&str, Value)]) -> Row {
        cells.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect()
    }

    #[test]
    fn rows_with_different_columns_concatenate() {
        let mut table = Table::default();
        table.push(row(&[("k", Value::Int(1)), ("kl", Value::Float(0.5))])).unwrap();
        table.push(row(&[("kl", Value::Int(2)), ("note", "x".into())])).unwrap();
        table.push(row(&[("k", "three".into())])).unwrap();
        let frame = Frame::new(table.to_polars(&[("run", "a")]).unwrap());

        assert_eq!(frame.columns(), ["run", "k", "kl", "note"]);
        assert_eq!(frame.column("run").unwrap(), vec![Value::from("a"); 3]);
        assert_eq!(frame.column("k").unwrap(), ["1".into(), Value::Null, "three".into()]);
        assert_eq!(frame.column("kl").unwrap(), [0.5.into(), 2.0.into(), Value::Null]);
        assert_eq!(frame.column("note").unwrap(), [Value::Null, "x".into(), Value::Null]);
    }

    #[test]
    fn a_bad_row_changes_nothing() {
        let mut table = Table::default();
        assert!(table.push(row(&[("", Value::Int(1))])).is_err());
        let error = table.push(row(&[("k", Value::Int(1)), ("k", Value::Int(2))])).unwrap_err();
        assert!(error.to_string().contains("`k` appears twice"));
        assert_eq!(table.height(), 0);
        assert_eq!(table.columns.len(), 0);
    }

    #[test]
    fn empty_rows_count() {
        let mut table = Table::default();
        table.push(vec![]).unwrap();
        assert_eq!(table.to_polars(&[("run", "a")]).unwrap().height(), 1);
    }
}
