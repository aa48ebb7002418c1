//! Students and skip baselines, read from the rows that `scripts/ablate_steps.lua` logs.

use std::collections::HashMap;
use std::hash::Hash;

use super::input::{Record, Table};
pub use super::outcome::{Metric, Outcome};

/// One way to run one trained flow: `k` steps of a solver.
#[derive(Debug, Clone)]
pub struct Student {
    pub run: String,
    pub method: String,
    pub solver: String,
    pub k: i64,
    pub outcome: Outcome,
}

/// The teacher without some of its layers.
#[derive(Debug, Clone)]
pub struct Skip {
    /// As in `skip-2 best`.
    pub label: String,
    /// Number of layers left out.
    pub layers: i64,
    pub outcome: Outcome,
}

/// All that was measured about one block `{m,n}`.
#[derive(Debug, Clone)]
pub struct Block {
    /// As written in the rows, `{6,12}`; empty where the rows name none.
    pub name: String,
    pub students: Vec<Student>,
    pub skips: Vec<Skip>,
}

impl Block {
    /// The number of layers of the block, `n - m`.
    pub fn width(&self) -> Option<i64> {
        let (from, to) = self.name.trim_matches(['{', '}', ' ']).split_once(',')?;
        Some(to.trim().parse::<i64>().ok()? - from.trim().parse::<i64>().ok()?)
    }

    /// The student with the lowest KL.
    pub fn best(&self) -> Option<&Student> {
        lowest(self.students.iter())
    }

    /// The best student of every method and run name, lowest KL first.
    pub fn contenders(&self) -> Vec<&Student> {
        let mut best: Vec<(f64, &Student)> = Vec::new();
        for student in &self.students {
            let Some(kl) = student.outcome.mean(Metric::Kl) else { continue };
            let same = |known: &&mut (f64, &Student)| {
                (&known.1.run, &known.1.method) == (&student.run, &student.method)
            };
            match best.iter_mut().find(same) {
                Some(known) if kl < known.0 => *known = (kl, student),
                Some(_) => {}
                None => best.push((kl, student)),
            }
        }
        best.sort_by(|a, b| a.0.total_cmp(&b.0));
        best.into_iter().map(|(_, student)| student).collect()
    }

    /// The best student of every method, in order of first appearance.
    pub fn best_of_methods(&self) -> Vec<&Student> {
        let mut methods: Vec<&str> = Vec::new();
        for student in &self.students {
            if !methods.contains(&student.method.as_str()) {
                methods.push(&student.method);
            }
        }
        methods
            .iter()
            .filter_map(|method| lowest(self.students.iter().filter(|s| s.method == *method)))
            .collect()
    }

    /// The best KL of the baselines that leave out this many layers.
    pub fn skip_kl(&self, layers: i64) -> Option<f64> {
        let same = self.skips.iter().filter(|skip| skip.layers == layers);
        same.filter_map(|skip| skip.outcome.mean(Metric::Kl)).min_by(f64::total_cmp)
    }
}

fn lowest<'a>(students: impl Iterator<Item = &'a Student>) -> Option<&'a Student> {
    students
        .filter_map(|student| student.outcome.mean(Metric::Kl).map(|kl| (kl, student)))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, student)| student)
}

/// An ablation over blocks, methods, solvers and numbers of steps.
#[derive(Debug, Clone)]
pub struct Ablation {
    pub blocks: Vec<Block>,
    /// Rows without a finite KL, left out of sentences and KL charts.
    pub without_kl: usize,
}

impl Ablation {
    /// Reads an ablation; `None` where the rows have other columns (a user's own log).
    ///
    /// Rows of the same run name, method, block, solver and k are repetitions and become one mean. A skip baseline
    /// without a block belongs to every block.
    pub fn read(table: &Table) -> Option<Ablation> {
        if !table.has("method") || !Metric::ALL.iter().any(|metric| table.has(metric.column())) {
            return None;
        }
        let (skips, flows): (Vec<_>, Vec<_>) = table.records().partition(is_skip);
        let flows: Vec<Record> =
            flows.into_iter().filter(|r| r.text("method").is_some() && r.whole("k").is_some()).collect();
        let mut names: Vec<&str> = Vec::new();
        for record in flows.iter().chain(&skips) {
            let name = record.text("block").unwrap_or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.len() > 1 && flows.iter().all(|record| record.text("block").is_some()) {
            names.retain(|name| !name.is_empty());
        }
        let blocks: Vec<Block> = names.iter().map(|name| read_block(name, &flows, &skips)).collect();
        let without_kl = flows.iter().chain(&skips).filter(|record| record.number("kl").is_none()).count();
        blocks
            .iter()
            .any(|block| !block.students.is_empty() || !block.skips.is_empty())
            .then_some(Ablation { blocks, without_kl: if table.has("kl") { without_kl } else { 0 } })
    }
}

/// Whether a row is a baseline, the teacher without some layers.
pub fn is_skip(record: &Record) -> bool {
    record.text("kind") == Some("skip") || record.text("method") == Some("skip")
}

fn read_block(name: &str, flows: &[Record], skips: &[Record]) -> Block {
    let of_block = |record: &&Record| record.text("block").unwrap_or_default() == name;
    let text = |record: &Record, column| record.text(column).unwrap_or_default().to_string();
    let students = grouped(flows.iter().filter(of_block), |record| {
        (
            text(record, "run"),
            text(record, "method"),
            text(record, "solver"),
            record.whole("k").unwrap_or_default(),
        )
    });
    let mut students: Vec<Student> = students
        .into_iter()
        .map(|((run, method, solver, k), records)| Student {
            run,
            method,
            solver,
            k,
            outcome: Outcome::of(&records),
        })
        .collect();
    students.sort_by_key(|student| student.k);

    let skips = skips.iter().filter(|record| record.text("block").is_none() || of_block(record));
    let skips = grouped(skips, |record| {
        let layers = record.whole("count").or(record.whole("layers_removed")).unwrap_or_default();
        (layers, record.text("label").map_or_else(|| format!("skip-{layers}"), str::to_string))
    });
    let mut skips: Vec<Skip> = skips
        .into_iter()
        .map(|((layers, label), records)| Skip { label, layers, outcome: Outcome::of(&records) })
        .collect();
    skips.sort_by_key(|skip| skip.layers);
    Block { name: name.to_string(), students, skips }
}

/// Records of equal keys together, in order of first appearance.
fn grouped<'a, 'r: 'a, K: Clone + Eq + Hash>(
    records: impl Iterator<Item = &'a Record<'r>>,
    key: impl Fn(&Record<'r>) -> K,
) -> Vec<(K, Vec<Record<'r>>)> {
    let mut groups: Vec<(K, Vec<Record>)> = Vec::new();
    let mut known: HashMap<K, usize> = HashMap::new();
    for record in records {
        let key = key(record);
        let at = *known.entry(key.clone()).or_insert(groups.len());
        if at == groups.len() {
            groups.push((key, Vec::new()));
        }
        groups[at].1.push(*record);
    }
    groups
}
