//! The summary in words, computed from the rows.

use serde::Serialize;

use super::ablation::{Ablation, Block, Metric, Student};
use super::input::Report;
use super::number::{in_prose, plural};

/// What the page says before it shows anything.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    pub blocks: Vec<BlockVerdict>,
    /// Remarks on the rows as a whole.
    pub remarks: Vec<String>,
}

/// The summary of one block.
#[derive(Debug, Serialize)]
pub struct BlockVerdict {
    /// All in one line: `FW {3,9} midpoint k = 3: KL 0.410, 0.520 × skip-2, 3 seeds`.
    pub headline: String,
    /// The best student and its figures.
    pub lead: String,
    /// Whether it beats the baselines.
    pub judgement: String,
    /// Where the comparison is not even.
    pub caution: String,
    /// The baselines that methods are held against, as headings.
    pub baselines: Vec<String>,
    /// One line a method, when there are several.
    pub methods: Vec<MethodVerdict>,
}

/// The best student of one method.
#[derive(Debug, Serialize)]
pub struct MethodVerdict {
    pub name: String,
    pub kl: String,
    pub settings: String,
    /// KL relative to every baseline, and whether that beats it.
    pub against: Vec<String>,
}

/// The number of layers left out by the baseline that the paper holds its flow matching against.
const YARDSTICK: i64 = 2;

/// The verdict on a report's rows; `ablation` is absent for rows of other columns.
pub fn verdict(report: &Report, ablation: Option<&Ablation>) -> Verdict {
    let Some(ablation) = ablation else {
        let remarks = std::iter::once(contents(report)).chain(report.notes.iter().cloned()).collect();
        return Verdict { blocks: Vec::new(), remarks };
    };
    let blocks: Vec<_> = ablation.blocks.iter().filter_map(block_verdict).collect();
    let mut remarks = report.notes.clone();
    if blocks.is_empty() {
        remarks.push(contents(report));
    }
    if ablation.without_kl > 0 {
        remarks.push(format!(
            "{} without a finite KL (a diverged run, or one that did not measure it) took no part in this summary.",
            plural(ablation.without_kl, "row")
        ));
    }
    Verdict { blocks, remarks }
}

fn contents(report: &Report) -> String {
    let rows = plural(report.results.rows.len(), "row");
    let runs = plural(report.runs.len(), "run");
    match report.training.rows.len() {
        0 => format!("This report shows {rows} of results from {runs}."),
        steps => format!(
            "This report shows {rows} of results and {} of training from {runs}.",
            plural(steps, "logged step")
        ),
    }
}

fn block_verdict(block: &Block) -> Option<BlockVerdict> {
    let best = block.best()?;
    let measure = best.outcome.measure(Metric::Kl)?;
    let baselines = Baseline::all(block, best);
    let methods = block.best_of_methods();
    let methods = if methods.len() < 2 { Vec::new() } else { methods };
    Some(BlockVerdict {
        headline: headline(block, best, measure.mean),
        lead: lead(best, measure.mean, measure.count, &baselines),
        judgement: judgement(measure.mean, &baselines),
        caution: caution(best, measure.mean, &baselines),
        methods: methods.into_iter().filter_map(|student| method_verdict(student, &baselines)).collect(),
        baselines: baselines.into_iter().map(|baseline| baseline.name).collect(),
    })
}

fn lead(best: &Student, kl: f64, repetitions: usize, baselines: &[Baseline]) -> String {
    let name = method_name(&best.method);
    let mut text =
        format!("{name} with {} is best: its KL is {} nats per token", settings(best), in_prose(kl));
    let ratios =
        baselines.iter().map(|b| format!("{} × {} ({})", in_prose(kl / b.kl), b.name, in_prose(b.kl)));
    if let Some(ratios) = listed(ratios.collect(), "and") {
        text.push_str(&format!(", {ratios}"));
    }
    text.push('.');
    if let (Some(ppl), Some(teacher)) = (best.outcome.mean(Metric::Ppl), best.outcome.teacher_ppl) {
        text.push_str(&format!(" Its perplexity is {}, the teacher's {}.", in_prose(ppl), in_prose(teacher)));
    }
    if repetitions > 1 {
        let seeds = best.outcome.seeds;
        let noun = if seeds == repetitions { "seed" } else { "repetition" };
        text.push_str(&format!(" These are means of {}.", plural(repetitions, noun)));
    }
    text
}

fn headline(block: &Block, best: &Student, kl: f64) -> String {
    let method = match best.method.as_str() {
        short @ ("fm" | "fw") => short.to_uppercase(),
        other => other.to_string(),
    };
    let words = [method, block.name.clone(), best.solver.clone(), format!("k = {}", best.k)];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let mut facts = vec![format!("KL {}", in_prose(kl))];
    if let Some(skip) = block.skip_kl(YARDSTICK).filter(|skip| *skip > 0.0) {
        facts.push(format!("{} × skip-{YARDSTICK}", in_prose(kl / skip)));
    }
    if best.outcome.seeds > 0 {
        facts.push(plural(best.outcome.seeds, "seed"));
    }
    format!("{}: {}", words.join(" "), facts.join(", "))
}

fn judgement(kl: f64, baselines: &[Baseline]) -> String {
    let names = |won: bool| {
        let chosen = baselines.iter().filter(|baseline| (kl < baseline.kl) == won);
        listed(chosen.map(|baseline| baseline.name.clone()).collect(), if won { "and" } else { "or" })
    };
    match (names(true), names(false)) {
        (None, None) => "No skip baseline was measured, so there is nothing to hold it against.".into(),
        (Some(won), None) => format!("It beats {won}."),
        (None, Some(lost)) => format!("It does not beat {lost}."),
        (Some(won), Some(lost)) => format!("It does not beat {lost}, but it beats {won}."),
    }
}

/// Says so where a baseline that wins leaves out fewer layers than the student saves.
fn caution(best: &Student, kl: f64, baselines: &[Baseline]) -> String {
    let Some(saved) = best.outcome.layers_removed else { return String::new() };
    match baselines.iter().find(|baseline| baseline.kl <= kl && baseline.layers < saved) {
        Some(lost) => format!(
            "The two do not save the same: {} leaves out {}, the student {saved}.",
            lost.name,
            plural(lost.layers as usize, "layer")
        ),
        None => String::new(),
    }
}

fn method_verdict(student: &Student, baselines: &[Baseline]) -> Option<MethodVerdict> {
    let kl = student.outcome.mean(Metric::Kl)?;
    let against = |baseline: &Baseline| {
        let judged = if kl < baseline.kl { "beats it" } else { "does not beat it" };
        format!("{} ×, {judged}", in_prose(kl / baseline.kl))
    };
    Some(MethodVerdict {
        name: method_name(&student.method),
        kl: in_prose(kl),
        settings: settings(student),
        against: baselines.iter().map(against).collect(),
    })
}

/// The teacher without some layers, at its best.
struct Baseline {
    /// As in `skip-2`.
    name: String,
    layers: i64,
    kl: f64,
}

impl Baseline {
    /// What a student is held against, where it was measured: two layers left out, the most layers left out that are
    /// no more than the student saves, and the whole block.
    fn all(block: &Block, student: &Student) -> Vec<Baseline> {
        let saved = student.outcome.layers_removed.unwrap_or(0);
        let measured = |layers: &i64| block.skip_kl(*layers).is_some();
        let even = (YARDSTICK + 1..=saved).rev().find(measured);
        let mut layers: Vec<i64> = [Some(YARDSTICK), even, block.width()].into_iter().flatten().collect();
        layers.dedup();
        let baseline = |layers: i64| {
            let whole = block.width() == Some(layers);
            let name = if whole { "skipping the whole block".into() } else { format!("skip-{layers}") };
            block.skip_kl(layers).filter(|kl| *kl > 0.0).map(|kl| Baseline { name, layers, kl })
        };
        layers.into_iter().filter_map(baseline).collect()
    }
}

/// The full name of a training method.
pub fn method_name(method: &str) -> String {
    match method {
        "fm" => "Flow matching (fm)".into(),
        "fw" => "Flow walking (fw)".into(),
        "hybrid" => "Hybrid loss (hybrid)".into(),
        "regression" => "Regression".into(),
        other => other.into(),
    }
}

/// Solver and number of steps: `midpoint, k = 3`.
pub fn settings(student: &Student) -> String {
    match student.solver.as_str() {
        "" => format!("k = {}", student.k),
        solver => format!("{solver}, k = {}", student.k),
    }
}

/// `a`, `a and b`, `a, b and c`.
fn listed(mut items: Vec<String>, word: &str) -> Option<String> {
    let last = items.pop()?;
    Some(if items.is_empty() { last } else { format!("{} {word} {last}", items.join(", ")) })
}
