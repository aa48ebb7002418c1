//! The curves of one measure against solver steps, and which of them are drawn, shown and named.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::axes::Labels;
use crate::report::ablation::{Block, Metric, Student};
use crate::report::statistics::Sample;

/// Curves of one chart at most: those of the lowest means.
const LIMIT: usize = 60;

/// A curve: one method in one run with one solver.
pub struct Series<'a> {
    pub run: &'a str,
    pub method: &'a str,
    pub solver: &'a str,
    pub points: Vec<(i64, Sample)>,
}

/// The curves of a block, by method and run, and the number of those that are left out where there are too many: of
/// every method the ones of the lowest means stay.
pub fn series(block: &Block, metric: Metric) -> (Vec<Series<'_>>, usize) {
    let mut all: Vec<Series> = Vec::new();
    let mut known: HashMap<(&str, &str, &str), usize> = HashMap::new();
    for Student { run, method, solver, k, outcome } in &block.students {
        let Some(sample) = outcome.measure(metric) else { continue };
        let at = *known.entry((run, method, solver)).or_insert(all.len());
        if at == all.len() {
            all.push(Series { run, method, solver, points: Vec::new() });
        }
        all[at].points.push((*k, sample));
    }
    let mut methods: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, one) in all.iter().enumerate() {
        methods.entry(one.method).or_default().push(at);
    }
    let share = (LIMIT / methods.len().max(1)).max(1);
    let mut kept = BTreeSet::new();
    for mut group in methods.into_values() {
        group.sort_by(|&a, &b| all[a].lowest().total_cmp(&all[b].lowest()));
        kept.extend(group.into_iter().take(share));
    }
    let left_out = all.len() - kept.len();
    let mut drawn: Vec<Series> =
        all.into_iter().enumerate().filter(|(at, _)| kept.contains(at)).map(|(_, one)| one).collect();
    drawn.sort_by_key(|series| (series.method, series.run));
    (drawn, left_out)
}

impl Series<'_> {
    fn lowest(&self) -> f64 {
        self.points.iter().map(|(_, sample)| sample.mean).fold(f64::INFINITY, f64::min)
    }
}

/// Method and solver, and the run where the method was trained in several.
pub fn name(series: &Series, block: &Block) -> String {
    let several = block.students.iter().any(|s| s.method == series.method && s.run != series.run);
    let parts = [series.method, series.solver, if several { series.run } else { "" }];
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" · ")
}

/// The solvers drawn at first: Euler and midpoint, or the first two there are. The legend offers the others.
pub fn shown_solvers<'a>(series: &[Series<'a>]) -> Vec<&'a str> {
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
pub fn is_best(series: &Series, block: &Block) -> bool {
    block.best().is_some_and(|best| {
        (series.run, series.method, series.solver) == (&*best.run, &*best.method, &*best.solver)
    })
}

/// The series that carry their method's name at their end: one a method, from the lowest on, where there is room.
pub fn labelled(series: &[Series], visible: impl Fn(&Series) -> bool, values: &[f64]) -> Vec<usize> {
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
