//! KL against what was saved.

use plotly::common::{DashType, Font, Line, LineShape, Marker, MarkerSymbol, Mode, Position};
use plotly::{Plot, Scatter};

use super::axes::Labels;
use super::front::{front, line};
use super::steps::methods;
use super::{Chart, Tools, axes, json};
use crate::report::ablation::{Ablation, Block, Metric, Outcome};
use crate::report::number::in_prose;
use crate::report::style::{self, plain};

/// A point of the chart: parameters removed, KL, its name and the settings behind it.
struct Point {
    params: f64,
    kl: f64,
    label: String,
    settings: String,
}

/// Students and skip baselines in one plane; none where no row says how many parameters it removed.
pub fn chart(ablation: &Ablation) -> Option<Chart> {
    let skips = skips(ablation);
    let methods = methods(ablation);
    let students: Vec<(&String, Vec<Point>)> =
        methods.iter().map(|method| (method, students(ablation, method))).collect();
    let all = || skips.iter().chain(students.iter().flat_map(|(_, points)| points));
    if all().count() < 2 || students.iter().all(|(_, points)| points.is_empty()) {
        return None;
    }
    let (scale, unit) = unit(all().map(|point| point.params).fold(0.0, f64::max));
    let kls: Vec<f64> = all().map(|point| point.kl).collect();

    let named = named(students.iter().flat_map(|(_, points)| points).collect(), &kls);
    let mut plot = Plot::new();
    // More parameters removed is better.
    let saved: Vec<(f64, f64)> = all().map(|point| (-point.params, point.kl)).collect();
    let unbeaten = front(&saved).into_iter().map(|at| (-saved[at].0 / scale, saved[at].1)).collect();
    if let Some(line) = line(unbeaten, LineShape::Hv) {
        plot.add_trace(line);
    }
    if !skips.is_empty() {
        let line = Line::new().color(style::REFERENCE).width(1.5).dash(DashType::Dot);
        plot.add_trace(
            scatter(&skips, scale, |_| true)
                .name("best skip baseline")
                .mode(Mode::LinesMarkersText)
                .text_font(Font::new().size(12))
                // Above the stairs, which come from the left, and beside the dotted line.
                .text_position(Position::TopLeft)
                .line(line)
                .marker(Marker::new().color(style::REFERENCE).symbol(MarkerSymbol::X).size(8)),
        );
    }
    for (method, points) in students.iter().filter(|(_, points)| !points.is_empty()) {
        let colour = style::colour(method, &methods);
        plot.add_trace(
            scatter(points, scale, |point| named.contains(&(point.params, point.label.as_str())))
                .name(plain(method))
                .mode(Mode::MarkersText)
                .text_font(Font::new().size(12))
                .text_position(Position::MiddleRight)
                .marker(Marker::new().color(colour).size(11)),
        );
    }
    let x = axes::linear(&format!("parameters removed, net of those added{unit}"));
    let y = axes::fitting("KL in nats per token", &kls);
    Some(Chart {
        id: "parameters".into(),
        title: "KL divergence against parameters removed".into(),
        reading: "right is smaller, down is closer to the teacher; a student below the dotted line is better than \
                  leaving out layers worth as many parameters. Nothing measured here is both smaller and closer than a point \
                  on the grey stairs (the Pareto front). Each student is drawn with its best solver and k \
                  (hover to see which)."
            .into(),
        tools: Tools::Scale,
        json: json(plot, axes::layout(x, y)),
    })
}

fn point(outcome: &Outcome, label: String, settings: String) -> Option<Point> {
    Some(Point { params: outcome.params_removed?, kl: outcome.mean(Metric::Kl)?, label, settings })
}

/// The best student of a method on every block.
fn students(ablation: &Ablation, method: &str) -> Vec<Point> {
    let several = ablation.blocks.len() > 1;
    let best = |block: &Block| {
        let student = block.best_of_methods().into_iter().find(|student| student.method == method)?;
        let label = if several { format!("{method} {}", block.name) } else { method.to_string() };
        let solver = if student.solver.is_empty() { "" } else { &student.solver };
        point(&student.outcome, label, format!("{} {solver} k = {}", block.name, student.k))
    };
    ablation.blocks.iter().filter_map(best).collect()
}

/// The best baseline of every number of layers over all blocks, by parameters removed.
fn skips(ablation: &Ablation) -> Vec<Point> {
    let mut best: Vec<(i64, Point)> = Vec::new();
    for skip in ablation.blocks.iter().flat_map(|block| &block.skips) {
        let name = format!("skip-{}", skip.layers);
        let Some(point) = point(&skip.outcome, name, skip.label.clone()) else { continue };
        match best.iter_mut().find(|(layers, _)| *layers == skip.layers) {
            Some((_, known)) if point.kl < known.kl => *known = point,
            Some(_) => {}
            None => best.push((skip.layers, point)),
        }
    }
    let mut points: Vec<Point> = best.into_iter().map(|(_, point)| point).collect();
    points.sort_by(|a, b| a.params.total_cmp(&b.params));
    points
}

/// The students whose names have room: from the best on, those with no named neighbour at about the same place.
fn named<'a>(mut points: Vec<&'a Point>, kls: &[f64]) -> Vec<(f64, &'a str)> {
    points.sort_by(|a, b| a.kl.total_cmp(&b.kl));
    let mut columns: Vec<(f64, Labels)> = Vec::new();
    points.retain(|point| {
        let near = |(params, _): &&mut (f64, Labels)| (*params - point.params).abs() <= 0.1 * params.abs();
        match columns.iter_mut().find(near) {
            Some((_, labels)) => labels.place(point.kl),
            None => {
                let mut labels = Labels::new(kls);
                let free = labels.place(point.kl);
                columns.push((point.params, labels));
                free
            }
        }
    });
    points.into_iter().map(|point| (point.params, point.label.as_str())).collect()
}

fn unit(largest: f64) -> (f64, &'static str) {
    match largest {
        1e6.. => (1e6, ", in millions"),
        1e4.. => (1e3, ", in thousands"),
        _ => (1.0, ""),
    }
}

fn scatter(points: &[Point], scale: f64, named: impl Fn(&Point) -> bool) -> Box<Scatter<f64, f64>> {
    let hover = |point: &Point| {
        format!("{}<br>{}<br>KL {}", plain(&point.label), plain(&point.settings), in_prose(point.kl))
    };
    Scatter::new(points.iter().map(|p| p.params / scale).collect(), points.iter().map(|p| p.kl).collect())
        .text_array(points.iter().map(|p| if named(p) { plain(&p.label) } else { String::new() }).collect())
        .hover_text_array(points.iter().map(hover).collect())
        .hover_template("%{hovertext}<extra></extra>")
        .clip_on_axis(false)
}
