//! Loss against step.

use std::collections::{BTreeMap, BTreeSet};

use plotly::Plot;

use super::curves::{Curve, Line, read};
use super::{Chart, Tools, axes, json, on_block};
use crate::report::input::Table;
use crate::report::number::count;
use crate::report::style::{self, plain};

/// Points drawn of one curve at most.
const POINTS_PER_LINE: usize = 1000;

/// Points drawn on one page at most, so that a report over hundreds of runs stays small and quick.
const POINTS_PER_PAGE: usize = 60_000;

/// Curves drawn on one page at most: of each block and method those that end lowest.
const LINES: usize = 80;

/// Curves of one chart that are seen at first; the legend offers the others.
const SHOWN: usize = 24;

/// One chart a block; none where the rows have no `step` and `loss`.
pub fn charts(training: &Table) -> Vec<Chart> {
    let (lines, left_out) = lowest(read(training));
    let limit = (POINTS_PER_PAGE / lines.len().max(1)).clamp(50, POINTS_PER_LINE);
    let mut methods: Vec<String> = lines.iter().map(|line| line.method.to_string()).collect();
    methods.dedup();
    let mut blocks: Vec<&str> = Vec::new();
    for line in &lines {
        if !blocks.contains(&line.block) {
            blocks.push(line.block);
        }
    }
    let of_block = |block: &str| lines.iter().filter(|line| line.block == block).collect::<Vec<_>>();
    let draw = |(at, block): (usize, &&str)| {
        let mut chart = chart(block, at, &of_block(block), &methods, limit);
        if left_out > 0 {
            let note = format!(
                " Of each method the curves that end lowest are drawn, {} are not.",
                count(left_out as i64)
            );
            chart.reading.push_str(&note);
        }
        chart
    };
    blocks.iter().enumerate().map(draw).collect()
}

/// The curves to draw, in their order, and the number of the others. Losses of different methods cannot be compared, so
/// every block and method keeps its share.
fn lowest(lines: Vec<Line>) -> (Vec<Line>, usize) {
    let all = lines.len();
    let mut groups: BTreeMap<(&str, &str), Vec<(usize, f64)>> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        groups.entry((line.block, line.method)).or_default().push((at, line.end()));
    }
    let share = (LINES / groups.len().max(1)).max(1);
    let mut kept = BTreeSet::new();
    for mut group in groups.into_values() {
        group.sort_by(|a, b| a.1.total_cmp(&b.1));
        kept.extend(group.into_iter().take(share).map(|(at, _)| at));
    }
    let lines: Vec<Line> =
        lines.into_iter().enumerate().filter(|(at, _)| kept.contains(at)).map(|(_, l)| l).collect();
    let left_out = all - lines.len();
    (lines, left_out)
}

fn chart(block: &str, at: usize, lines: &[&Line], methods: &[String], limit: usize) -> Chart {
    let losses: Vec<f64> = lines.iter().flat_map(|line| line.losses()).collect();
    let log = losses.iter().all(|loss| *loss > 0.0);
    let coloured = lines.iter().any(|line| !line.method.is_empty());
    let mut plot = Plot::new();
    for (place, line) in lines.iter().enumerate() {
        let colour = if coloured { style::colour(line.method, methods) } else { style::nth(place) };
        let name = name(line, lines);
        let curve = Curve { name: &name, group: &format!("{place}"), colour, visible: place < SHOWN };
        for trace in line.traces(&curve, log, limit) {
            plot.add_trace(Box::new(trace));
        }
    }
    let title = "loss";
    let y = if log { axes::logarithmic(title, &losses) } else { axes::linear(title) };
    let bands = if lines.iter().any(|line| line.repetitions() > 1) {
        " Of repetitions (seeds), both lines are the mean, and the band reaches from the lowest to the highest."
    } else {
        ""
    };
    Chart {
        id: format!("training-{at}"),
        title: format!("Training loss against step{}", on_block(block)),
        reading: format!(
            "faint lines are logged losses (at most {limit} points a curve), bold ones their average (weights halve with \
             every 1 % of the run to either side, or what the slider says); a bold line still falling at its end would gain \
             from more steps. Losses of different methods measure different things: compare shapes, not \
             heights.{bands}"
        ),
        tools: Tools::Curves,
        json: json(plot, axes::layout(axes::linear("training step"), y)),
    }
}

/// The method, and the run where the method was trained in several.
fn name(line: &Line, lines: &[&Line]) -> String {
    let others = || lines.iter().filter(|other| other.method == line.method && other.key() != line.key());
    let run = match (others().next(), others().any(|other| other.run == line.run)) {
        (None, _) if !line.method.is_empty() => "",
        (_, true) => line.run_id,
        (_, false) => line.run,
    };
    let count = match line.repetitions() {
        1 => String::new(),
        count => format!("{count} repetitions"),
    };
    let parts = [line.method, run, &count];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "loss".into() } else { plain(&parts.join(" · ")) }
}
