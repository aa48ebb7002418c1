//! What a report is made of, in plain structs.
//!
//! The page, its charts and its sentences know only these types; `source` alone knows how runs are stored.

use super::plot::Plot;

/// Everything one report shows.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub title: String,
    pub runs: Vec<RunRecord>,
    /// One row an evaluation, over all runs.
    pub results: Table,
    /// One row a logged training step, over all runs.
    pub training: Table,
    /// One row a benchmark, over all runs.
    pub benchmarks: Table,
    /// What could not be read, one sentence each.
    pub notes: Vec<String>,
    /// What a script or a person adds, in reading order.
    pub sections: Vec<Section>,
}

/// A part of a report that is not made from the runs.
#[derive(Debug, Clone)]
pub enum Section {
    /// Markdown.
    Text(String),
    Plot(Box<Plot>),
}

/// How one run was made.
#[derive(Debug, Clone, Default)]
pub struct RunRecord {
    pub id: String,
    pub name: String,
    pub status: String,
    pub seed: Option<u64>,
    pub script: Option<Script>,
    /// Name and value as the user wrote or the script defaulted them.
    pub options: Vec<(String, String)>,
    pub arguments: Vec<String>,
    /// Versions, device, git revision, seed, start, duration.
    pub environment: Vec<(String, String)>,
}

/// The Lua source a run was made by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    pub path: String,
    pub source: String,
}

/// A value of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(String),
}

impl Cell {
    /// The value as a number, where it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Cell::Int(value) => Some(*value as f64),
            Cell::Number(value) => Some(*value),
            Cell::Null | Cell::Bool(_) | Cell::Text(_) => None,
        }
    }

    /// The value as text, where it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Cell::Null)
    }
}

/// Named columns and rows of equal length.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The position of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// Whether a column exists and holds at least one value.
    pub fn has(&self, name: &str) -> bool {
        self.column(name).is_some_and(|at| self.rows.iter().any(|row| !cell(row, at).is_null()))
    }

    /// The rows as records that are read by column name.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.rows.iter().map(|row| Record { table: self, row })
    }
}

fn cell(row: &[Cell], at: usize) -> &Cell {
    row.get(at).unwrap_or(&Cell::Null)
}

/// One row with its column names.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    table: &'a Table,
    row: &'a [Cell],
}

impl<'a> Record<'a> {
    /// The value of a column; `Null` where the column does not exist.
    pub fn get(&self, name: &str) -> &'a Cell {
        self.table.column(name).map_or(&Cell::Null, |at| cell(self.row, at))
    }

    /// A finite number of a column.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(name).number().filter(|value| value.is_finite())
    }

    /// A whole number of a column.
    pub fn whole(&self, name: &str) -> Option<i64> {
        self.number(name).filter(|value| value.fract() == 0.0).map(|value| value as i64)
    }

    /// The text of a column.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).text()
    }
}
