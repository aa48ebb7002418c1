//! KL, NMSE and perplexity against the number of solver steps.

use plotly::common::{DashType, Fill, Font, HoverInfo, Line, Marker, Mode, Position, Visible};
use plotly::{Plot, Scatter};

use super::axes::Labels;
use super::{Chart, Tools, axes, json, on_block};
use crate::report::ablation::{Ablation, Block, Metric, Skip, Student};
use crate::report::number::{in_prose, plural};
use crate::report::statistics::Sample;
use crate::report::style::{self, plain};

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

/// A curve: one method in one run with one solver.
struct Series<'a> {
    run: &'a str,
    method: &'a str,
    solver: &'a str,
    points: Vec<(i64, Sample)>,
}

fn chart(block: &Block, at: usize, metric: Metric, methods: &[String]) -> Option<Chart> {
    let series = series(block, metric);
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

fn series(block: &Block, metric: Metric) -> Vec<Series<'_>> {
    let mut all: Vec<Series> = Vec::new();
    for Student { run, method, solver, k, outcome } in &block.students {
        let Some(measure) = outcome.measure(metric) else { continue };
        let same = |s: &&mut Series| s.run == run && s.method == method && s.solver == solver;
        match all.iter_mut().find(same) {
            Some(series) => series.points.push((*k, measure)),
            None => all.push(Series { run, method, solver, points: vec![(*k, measure)] }),
        }
    }
    all.sort_by_key(|s| (s.method.to_string(), s.run.to_string()));
    all
}

/// Method and solver, and the run where the method was trained in several.
fn name(series: &Series, block: &Block) -> String {
    let several = block.students.iter().any(|s| s.method == series.method && s.run != series.run);
    let parts = [series.method, series.solver, if several { series.run } else { "" }];
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" · ")
}

/// The solvers drawn at first: Euler and midpoint, or the first two there are. The legend offers the others.
fn shown_solvers<'a>(series: &[Series<'a>]) -> Vec<&'a str> {
    let mut solvers: Vec<&str> = Vec::new();
    for one in series {
        if !solvers.contains(&one.solver) {
            solvers.push(one.solver);
        }
    }
    let usual: Vec<&str> =
        solvers.iter().copied().filter(|solver| ["", "euler", "midpoint"].contains(solver)).collect();
    if usual.is_empty() { solvers.into_iter().take(2).collect() } else { usual }
}

/// The series of the student that the summary praises is always drawn.
fn is_best(series: &Series, block: &Block) -> bool {
    block.best().is_some_and(|best| {
        (series.run, series.method, series.solver) == (&*best.run, &*best.method, &*best.solver)
    })
}

/// The series that carry their method's name at their end: one a method, from the lowest on, where there is room.
fn labelled(series: &[Series], visible: impl Fn(&Series) -> bool, values: &[f64]) -> Vec<usize> {
    let last = series.iter().filter_map(|one| one.points.last()).map(|(k, _)| *k).max();
    let ends = series.iter().enumerate().filter(|(_, one)| visible(one)).filter_map(|(at, one)| {
        one.points.last().filter(|(k, _)| Some(*k) == last).map(|(_, end)| (at, end.mean))
    });
    let mut ends: Vec<(usize, f64)> = ends.collect();
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (mut labels, mut methods) = (Labels::new(values), Vec::new());
    ends.retain(|(at, end)| {
        let fresh = !methods.contains(&series[*at].method) && labels.place(*end);
        if fresh {
            methods.push(series[*at].method);
        }
        fresh
    });
    ends.into_iter().map(|(at, _)| at).collect()
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

/// A horizontal line with its name on it, where there is room for the name.
fn reference(
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

fn curve(
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
fn band(series: &Series, name: &str, methods: &[String], visible: bool) -> Option<Box<Scatter<f64, f64>>> {
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
