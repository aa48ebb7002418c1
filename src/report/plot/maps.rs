//! Heat maps and parallel axes.

use std::collections::HashMap;

use anyhow::Result;
use plotly::layout::AxisType;
use serde_json::{Value, json};

use super::cells::{is_numeric, text};
use super::{Drawing, Plot};
use crate::report::charts::{Tools, axes, drawing};
use crate::report::input::Table;
use crate::report::style::plain;

/// Larger maps carry no numbers in their cells.
const NUMBERED: usize = 14;

/// Rows of a parallel plot at most.
const LINES: usize = 5000;

/// Means of `value` over `x` and `y`.
pub fn heatmap(plot: &Plot) -> Result<Drawing> {
    let column = |name: &Option<String>| name.clone().unwrap_or_default();
    let (x, y, value) = (column(&plot.x), column(&plot.y), column(&plot.value));
    let (columns, rows) = (ticks(&plot.data, &x), ticks(&plot.data, &y));
    let mut cells: HashMap<(usize, usize), (f64, f64)> = HashMap::new();
    for record in plot.data.records() {
        let at = |ticks: &[String], column: &str| ticks.iter().position(|t| *t == text(record.get(column)));
        let place = at(&columns, &x).zip(at(&rows, &y));
        if let Some((place, value)) = place.zip(record.number(&value)) {
            let (sum, count) = cells.entry(place).or_default();
            (*sum, *count) = (*sum + value, *count + 1.0);
        }
    }
    let mean = |column: usize, row: usize| cells.get(&(column, row)).map(|(sum, count)| sum / count);
    let z: Vec<Vec<Option<f64>>> =
        (0..rows.len()).map(|row| (0..columns.len()).map(|column| mean(column, row)).collect()).collect();
    let named = |ticks: &[String]| ticks.iter().map(|tick| plain(tick)).collect::<Vec<_>>();
    let mut map = json!({
        "type": "heatmap", "x": named(&columns), "y": named(&rows), "z": z, "colorscale": "Cividis", "xgap": 1, "ygap": 1,
        "colorbar": {"title": {"text": plain(&value)}, "thickness": 14},
        "hovertemplate": "%{x}, %{y}: %{z:.4g}<extra></extra>",
    });
    if rows.len().max(columns.len()) <= NUMBERED {
        map["texttemplate"] = "%{z:.3g}".into();
    }
    let axis = |column: &str, label: &str| {
        axes::linear(&plain(if label.is_empty() { column } else { label })).type_(AxisType::Category)
    };
    let layout = axes::layout(axis(&x, &plot.x_label), axis(&y, &plot.y_label));
    Ok(Drawing { json: drawing(vec![map], layout), tools: Tools::None, thinned: 0 })
}

/// The different values of a column: numbers by size, texts in order of first appearance.
fn ticks(table: &Table, column: &str) -> Vec<String> {
    let mut cells: Vec<_> =
        table.records().map(|record| record.get(column)).filter(|cell| !cell.is_null()).collect();
    if is_numeric(table, column) {
        cells.sort_by(|a, b| a.number().unwrap_or(0.0).total_cmp(&b.number().unwrap_or(0.0)));
    }
    let mut ticks: Vec<String> = Vec::new();
    for cell in cells {
        let tick = text(cell);
        if !ticks.contains(&tick) {
            ticks.push(tick);
        }
    }
    ticks
}

/// One line a row across the axes; the last axis gives the colour.
pub fn parallel(plot: &Plot) -> Result<Drawing> {
    let stride = plot.data.rows.len().div_ceil(LINES).max(1);
    let dimensions: Vec<Value> =
        plot.columns.iter().map(|column| dimension(&plot.data, column, stride)).collect();
    let colours = dimensions.last().map(|last| last["values"].clone()).unwrap_or_default();
    let lines = json!({
        "type": "parcoords", "dimensions": dimensions,
        "line": {"color": colours, "colorscale": "Cividis", "showscale": true, "colorbar": {"thickness": 14}},
    });
    let layout = axes::layout(axes::linear(""), axes::linear(""));
    let thinned = if stride > 1 { plot.data.rows.len() } else { 0 };
    Ok(Drawing { json: drawing(vec![lines], layout), tools: Tools::None, thinned })
}

fn dimension(table: &Table, column: &str, stride: usize) -> Value {
    let records = table.records().step_by(stride);
    if is_numeric(table, column) {
        let values: Vec<Option<f64>> = records.map(|record| record.number(column)).collect();
        return json!({"label": plain(column), "values": values});
    }
    let ticks = ticks(table, column);
    let place = |name: String| ticks.iter().position(|tick| *tick == name);
    let values: Vec<Option<usize>> = records.map(|record| place(text(record.get(column)))).collect();
    json!({
        "label": plain(column), "values": values, "tickvals": (0..ticks.len()).collect::<Vec<_>>(),
        "ticktext": ticks.iter().map(|tick| plain(tick)).collect::<Vec<_>>(),
    })
}
