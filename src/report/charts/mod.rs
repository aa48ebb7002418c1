//! The figures of a report.

pub(super) mod axes;
mod curves;
mod front;
mod frontier;
mod parameters;
mod precision;
mod recoupling;
mod series;
mod steps;
mod strokes;
mod training;

use plotly::configuration::{Configuration, DisplayModeBar, ModeBarButtonName};
use plotly::{Layout, Plot};
use serde_json::{Value, json};

use super::ablation::Ablation;
use super::input::Report;

/// A figure with its words.
#[derive(Debug)]
pub struct Chart {
    /// Unique within the page.
    pub id: String,
    pub title: String,
    /// One sentence on how to read it.
    pub reading: String,
    /// Data, layout and configuration as Plotly takes them.
    pub json: String,
    /// What the reader may change besides zoom and legend.
    pub tools: Tools,
}

/// The controls above a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    None,
    /// A logarithmic or a linear vertical axis.
    Scale,
    /// The same, and how much curves are smoothed.
    Curves,
}

/// All charts whose columns exist, in reading order.
pub fn all(report: &Report, ablation: Option<&Ablation>) -> Vec<Chart> {
    let mut charts = Vec::new();
    if let Some(ablation) = ablation {
        charts.extend(steps::charts(ablation));
    }
    charts.extend(training::charts(&report.training));
    if let Some(ablation) = ablation {
        charts.extend(parameters::chart(ablation));
        charts.extend(frontier::charts(ablation));
    }
    charts.extend(precision::charts(&report.results));
    charts.extend(recoupling::charts(&report.results));
    charts
}

/// ` on block {6,12}`, where there is a block to name.
fn on_block(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" on block {name}") }
}

/// A figure of typed traces.
fn json(plot: Plot, layout: Layout) -> String {
    let plot = serde_json::to_value(&plot).unwrap_or_default();
    let traces = plot["data"].as_array().cloned().unwrap_or_default();
    drawing(traces, layout)
}

/// A figure of traces as Plotly's own JSON, for what the typed ones cannot say.
pub(super) fn drawing(traces: Vec<Value>, layout: Layout) -> String {
    let config = Configuration::new()
        .responsive(true)
        .display_logo(false)
        .display_mode_bar(DisplayModeBar::Hover)
        // What is selected leads nowhere.
        .mode_bar_buttons_to_remove(vec![ModeBarButtonName::Select2d, ModeBarButtonName::Lasso2d])
        .show_send_to_cloud(false)
        .plotly_server_url("");
    let mut layout = serde_json::to_value(layout).unwrap_or_default();
    // At the foot of the figure, whatever its height; the crate has no setter for this.
    layout["legend"]["yref"] = "container".into();
    // What a reader zoomed and hid stays so when a live page draws the figure anew.
    layout["uirevision"] = "kept".into();
    json!({"data": traces, "layout": layout, "config": config}).to_string()
}
