//! Charts of a script's own: rows, and which columns go where.

mod cells;
mod maps;
mod marks;
mod words;

#[cfg(test)]
mod tests;

use anyhow::{Result, bail, ensure};

use super::charts::Chart;
use super::input::Table;
use crate::nearest::nearest;

/// What a chart draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Means against `x`, joined, with a band over repetitions.
    Line,
    /// One point a row.
    Scatter,
    /// Means as bars, with the interval of each.
    Bar,
    /// Means as colours over `x` and `y`.
    Heatmap,
    /// The distribution of `y` for every `x`.
    Box,
    /// One line a row across several axes.
    Parallel,
}

/// A chart as a script asks for it.
#[derive(Debug, Clone)]
pub struct Plot {
    pub kind: Kind,
    pub data: Table,
    /// Column of the horizontal axis.
    pub x: Option<String>,
    /// Column of the vertical axis.
    pub y: Option<String>,
    /// Column of the colour of a heat map.
    pub value: Option<String>,
    /// Column whose values are series of their own, with a colour and a place in the legend each.
    pub group: Option<String>,
    /// Axes of a parallel plot; the last one gives the colour.
    pub columns: Vec<String>,
    pub title: String,
    /// The sentence under the figure; one that fits the kind where it is empty.
    pub reading: String,
    /// Text at the axes; the columns' names where they are empty.
    pub x_label: String,
    pub y_label: String,
    pub log_x: bool,
    pub log_y: bool,
}

impl Plot {
    /// A chart of no rows, to be filled.
    pub fn new(kind: Kind, data: Table) -> Self {
        Self {
            kind,
            data,
            x: None,
            y: None,
            value: None,
            group: None,
            columns: Vec::new(),
            title: String::new(),
            reading: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            log_x: false,
            log_y: false,
        }
    }

    /// The figure, whose id is unique within its page.
    ///
    /// # Errors
    /// When there are no rows, a column that the kind needs is not given, or no row has a column (the nearest known name
    /// is given).
    pub fn chart(&self, id: &str) -> Result<Chart> {
        self.check()?;
        let drawing = match self.kind {
            Kind::Line | Kind::Scatter | Kind::Bar | Kind::Box => marks::draw(self)?,
            Kind::Heatmap => maps::heatmap(self)?,
            Kind::Parallel => maps::parallel(self)?,
        };
        Ok(Chart {
            id: id.to_string(),
            title: if self.title.is_empty() { words::title(self) } else { self.title.clone() },
            reading: if self.reading.is_empty() {
                words::reading(self, drawing.thinned)
            } else {
                self.reading.clone()
            },
            json: drawing.json,
            tools: drawing.tools,
        })
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.data.rows.is_empty(), "there are no rows to draw");
        let needed: &[(&str, &Option<String>)] = match self.kind {
            Kind::Line | Kind::Scatter | Kind::Bar => &[("x", &self.x), ("y", &self.y)],
            Kind::Box => &[("y", &self.y)],
            Kind::Heatmap => &[("x", &self.x), ("y", &self.y), ("value", &self.value)],
            Kind::Parallel => &[],
        };
        if let Some((option, _)) = needed.iter().find(|(_, column)| column.is_none()) {
            bail!("option '{option}' is missing: the column to draw");
        }
        ensure!(
            self.kind != Kind::Parallel || self.columns.len() >= 2,
            "option 'columns' names at least two columns, found {}",
            self.columns.len()
        );
        let named = [&self.x, &self.y, &self.value, &self.group].into_iter().flatten();
        named.chain(&self.columns).try_for_each(|column| self.known(column))
    }

    fn known(&self, column: &str) -> Result<()> {
        if self.data.has(column) {
            return Ok(());
        }
        let columns = self.data.columns.iter().map(String::as_str);
        match nearest(column, columns.clone()) {
            Some(near) => bail!("no row has a column '{column}' (did you mean '{near}'?)"),
            None => {
                bail!("no row has a column '{column}'; there are {}", columns.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A figure without its words.
struct Drawing {
    json: String,
    tools: super::charts::Tools,
    /// Of how many points of the largest series only a part is drawn; 0 where all are.
    thinned: usize,
}
