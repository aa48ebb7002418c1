//! KL, NMSE and perplexity against the number of solver steps.

use plotly::Plot;
use plotly::common::DashType;

use super::axes::Labels;
use super::series::{Series, is_best, labelled, name, series, shown_solvers};
use super::strokes::{band, curve, reference};
use super::{Chart, Tools, axes, json, on_block};
use crate::report::ablation::{Ablation, Block, Metric, Skip};
use crate::report::number::count;

/// One chart a measure and block.
pub fn charts(ablation: &Ablation) -> Vec<Chart> {
    let methods = methods(ablation);
    let drawn = ablation.blocks.iter().enumerate().flat_map(|(at, block)| {
        let methods = &methods;
        Metric::ALL.iter().filter_map(move |metric| chart(block, at, *metric, methods))
    });
    drawn.collect()
}

/// All methods in order of appearance.
pub fn methods(ablation: &Ablation) -> Vec<String> {
    let mut methods: Vec<String> = Vec::new();
    for student in ablation.blocks.iter().flat_map(|block| &block.students) {
        if !methods.contains(&student.method) {
            methods.push(student.method.clone());
        }
    }
    methods
}

fn chart(block: &Block, at: usize, metric: Metric, methods: &[String]) -> Option<Chart> {
    let (series, left_out) = series(block, metric);
    let mut ks: Vec<i64> = series.iter().flat_map(|s| s.points.iter().map(|(k, _)| *k)).collect();
    ks.sort_unstable();
    ks.dedup();
    let last = *ks.last()? as f64;

    let baselines = best_skips(block, metric);
    let teacher = (metric == Metric::Ppl).then(|| teacher_ppl(block)).flatten();
    let values: Vec<f64> = series
        .iter()
        .flat_map(|s| s.points.iter().map(|(_, measure)| measure.mean))
        .chain(baselines.iter().map(|(_, value)| *value))
        .chain(teacher)
        .collect();

    let (x, first) = axes::steps("solver steps k", &ks);
    let mut plot = Plot::new();
    let mut names = Labels::new(&values);
    if let Some(ppl) = teacher {
        plot.add_trace(reference("teacher", ppl, (first, last), DashType::Solid, names.place(ppl)));
    }
    for (skip, value) in &baselines {
        plot.add_trace(reference(&skip.label, *value, (first, last), DashType::Dot, names.place(*value)));
    }
    let shown = shown_solvers(&series);
    let visible = |one: &Series| shown.contains(&one.solver) || is_best(one, block);
    let labelled = labelled(&series, visible, &values);
    for (at, one) in series.iter().enumerate() {
        let name = name(one, block);
        if let Some(band) = band(one, &name, methods, visible(one)) {
            plot.add_trace(band);
        }
        plot.add_trace(curve(one, name, methods, visible(one), labelled.contains(&at)));
    }
    let (what, unit, mut reading) = words(metric);
    let most = series.iter().flat_map(|s| s.points.iter().map(|(_, sample)| sample.count)).max().unwrap_or(1);
    if most > 1 {
        reading.push_str(BANDS);
    }
    if left_out > 0 {
        let note =
            format!(" Of each method the lowest curves are drawn, {} are not.", count(left_out as i64));
        reading.push_str(&note);
    }
    Some(Chart {
        id: format!("{}-{at}", metric.column()),
        title: format!("{what} against solver steps{}", on_block(&block.name)),
        reading,
        tools: Tools::Scale,
        json: json(plot, axes::layout(x, axes::fitting(unit, &values))),
    })
}

/// What bands mean, see [`Sample::band`].
const BANDS: &str = " Lines are means over repetitions; a band is the 95 % interval of the mean by Student's t (of two \
                     repetitions, their range). Where bands overlap widely, the curves cannot be told apart.";

fn words(metric: Metric) -> (&'static str, &'static str, String) {
    let (what, unit, reading) = match metric {
        Metric::Kl => (
            "KL divergence",
            "KL in nats per token",
            "lower is closer to the teacher; a curve below a dotted line beats the teacher with that many layers left \
             out.",
        ),
        Metric::Nmse => (
            "Error of the transported latents",
            "NMSE",
            "0 would be the teacher's own latents at the end of the block; a curve that falls and then flattens has \
             enough steps where it flattens.",
        ),
        Metric::Ppl => (
            "Perplexity",
            "perplexity per token",
            "the solid grey line is the teacher, which a student can approach but is not expected to beat; dotted \
             lines are the teacher with layers left out.",
        ),
    };
    (what, unit, reading.to_string())
}

/// The best baseline of every number of layers left out.
fn best_skips(block: &Block, metric: Metric) -> Vec<(&Skip, f64)> {
    let mut best: Vec<(&Skip, f64)> = Vec::new();
    for skip in &block.skips {
        let Some(value) = skip.outcome.mean(metric) else { continue };
        match best.iter_mut().find(|(known, _)| known.layers == skip.layers) {
            Some(known) if value < known.1 => *known = (skip, value),
            Some(_) => {}
            None => best.push((skip, value)),
        }
    }
    best
}

fn teacher_ppl(block: &Block) -> Option<f64> {
    let students = block.students.iter().map(|student| &student.outcome);
    students.chain(block.skips.iter().map(|skip| &skip.outcome)).find_map(|outcome| outcome.teacher_ppl)
}
