//! Lines, points, bars and boxes over two axes.

use anyhow::Result;
use plotly::layout::{Axis, AxisType};
use serde_json::{Value, json};

use super::cells::{Group, groups, is_numeric, position, text};
use super::{Drawing, Kind, Plot};
use crate::report::charts::{Tools, axes, drawing};
use crate::report::downsample::largest_triangles;
use crate::report::input::Cell;
use crate::report::statistics::Sample;
use crate::report::style::{faint, plain};

/// Points of one series at most.
const POINTS: usize = 2000;

/// Draws one of the kinds that have two axes.
pub fn draw(plot: &Plot) -> Result<Drawing> {
    let (x, y) = (plot.x.as_deref().unwrap_or_default(), plot.y.as_deref().unwrap_or_default());
    let groups = groups(&plot.data, plot.group.as_deref())?;
    let mut traces = Vec::new();
    let mut thinned = 0;
    for (at, group) in groups.iter().enumerate() {
        match plot.kind {
            Kind::Line => thinned = thinned.max(line(plot, group, at, &mut traces)),
            Kind::Bar => traces.push(bar(group, x, y)),
            Kind::Box => traces.push(distribution(group, plot.x.as_deref(), y)),
            _ => thinned = thinned.max(scatter(plot, group, &mut traces)),
        }
    }
    let numeric = plot.kind != Kind::Bar && plot.kind != Kind::Box && is_numeric(&plot.data, x);
    let horizontal = match plot.kind {
        Kind::Box if plot.x.is_none() => axes::linear("").show_tick_labels(false),
        _ if numeric => axis(plot, x, &plot.x_label, plot.log_x),
        _ => axes::linear(&plain(label(x, &plot.x_label))).type_(AxisType::Category),
    };
    let mut layout = axes::layout(horizontal, axis(plot, y, &plot.y_label, plot.log_y));
    if plot.kind == Kind::Box && plot.x.is_some() && groups.len() > 1 {
        layout = layout.box_mode(plotly::layout::BoxMode::Group);
    }
    Ok(Drawing { json: drawing(traces, layout), tools: Tools::Scale, thinned })
}

fn label<'a>(column: &'a str, given: &'a str) -> &'a str {
    if given.is_empty() { column } else { given }
}

fn axis(plot: &Plot, column: &str, given: &str, log: bool) -> Axis {
    let title = plain(label(column, given));
    let values: Vec<f64> = plot.data.records().filter_map(|record| record.number(column)).collect();
    if log && values.iter().any(|value| *value > 0.0) {
        let positive: Vec<f64> = values.into_iter().filter(|value| *value > 0.0).collect();
        axes::logarithmic(&title, &positive)
    } else {
        axes::linear(&title)
    }
}

/// The values of `y` at every value of `x`, in the order of numbers or else of first appearance.
fn samples<'a>(group: &Group<'a>, x: &str, y: &str) -> Vec<(&'a Cell, Sample)> {
    let mut points: Vec<(&Cell, f64)> = group
        .records
        .iter()
        .filter_map(|record| Some((record.get(x), record.number(y)?)))
        .filter(|(cell, _)| !cell.is_null())
        .collect();
    match points.iter().all(|(cell, _)| cell.number().is_some()) {
        true => points.sort_by(|a, b| a.0.number().unwrap_or(0.0).total_cmp(&b.0.number().unwrap_or(0.0))),
        false => {
            let mut order: Vec<&Cell> = Vec::new();
            for (cell, _) in &points {
                if !order.contains(cell) {
                    order.push(cell);
                }
            }
            points.sort_by_key(|(cell, _)| order.iter().position(|known| known == cell));
        }
    }
    let equal = points.chunk_by(|a, b| a.0 == b.0);
    equal.filter_map(|same| Some((same[0].0, Sample::of(same.iter().map(|(_, value)| *value))?))).collect()
}

/// Adds the line and, where rows repeat an `x`, the band. Returns the number of points where not all are drawn.
fn line(plot: &Plot, group: &Group, at: usize, traces: &mut Vec<Value>) -> usize {
    let (x, y) = (plot.x.as_deref().unwrap_or_default(), plot.y.as_deref().unwrap_or_default());
    let samples = samples(group, x, y);
    let shape: Vec<(f64, f64)> = samples
        .iter()
        .enumerate()
        .map(|(at, (cell, sample))| (cell.number().unwrap_or(at as f64), sample.mean))
        .map(|(x, y)| (scaled(x, plot.log_x), scaled(y, plot.log_y)))
        .collect();
    let kept = largest_triangles(&shape, POINTS);
    let kept: Vec<&(&Cell, Sample)> = kept.into_iter().map(|at| &samples[at]).collect();
    let named = !group.name.is_empty();
    let legend = format!("{at}");
    if kept.iter().any(|(_, sample)| sample.count > 1) {
        let upper = kept.iter().map(|(cell, sample)| (position(cell), sample.band().1));
        let lower = kept.iter().rev().map(|(cell, sample)| (position(cell), sample.band().0));
        let (xs, ys): (Vec<Value>, Vec<f64>) = upper.chain(lower).unzip();
        traces.push(json!({
            "type": "scatter", "mode": "lines", "x": xs, "y": ys, "fill": "toself", "line": {"width": 0},
            "fillcolor": faint(group.colour), "hoverinfo": "skip", "showlegend": false, "legendgroup": legend,
        }));
    }
    let (xs, ys): (Vec<Value>, Vec<f64>) =
        kept.iter().map(|(cell, sample)| (position(cell), sample.mean)).unzip();
    traces.push(json!({
        "type": "scatter", "mode": if kept.len() > 60 { "lines" } else { "lines+markers" }, "x": xs, "y": ys,
        "name": group.name, "legendgroup": legend, "showlegend": named, "line": {"color": group.colour, "width": 2},
        "hovertemplate": hover(named),
    }));
    if kept.len() < samples.len() { samples.len() } else { 0 }
}

/// Non-positive values have no place on a logarithmic axis; they must not decide which points stay.
fn scaled(value: f64, log: bool) -> f64 {
    if log { value.max(f64::MIN_POSITIVE).log10() } else { value }
}

fn hover(named: bool) -> &'static str {
    if named { "%{fullData.name}<br>%{x}: %{y:.4g}<extra></extra>" } else { "%{x}: %{y:.4g}<extra></extra>" }
}

/// Adds one point a row, every n-th of many. Returns the number of points where not all are drawn.
fn scatter(plot: &Plot, group: &Group, traces: &mut Vec<Value>) -> usize {
    let (x, y) = (plot.x.as_deref().unwrap_or_default(), plot.y.as_deref().unwrap_or_default());
    let there: Vec<_> =
        group.records.iter().filter(|r| r.number(y).is_some() && !r.get(x).is_null()).collect();
    let stride = there.len().div_ceil(POINTS).max(1);
    let kept: Vec<_> = there.iter().step_by(stride).collect();
    let about = |column: &String| kept.iter().map(|r| plain(&text(r.get(column)))).collect::<Vec<_>>();
    // The reader sees the whole row, which says what a point is.
    let columns: Vec<&String> =
        plot.data.columns.iter().filter(|column| plot.data.has(column)).take(10).collect();
    let values: Vec<Vec<String>> = columns.iter().map(|column| about(column)).collect();
    let words = |at: usize| {
        let facts = columns.iter().zip(&values).map(|(column, values)| (column, &values[at]));
        let facts = facts.filter(|(_, value)| !value.is_empty());
        facts.map(|(column, value)| format!("{}: {value}", plain(column))).collect::<Vec<_>>().join("<br>")
    };
    traces.push(json!({
        "type": "scatter", "mode": "markers", "name": group.name, "showlegend": !group.name.is_empty(),
        "x": kept.iter().map(|record| position(record.get(x))).collect::<Vec<_>>(),
        "y": kept.iter().map(|record| record.number(y)).collect::<Vec<_>>(),
        "marker": {"color": group.colour, "size": 8, "opacity": if kept.len() > 300 { 0.5 } else { 0.85 }},
        "hovertext": (0..kept.len()).map(words).collect::<Vec<_>>(), "hovertemplate": "%{hovertext}<extra></extra>",
    }));
    if stride > 1 { there.len() } else { 0 }
}

fn bar(group: &Group, x: &str, y: &str) -> Value {
    let samples = samples(group, x, y);
    let mut bar = json!({
        "type": "bar", "name": group.name, "showlegend": !group.name.is_empty(), "marker": {"color": group.colour},
        "x": samples.iter().map(|(cell, _)| plain(&text(cell))).collect::<Vec<_>>(),
        "y": samples.iter().map(|(_, sample)| sample.mean).collect::<Vec<_>>(),
        "hovertemplate": hover(!group.name.is_empty()),
    });
    if samples.iter().any(|(_, sample)| sample.count > 1) {
        let above = samples.iter().map(|(_, sample)| sample.band().1 - sample.mean);
        let below = samples.iter().map(|(_, sample)| sample.mean - sample.band().0);
        bar["error_y"] = json!({
            "type": "data", "symmetric": false, "array": above.collect::<Vec<_>>(),
            "arrayminus": below.collect::<Vec<_>>(), "thickness": 1.5,
        });
    }
    bar
}

fn distribution(group: &Group, x: Option<&str>, y: &str) -> Value {
    let there = || group.records.iter().filter(|record| record.number(y).is_some());
    let mut boxes = json!({
        "type": "box", "name": group.name, "showlegend": !group.name.is_empty(), "marker": {"color": group.colour},
        "y": there().map(|record| record.number(y)).collect::<Vec<_>>(),
        "boxpoints": if there().count() <= 200 { "all" } else { "outliers" }, "jitter": 0.4, "pointpos": 0,
    });
    if let Some(x) = x {
        boxes["x"] = there().map(|record| plain(&text(record.get(x)))).collect::<Vec<_>>().into();
    }
    boxes
}
