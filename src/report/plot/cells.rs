//! Cells of a column as Plotly takes them, and rows by group.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::report::input::{Cell, Record, Table};
use crate::report::number;
use crate::report::style::{self, plain};

/// Groups of one chart at most: more colours than this nobody tells apart, and the legend would cover the chart.
const GROUPS: usize = 100;

/// A cell as a reader sees it.
pub fn text(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Bool(value) => if *value { "yes" } else { "no" }.to_string(),
        Cell::Int(value) => value.to_string(),
        Cell::Number(value) => number::in_table(*value),
        Cell::Text(text) => text.clone(),
    }
}

/// A position on an axis: a number, or the name of a category.
pub fn position(cell: &Cell) -> Value {
    match cell.number() {
        Some(number) => number.into(),
        None => plain(&text(cell)).into(),
    }
}

/// Whether every value of a column is a number.
pub fn is_numeric(table: &Table, column: &str) -> bool {
    table.records().map(|record| record.get(column)).all(|cell| cell.is_null() || cell.number().is_some())
}

/// The rows of one series.
pub struct Group<'a> {
    /// Safe for Plotly; empty where the chart has no groups.
    pub name: String,
    pub colour: &'static str,
    pub records: Vec<Record<'a>>,
}

/// The rows by the values of `column`, in order of first appearance; all together without one.
///
/// # Errors
/// When there are more groups than a chart can show.
pub fn groups<'a>(table: &'a Table, column: Option<&str>) -> Result<Vec<Group<'a>>> {
    let mut groups: Vec<(String, Vec<Record>)> = Vec::new();
    for record in table.records() {
        let name = column.map(|column| text(record.get(column))).unwrap_or_default();
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, records)) => records.push(record),
            None => groups.push((name, vec![record])),
        }
        ensure!(
            groups.len() <= GROUPS,
            "option 'group': column '{}' has more than {GROUPS} different values",
            column.unwrap_or_default()
        );
    }
    let names: Vec<String> = groups.iter().map(|(name, _)| name.clone()).collect();
    let methods = column == Some("method");
    let group = |(at, (name, records)): (usize, (String, Vec<Record<'a>>))| Group {
        colour: if methods { style::colour(&name, &names) } else { style::nth(at) },
        name: plain(&name),
        records,
    };
    Ok(groups.into_iter().enumerate().map(group).collect())
}
