//! What scripts show on the terminal: aligned tables.

use std::collections::BTreeSet;

use anyhow::Context;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, TableComponent};
use mlua::{Table, Value};

use super::catalogue::{Entry, OptionsTable};
use super::options::Options;
use super::register::Registry;
use crate::console;

const TABLE: OptionsTable = OptionsTable {
    class: "TableOptions",
    fields: &[("columns?", "string[]", "columns in order; all of them by name when left out")],
};

/// Registers `lft.table`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&TABLE);
    registry.function(
        Entry {
            name: "lft.table",
            about: "Prints rows as an aligned table; numbers are shown with four significant digits.",
            params: &[
                ("rows", "table<string, any>[]", "one table a row, column name to value"),
                ("options?", "TableOptions", "which columns, in which order"),
            ],
            returns: &[("nil", "nothing")],
            example: "lft.table({{method = \"fm\", kl = 0.40712}}, {columns = {\"method\", \"kl\"}})",
        },
        |lua, (rows, options): (Table, Option<Table>)| {
            let options = Options::read(lua, options, &TABLE)?;
            let rows: Vec<Table> = rows.sequence_values().collect::<mlua::Result<_>>()?;
            let columns = match options.get::<Vec<String>>("columns")? {
                Some(columns) => columns,
                None => all_columns(&rows)?,
            };
            let text = render(&rows, &columns)?;
            console::print(&format!("{text}\n"))
        },
    )
}

fn all_columns(rows: &[Table]) -> anyhow::Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for row in rows {
        for pair in row.pairs::<String, Value>() {
            names.insert(pair.context("column names must be strings")?.0);
        }
    }
    Ok(names.into_iter().collect())
}

fn render(rows: &[Table], columns: &[String]) -> anyhow::Result<String> {
    let mut table = comfy_table::Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_style(TableComponent::HeaderLines, '─');
    table.set_header(columns);
    let mut numeric = vec![false; columns.len()];
    for row in rows {
        let mut cells = Vec::with_capacity(columns.len());
        for (column, numeric) in columns.iter().zip(&mut numeric) {
            let value: Value = row.get(column.as_str())?;
            *numeric |= value.is_number() || value.is_integer();
            cells.push(cell(&value)?);
        }
        table.add_row(cells);
    }
    for (column, _) in table.column_iter_mut().zip(numeric).filter(|(_, numeric)| *numeric) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(table.trim_fmt())
}

fn cell(value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::Nil => String::new(),
        Value::Number(number) => significant(*number),
        other => other.to_string()?,
    })
}

/// A number with four significant digits: `0.4071`, `33.91`, `1.234e-9`.
pub fn significant(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    let exponent = number.abs().log10().floor() as i32;
    match exponent {
        -4..=3 => format!("{number:.*}", (3 - exponent).max(0) as usize),
        4..=8 => format!("{number:.0}"),
        _ => format!("{number:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::significant;

    #[test]
    fn numbers_have_four_significant_digits() {
        assert_eq!(significant(0.407_123), "0.4071");
        assert_eq!(significant(33.905), "33.91");
        assert_eq!(significant(0.000_123_456), "0.0001235");
        assert_eq!(significant(123_456.7), "123457");
        assert_eq!(significant(1.234_4e-9), "1.234e-9");
    }
}
