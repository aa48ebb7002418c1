//! KL against what a student costs to run: time, and evaluations of the flow.

use plotly::common::LineShape;
use serde_json::{Value, json};

use super::front::{front, line};
use super::steps::methods;
use super::{Chart, Tools, axes, drawing, on_block};
use crate::report::ablation::{Ablation, Block, Metric, Outcome};
use crate::report::number::in_prose;
use crate::report::style::{self, plain};

/// A cost on the horizontal axis.
struct Cost {
    id: &'static str,
    title: &'static str,
    axis: &'static str,
    /// What counts as cost, where the axis does not say it; with a space in front.
    meaning: &'static str,
    of: fn(&Outcome) -> Option<f64>,
}

const COSTS: [Cost; 2] = [
    Cost {
        id: "time",
        title: "KL divergence against time",
        axis: "milliseconds per 1,000 tokens evaluated",
        meaning: " Time counts from the block on, as lft.eval measures it: the layers before the block, which all of these \
                  share, are not in it; those behind it and the comparison with the teacher are.",
        of: |outcome| outcome.seconds_per_token.map(|seconds| seconds * 1e6),
    },
    Cost {
        id: "nfe",
        title: "KL divergence against evaluations of the flow",
        axis: "evaluations of the velocity field (NFE)",
        meaning: "",
        of: |outcome| outcome.nfe.filter(|nfe| *nfe > 0.0),
    },
];

/// Points of one method at most: those of the lowest KL.
const POINTS: usize = 400;

/// One chart a cost and block, where the rows know that cost and it differs.
pub fn charts(ablation: &Ablation) -> Vec<Chart> {
    let methods = methods(ablation);
    let blocks = ablation.blocks.iter().enumerate();
    let each = blocks.flat_map(|(at, block)| COSTS.iter().map(move |cost| (at, block, cost)));
    each.filter_map(|(at, block, cost)| chart(block, at, cost, &methods)).collect()
}

/// One way to run a model: cost, KL, and what it is.
struct Point {
    cost: f64,
    kl: f64,
    words: String,
}

fn point(outcome: &Outcome, cost: &Cost, words: String) -> Option<Point> {
    Some(Point { cost: (cost.of)(outcome)?, kl: outcome.mean(Metric::Kl)?, words })
}

fn chart(block: &Block, at: usize, cost: &Cost, methods: &[String]) -> Option<Chart> {
    let students = |method: &String| -> Vec<Point> {
        let of_method = block.students.iter().filter(|student| student.method == *method);
        let words = |solver: &str, k: i64| format!("{method} {solver} k = {k}").replace("  ", " ");
        let drawn =
            of_method.filter_map(|student| point(&student.outcome, cost, words(&student.solver, student.k)));
        drawn.collect()
    };
    let skips = block.skips.iter();
    let skips: Vec<Point> = skips.filter_map(|skip| point(&skip.outcome, cost, skip.label.clone())).collect();
    let mut groups: Vec<(&str, &str, Vec<Point>)> = methods
        .iter()
        .map(|method| (method.as_str(), style::colour(method, methods), students(method)))
        .chain([("layers left out", style::REFERENCE, skips)])
        .filter(|(_, _, points)| !points.is_empty())
        .collect();

    let all: Vec<(f64, f64)> =
        groups.iter().flat_map(|(_, _, points)| points.iter().map(|p| (p.cost, p.kl))).collect();
    if all.iter().all(|(cost, _)| *cost == all[0].0) {
        return None;
    }
    let left_out = keep_best(&mut groups);
    let mut traces = Vec::new();
    let unbeaten = front(&all).into_iter().map(|at| all[at]).collect();
    if let Some(line) = line(unbeaten, LineShape::Hv) {
        traces.push(serde_json::to_value(line).unwrap_or_default());
    }
    for (name, colour, points) in &groups {
        traces.push(scatter(name, colour, points));
    }
    let (costs, kls): (Vec<f64>, Vec<f64>) = all.into_iter().unzip();
    let cut = match left_out {
        0 => String::new(),
        _ => format!(" Of each method the {POINTS} points of the lowest KL are drawn."),
    };
    let x = axes::fitting(cost.axis, &costs);
    let y = axes::fitting("KL in nats per token", &kls);
    Some(Chart {
        id: format!("{}-{at}", cost.id),
        title: format!("{}{}", cost.title, on_block(&block.name)),
        reading: format!(
            "left is cheaper, down is closer to the teacher; nothing measured here is both cheaper and closer than a point \
             on the grey stairs. Every point is one solver and k (hover to see which).{}{cut}",
            cost.meaning
        ),
        tools: Tools::Scale,
        json: drawing(traces, axes::layout(x, y)),
    })
}

/// Drops all but the best points of every group; returns how many went.
fn keep_best(groups: &mut [(&str, &str, Vec<Point>)]) -> usize {
    let mut left_out = 0;
    for (_, _, points) in groups {
        points.sort_by(|a, b| a.kl.total_cmp(&b.kl));
        left_out += points.len().saturating_sub(POINTS);
        points.truncate(POINTS);
    }
    left_out
}

fn scatter(name: &str, colour: &str, points: &[Point]) -> Value {
    let hover = |point: &Point| format!("{}<br>KL {}", plain(&point.words), in_prose(point.kl));
    json!({
        "type": "scatter", "mode": "markers", "name": plain(name), "cliponaxis": false,
        "x": points.iter().map(|point| point.cost).collect::<Vec<_>>(),
        "y": points.iter().map(|point| point.kl).collect::<Vec<_>>(),
    "marker": {"color": colour, "size": 9, "symbol": if colour == style::REFERENCE { "x" } else { "circle" }},
        "hovertext": points.iter().map(hover).collect::<Vec<_>>(), "hovertemplate": "%{hovertext}<br>%{x:.4g}<extra></extra>",
    })
}
