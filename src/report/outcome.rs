//! What was measured of a student or a baseline, over its repetitions.

use super::input::Record;
use super::statistics::Sample;

/// A quality measure of a student, always "lower is better".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Kl,
    Nmse,
    Ppl,
}

impl Metric {
    pub const ALL: [Metric; 3] = [Metric::Kl, Metric::Nmse, Metric::Ppl];

    /// The name of its column.
    pub fn column(self) -> &'static str {
        match self {
            Metric::Kl => "kl",
            Metric::Nmse => "nmse",
            Metric::Ppl => "ppl",
        }
    }
}

/// What students and skip baselines have in common.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    measures: [Option<Sample>; 3],
    pub teacher_ppl: Option<f64>,
    /// Layers the model is shorter by.
    pub layers_removed: Option<i64>,
    /// Parameters removed, net of those the flow adds.
    pub params_removed: Option<f64>,
    /// Wall-clock seconds of the evaluation over the tokens evaluated.
    pub seconds_per_token: Option<f64>,
    /// Evaluations of the velocity field.
    pub nfe: Option<f64>,
    /// How many seeds the rows come from; 0 where they name none.
    pub seeds: usize,
}

impl Outcome {
    /// The means over rows that repeat one measurement.
    pub fn of(records: &[Record]) -> Outcome {
        let sample = |column| Sample::of(records.iter().filter_map(|record| record.number(column)));
        let first = |name| records.iter().find_map(|record| record.number(name));
        Outcome {
            measures: Metric::ALL.map(|metric| sample(metric.column())),
            teacher_ppl: first("teacher_ppl"),
            layers_removed: records.iter().find_map(|record| record.whole("layers_removed")),
            params_removed: first("params_removed"),
            seconds_per_token: Sample::of(records.iter().filter_map(seconds_per_token)).map(|s| s.mean),
            nfe: sample("nfe").map(|nfe| nfe.mean),
            seeds: seeds(records),
        }
    }

    pub fn measure(&self, metric: Metric) -> Option<Sample> {
        self.measures[metric as usize]
    }

    pub fn mean(&self, metric: Metric) -> Option<f64> {
        self.measure(metric).map(|measure| measure.mean)
    }
}

fn seconds_per_token(record: &Record) -> Option<f64> {
    let tokens = record.number("tokens").filter(|tokens| *tokens > 0.0)?;
    Some(record.number("seconds")? / tokens)
}

fn seeds(records: &[Record]) -> usize {
    let mut seeds: Vec<i64> = records.iter().filter_map(|record| record.whole("seed")).collect();
    seeds.sort_unstable();
    seeds.dedup();
    seeds.len()
}
