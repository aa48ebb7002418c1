//! Training curves: rows put together by run, repetitions into one line with a band, and their traces.

use std::collections::HashMap;

use plotly::Scatter;
use plotly::common::{Fill, HoverInfo, Line as Stroke, Mode, Visible};

use crate::report::downsample::{largest_triangles, smooth};
use crate::report::input::Table;
use crate::report::style;

/// The share of a run over which the weights of the smoothing halve.
const SMOOTHING: f64 = 0.01;

/// One line of the chart: a training, or several of one run name with equal steps, which differ by their seed.
pub struct Line<'a> {
    pub block: &'a str,
    pub method: &'a str,
    pub run: &'a str,
    /// The run, the first of several.
    pub run_id: &'a str,
    steps: Vec<f64>,
    /// The losses of every repetition, in the order of the steps.
    repetitions: Vec<Vec<f64>>,
}

/// How a line looks.
pub struct Curve<'a> {
    pub name: &'a str,
    /// What the legend shows and hides together.
    pub group: &'a str,
    pub colour: &'static str,
    pub visible: bool,
}

/// Block, method, run name and run id of a curve.
type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

/// All lines in order of first appearance; none where the rows have no `step` and `loss`.
pub fn read(training: &Table) -> Vec<Line<'_>> {
    if !training.has("step") || !training.has("loss") {
        return Vec::new();
    }
    let mut curves: Vec<(Key, Vec<(f64, f64)>)> = Vec::new();
    let mut known: HashMap<Key, usize> = HashMap::new();
    for record in training.records() {
        let (Some(step), Some(loss)) = (record.number("step"), record.number("loss")) else { continue };
        let text = |column| record.text(column).unwrap_or_default();
        let key = (text("block"), text("method"), text("run"), text("run_id"));
        let at = *known.entry(key).or_insert(curves.len());
        if at == curves.len() {
            curves.push((key, Vec::new()));
        }
        curves[at].1.push((step, loss));
    }
    let mut lines: Vec<Line> = Vec::new();
    let mut places: HashMap<(&str, &str, &str, usize), Vec<usize>> = HashMap::new();
    for ((block, method, run, run_id), mut points) in curves {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (steps, losses): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
        let candidates = places.entry((block, method, run, steps.len())).or_default();
        match candidates.iter().find(|&&at| lines[at].steps == steps) {
            Some(&at) => lines[at].repetitions.push(losses),
            None => {
                candidates.push(lines.len());
                lines.push(Line { block, method, run, run_id, steps, repetitions: vec![losses] });
            }
        }
    }
    lines
}

impl<'a> Line<'a> {
    pub fn key(&self) -> (&'a str, &'a str) {
        (self.run, self.run_id)
    }

    pub fn repetitions(&self) -> usize {
        self.repetitions.len()
    }

    /// The mean of the last tenth of the losses.
    pub fn end(&self) -> f64 {
        let from = self.steps.len() - self.steps.len().div_ceil(10);
        let last: Vec<f64> = self.repetitions.iter().flat_map(|losses| &losses[from..]).copied().collect();
        last.iter().sum::<f64>() / last.len().max(1) as f64
    }

    pub fn losses(&self) -> impl Iterator<Item = f64> {
        self.repetitions.iter().flatten().copied()
    }

    /// Logged and smoothed losses and, of repetitions, the band, each of at most `limit` points. Of the logged ones stays
    /// every n-th, which keeps their spread true; of the smoothed ones stay those that [`largest_triangles`] chooses, which keep the shape as it is
    /// seen on a linear or logarithmic (`log`) axis.
    pub fn traces(&self, look: &Curve, log: bool, limit: usize) -> Vec<Scatter<f64, f64>> {
        let mean = self
            .over_repetitions(&self.repetitions, |values| values.iter().sum::<f64>() / values.len() as f64);
        let smoothed = self.smoothed(&mean);
        let base = |steps, losses| {
            let visible = if look.visible { Visible::True } else { Visible::LegendOnly };
            Scatter::<f64, f64>::new(steps, losses).name(look.name).legend_group(look.group).visible(visible)
        };
        let stride = self.steps.len().div_ceil(limit);
        let every = |values: &[f64]| values.iter().step_by(stride).map(|value| rounded(*value)).collect();
        let raw = base(every(&self.steps), every(&mean))
            .meta("raw")
            .show_legend(false)
            .mode(Mode::Lines)
            .line(Stroke::new().color(look.colour).width(1.0))
            .opacity(0.3)
            .hover_info(HoverInfo::Skip);
        let (steps, losses) = thinned(&self.steps, &smoothed, log, limit);
        let line = base(steps, losses)
            .meta("line")
            .mode(Mode::Lines)
            .line(Stroke::new().color(look.colour).width(2.0))
            .hover_template("%{fullData.name}<br>step %{x}: %{y:.4g}<extra></extra>");
        let band = (self.repetitions() > 1).then(|| {
            let (steps, losses) = self.band(limit);
            base(steps, losses)
                .meta("band")
                .show_legend(false)
                .mode(Mode::Lines)
                .fill(Fill::ToSelf)
                .fill_color(style::faint(look.colour))
                .line(Stroke::new().width(0.0))
                .hover_info(HoverInfo::Skip)
        });
        [Some(raw), band, Some(line)].into_iter().flatten().map(|trace| *trace).collect()
    }

    /// The outline of the band: there along its upper edge, back along its lower one.
    fn band(&self, limit: usize) -> (Vec<f64>, Vec<f64>) {
        let smoothed: Vec<Vec<f64>> = self.repetitions.iter().map(|losses| self.smoothed(losses)).collect();
        let high = self.over_repetitions(&smoothed, |values| values.iter().copied().fold(f64::MIN, f64::max));
        let low = self.over_repetitions(&smoothed, |values| values.iter().copied().fold(f64::MAX, f64::min));
        let stride = self.steps.len().div_ceil(limit.div_ceil(2));
        let there = self.steps.iter().zip(&high).step_by(stride);
        let back: Vec<(&f64, &f64)> = self.steps.iter().zip(&low).step_by(stride).collect();
        there.chain(back.into_iter().rev()).map(|(step, loss)| (*step, rounded(*loss))).unzip()
    }

    fn smoothed(&self, losses: &[f64]) -> Vec<f64> {
        smooth(losses, losses.len() as f64 * SMOOTHING)
    }

    fn over_repetitions(&self, curves: &[Vec<f64>], of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let mut values = vec![0.0; curves.len()];
        let at_step = |at: usize| {
            for (value, curve) in values.iter_mut().zip(curves) {
                *value = curve[at];
            }
            of(&values)
        };
        (0..self.steps.len()).map(at_step).collect()
    }
}

/// At most `limit` points, chosen by the shape that will be seen.
fn thinned(steps: &[f64], losses: &[f64], log: bool, limit: usize) -> (Vec<f64>, Vec<f64>) {
    let seen = losses.iter().map(|loss| if log { loss.log10() } else { *loss });
    let seen: Vec<(f64, f64)> = steps.iter().copied().zip(seen).collect();
    largest_triangles(&seen, limit).into_iter().map(|at| (steps[at], rounded(losses[at]))).unzip()
}

/// Five significant digits: what a chart can show, in a third of the bytes.
fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::input::Cell;
    use crate::report::samples::{table, text};

    fn training(runs: &[(&str, &str, usize)]) -> Table {
        let mut rows = Vec::new();
        for (at, (run, id, steps)) in runs.iter().enumerate() {
            for step in 0..*steps {
                let loss = Cell::Number(at as f64 + 1.0 / (1.0 + step as f64));
                rows.push(vec![text(run), text(id), text("fm"), Cell::Int(step as i64), loss]);
            }
        }
        table(&["run", "run_id", "method", "step", "loss"], rows)
    }

    #[test]
    fn runs_of_one_name_and_equal_steps_are_one_line() {
        let table = training(&[("a", "a-1", 5), ("a", "a-2", 5), ("a", "a-3", 7), ("b", "b-1", 5)]);
        let lines = read(&table);
        let found: Vec<_> = lines.iter().map(|line| (line.run_id, line.repetitions())).collect();
        assert_eq!(found, [("a-1", 2), ("a-3", 1), ("b-1", 1)]);
        let look = Curve { name: "a", group: "0", colour: "#0072B2", visible: true };
        assert_eq!(lines[0].traces(&look, true, 100).len(), 3, "logged, band and smoothed");
        assert_eq!(lines[1].traces(&look, true, 100).len(), 2);
    }

    #[test]
    fn the_band_reaches_from_the_lowest_to_the_highest() {
        let table = training(&[("a", "a-1", 300), ("a", "a-2", 300)]);
        let lines = read(&table);
        let (steps, losses) = lines[0].band(1000);
        assert_eq!((steps.len(), steps[0], steps[599]), (600, 0.0, 0.0));
        assert!((losses[0] - losses[599] - 1.0).abs() < 1e-3, "the two runs are 1 apart");
        assert!(lines[0].band(100).0.len() <= 101);
    }
}
