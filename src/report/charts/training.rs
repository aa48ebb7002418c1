//! Loss against step.

use plotly::common::{Line, Marker, Mode};
use plotly::{Plot, Scatter};

use super::{Chart, axes, json, on_block};
use crate::report::downsample::{largest_triangles, smooth};
use crate::report::input::Table;
use crate::report::style::{self, plain};

/// Points drawn of one curve at most. Of raw losses every n-th is drawn, which keeps their density true; of smoothed
/// lines those that [`largest_triangles`] chooses, which keep the shape.
const POINTS_PER_SERIES: usize = 1000;

/// Points drawn on one page at most, so that a report over hundreds of runs stays small and quick.
const POINTS_PER_PAGE: usize = 60_000;

/// The share of a run over which the weights of the smoothing halve.
const SMOOTHING: f64 = 0.01;

/// One training of one run: step and loss.
struct Curve<'a> {
    block: &'a str,
    method: &'a str,
    run: &'a str,
    run_id: &'a str,
    points: Vec<(f64, f64)>,
}

/// One chart a block; none where the rows have no `step` and `loss`.
pub fn charts(training: &Table) -> Vec<Chart> {
    let curves = curves(training);
    let limit = (POINTS_PER_PAGE / curves.len().max(1)).clamp(50, POINTS_PER_SERIES);
    let mut methods: Vec<String> = curves.iter().map(|curve| curve.method.to_string()).collect();
    methods.dedup();
    let mut blocks: Vec<&str> = Vec::new();
    for curve in &curves {
        if !blocks.contains(&curve.block) {
            blocks.push(curve.block);
        }
    }
    let of_block = |block: &str| curves.iter().filter(|curve| curve.block == block).collect::<Vec<_>>();
    blocks.iter().enumerate().map(|(at, block)| chart(block, at, &of_block(block), &methods, limit)).collect()
}

fn curves(training: &Table) -> Vec<Curve<'_>> {
    let mut curves: Vec<Curve> = Vec::new();
    if !training.has("step") || !training.has("loss") {
        return curves;
    }
    for record in training.records() {
        let (Some(step), Some(loss)) = (record.number("step"), record.number("loss")) else { continue };
        let text = |column| record.text(column).unwrap_or_default();
        let (block, method, run, run_id) = (text("block"), text("method"), text("run"), text("run_id"));
        let same = |c: &Curve| c.block == block && c.method == method && c.run_id == run_id && c.run == run;
        // Rows of one training lie together, so the curve is nearly always the last one.
        match curves.iter().rposition(same) {
            Some(at) => curves[at].points.push((step, loss)),
            None => curves.push(Curve { block, method, run, run_id, points: vec![(step, loss)] }),
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    curves
}

fn chart(block: &str, at: usize, curves: &[&Curve], methods: &[String], limit: usize) -> Chart {
    let losses: Vec<f64> = curves.iter().flat_map(|c| c.points.iter().map(|(_, loss)| *loss)).collect();
    let log = losses.iter().all(|loss| *loss > 0.0);
    let mut plot = Plot::new();
    for curve in curves {
        let colour = style::colour(curve.method, methods);
        let name = name(curve, curves);
        let group = format!("{}/{}", curve.run_id, curve.method);
        let stride = curve.points.len().div_ceil(limit);
        let (steps, raw) =
            curve.points.iter().step_by(stride).map(|(step, loss)| (*step, rounded(*loss))).unzip();
        plot.add_trace(
            Scatter::<f64, f64>::new(steps, raw)
                .name(&name)
                .legend_group(&group)
                .show_legend(false)
                .mode(Mode::Markers)
                .marker(Marker::new().color(colour).size(3).opacity(0.3))
                .hover_info(plotly::common::HoverInfo::Skip),
        );
        let values: Vec<f64> = curve.points.iter().map(|(_, loss)| *loss).collect();
        let smoothed = smooth(&values, values.len() as f64 * SMOOTHING);
        let line: Vec<(f64, f64)> = curve.points.iter().map(|(step, _)| *step).zip(smoothed).collect();
        let (steps, loss) = thinned(&line, log, limit);
        plot.add_trace(
            Scatter::new(steps, loss)
                .name(&name)
                .legend_group(&group)
                .mode(Mode::Lines)
                .line(Line::new().color(colour).width(2.0))
                .hover_template("%{fullData.name}<br>step %{x}: %{y:.4g}<extra></extra>"),
        );
    }
    let title = "loss";
    let y = if log { axes::logarithmic(title, &losses) } else { axes::linear(title) };
    Chart {
        id: format!("training-{at}"),
        title: format!("Training loss against step{}", on_block(block)),
        reading: format!(
            "points are logged losses (at most {limit} a curve), lines their average (weights halve with \
             every 1 % of the run to either side); a line still falling at its end would gain from more steps. Losses of different methods \
             measure different things: compare shapes, not heights."
        ),
        json: json(plot, axes::layout(axes::linear("training step"), y)),
    }
}

/// The method, and the run where the method was trained in several.
fn name(curve: &Curve, curves: &[&Curve]) -> String {
    let others =
        || curves.iter().filter(|other| other.method == curve.method && other.run_id != curve.run_id);
    let run = match (others().next(), others().any(|other| other.run == curve.run)) {
        (None, _) if !curve.method.is_empty() => "",
        (_, true) => curve.run_id,
        (_, false) => curve.run,
    };
    let parts: Vec<&str> = [curve.method, run].into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "loss".into() } else { plain(&parts.join(" · ")) }
}

/// At most `limit` points, chosen by the shape that will be seen.
fn thinned(points: &[(f64, f64)], log: bool, limit: usize) -> (Vec<f64>, Vec<f64>) {
    let seen: Vec<(f64, f64)> = points.iter().map(|(x, y)| (*x, if log { y.log10() } else { *y })).collect();
    largest_triangles(&seen, limit).into_iter().map(|at| (points[at].0, rounded(points[at].1))).unzip()
}

/// Five significant digits: what a chart can show, in a third of the bytes.
fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}
