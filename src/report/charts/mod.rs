//! The figures of a report.

mod axes;
mod parameters;
mod precision;
mod steps;
mod training;

use plotly::configuration::{Configuration, DisplayModeBar};
use plotly::{Layout, Plot};

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
    }
    charts.extend(precision::charts(&report.results));
    charts
}

/// ` on block {6,12}`, where there is a block to name.
fn on_block(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" on block {name}") }
}

fn json(mut plot: Plot, layout: Layout) -> String {
    plot.set_layout(layout);
    plot.set_configuration(
        Configuration::new()
            .responsive(true)
            .display_logo(false)
            .display_mode_bar(DisplayModeBar::Hover)
            .show_send_to_cloud(false)
            .plotly_server_url(""),
    );
    let mut chart = serde_json::to_value(&plot).unwrap_or_default();
    // At the foot of the figure, whatever its height; the crate has no setter for this.
    chart["layout"]["legend"]["yref"] = "container".into();
    chart.to_string()
}
