//! How curves against solver steps, their bands and their reference lines look.

use plotly::Scatter;
use plotly::common::{DashType, Fill, Font, HoverInfo, Line, Marker, Mode, Position, Visible};

use super::series::Series;
use crate::report::number::{in_prose, plural};
use crate::report::statistics::Sample;
use crate::report::style::{self, plain};

/// A horizontal line with its name on it, where there is room for the name.
pub fn reference(
    label: &str,
    value: f64,
    ends: (f64, f64),
    dash: DashType,
    named: bool,
) -> Box<Scatter<f64, f64>> {
    Scatter::new(vec![ends.0, ends.1], vec![value, value])
        .name(plain(label))
        .mode(Mode::LinesText)
        .text_array(vec![if named { plain(label) } else { String::new() }, String::new()])
        .text_position(Position::TopRight)
        .text_font(Font::new().size(12))
        .line(Line::new().color(style::REFERENCE).width(1.5).dash(dash))
        .hover_template("%{fullData.name}: %{y:.4g}<extra></extra>")
        .show_legend(false)
}

pub fn curve(
    series: &Series,
    name: String,
    methods: &[String],
    visible: bool,
    labelled: bool,
) -> Box<Scatter<f64, f64>> {
    let colour = style::colour(series.method, methods);
    let (dash, symbol) = style::stroke(series.solver);
    let means = series.points.iter().map(|(_, measure)| measure.mean).collect();
    let mut text = vec![String::new(); series.points.len()];
    if let Some(end) = text.last_mut().filter(|_| labelled) {
        *end = plain(series.method);
    }
    Scatter::new(series.points.iter().map(|(k, _)| *k as f64).collect(), means)
        .name(plain(&name))
        .legend_group(plain(&name))
        .mode(if labelled { Mode::LinesMarkersText } else { Mode::LinesMarkers })
        .text_position(Position::MiddleRight)
        .text_font(Font::new().size(13))
        .clip_on_axis(false)
        .line(Line::new().color(colour).width(2.0).dash(dash))
        .marker(Marker::new().color(colour).symbol(symbol).size(8))
        .text_array(text)
        .hover_text_array(series.points.iter().map(|(_, sample)| spread(sample)).collect())
        .hover_template("%{fullData.name}<br>k = %{x}: %{y:.4g}%{hovertext}<extra></extra>")
        .visible(shown(visible))
}

/// What repetitions say of a curve's mean, as a band around it; see [`Sample::band`].
pub fn band(
    series: &Series,
    name: &str,
    methods: &[String],
    visible: bool,
) -> Option<Box<Scatter<f64, f64>>> {
    series.points.iter().any(|(_, sample)| sample.count > 1).then(|| {
        let edge = |upper: bool| {
            move |(k, sample): &(i64, Sample)| {
                (*k as f64, if upper { sample.band().1 } else { sample.band().0 })
            }
        };
        let there = series.points.iter().map(edge(true));
        let (ks, values) = there.chain(series.points.iter().rev().map(edge(false))).unzip();
        Scatter::new(ks, values)
            .name(plain(&format!("{name}, band")))
            .legend_group(plain(name))
            .show_legend(false)
            .mode(Mode::Lines)
            .fill(Fill::ToSelf)
            .fill_color(style::faint(style::colour(series.method, methods)))
            .line(Line::new().width(0.0))
            .hover_info(HoverInfo::Skip)
            .visible(shown(visible))
    })
}

/// ` ± 0.004 (3 repetitions)`; empty for one.
fn spread(sample: &Sample) -> String {
    match sample.count {
        1 => String::new(),
        count => format!(" ± {} ({})", in_prose(sample.sd), plural(count, "repetition")),
    }
}

fn shown(visible: bool) -> Visible {
    if visible { Visible::True } else { Visible::LegendOnly }
}
