//! The table of results as the page shows it: headings, alignment, formatted cells.

use serde::Serialize;

use super::ablation::{Ablation, is_skip};
use super::input::{Cell, Record, Table};
use super::number;

/// Cells shown on one page at most, which keeps a report over hundreds of runs under 8 MiB.
const CELLS: usize = 60_000;

/// Characters of a text cell at most.
const TEXT: usize = 200;

/// A table for the page.
#[derive(Debug, Default, Serialize)]
pub struct Grid {
    pub headings: Vec<Heading>,
    pub rows: Vec<Vec<Shown>>,
    /// Rows that did not fit.
    pub left_out: usize,
    /// Columns that hold one and the same value everywhere, as `heading: value`.
    pub constant: Vec<String>,
}

/// The head of a column.
#[derive(Debug, Serialize)]
pub struct Heading {
    /// The column's own name.
    pub column: String,
    pub text: String,
    /// What it means and its unit, where known.
    pub meaning: String,
    pub numeric: bool,
}

/// A formatted cell.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    pub text: String,
    pub numeric: bool,
    /// Whether it is the lowest of a measure of which less is better.
    pub best: bool,
}

/// Known columns in reading order: name, heading, meaning.
const KNOWN: [(&str, &str, &str); 30] = [
    ("run", "run", "name of the run"),
    ("seed", "seed", "seed of the run"),
    ("block", "block", "{m,n}: layers m to n − 1 are replaced"),
    ("method", "method", "how the flow was trained; skip: layers left out"),
    ("label", "label", "name of the row"),
    ("solver", "solver", "integrates the flow"),
    ("k", "k", "solver steps"),
    ("kl", "KL", "KL(teacher ‖ student), nats per token; lower is better"),
    (RATIO, "KL ÷ skip‑2", "KL relative to the best baseline without two layers; below 1 is better than it"),
    ("nmse", "NMSE", "normalised squared error of the transported latents; lower is better"),
    ("ppl", "PPL", "perplexity per token; lower is better"),
    ("teacher_ppl", "teacher PPL", "the teacher's perplexity on the same tokens"),
    ("nfe", "NFE", "evaluations of the velocity field"),
    ("layers_removed", "layers removed", "layers the model is shorter by"),
    ("params_removed", "parameters removed", "parameters removed, net of those added"),
    ("from", "from layer", "first layer left out"),
    ("count", "layers skipped", "number of layers left out"),
    ("tokens", "tokens", "tokens evaluated or trained on"),
    ("step", "step", "training step"),
    ("loss", "loss", "training loss"),
    ("lr", "learning rate", ""),
    ("seconds", "time / s", "wall-clock seconds"),
    ("name", "name", "what the script calls it"),
    ("median", "median / s", "median time of one call in seconds"),
    ("ci_lo", "from / s", "lower end of the 95 % interval of the median"),
    ("ci_hi", "to / s", "upper end of the 95 % interval of the median"),
    ("mad", "MAD / s", "median absolute deviation of the time"),
    ("throughput", "throughput", "units per second"),
    ("ratio", "ratio", "time over that of the row it was held against, in pairs"),
    ("run_id", "run id", "folder of the run"),
];

/// The computed column of KL over the KL of the best skip of two layers.
const RATIO: &str = "kl / skip-2";

/// Columns of which less is better.
const MEASURES: [&str; 4] = ["kl", RATIO, "nmse", "ppl"];

/// Columns that stay in the table even where they hold one value only.
const ALWAYS: [&str; 7] = ["block", "method", "solver", "k", "kl", "nmse", "ppl"];

/// Builds the table of results; with an ablation, rows are sorted by block and KL and compared with skip-2.
pub fn grid(table: &Table, ablation: Option<&Ablation>) -> Grid {
    let mut table = table.clone();
    if let Some(ablation) = ablation {
        compare(&mut table, ablation);
        sort(&mut table);
    }
    let (columns, constant) = choose(&table);
    let numeric: Vec<bool> = columns.iter().map(|&at| is_numeric(&table, at)).collect();
    let headings = columns.iter().zip(&numeric).map(|(&at, &numeric)| heading(&table.columns[at], numeric));
    let fitting = CELLS / columns.len().max(1);
    let lowest: Vec<Option<f64>> = columns.iter().map(|&at| lowest(&table, at)).collect();
    let shown = |row: &Vec<Cell>| {
        let cells = columns.iter().zip(&lowest).map(|(&at, lowest)| {
            let cell = row.get(at).unwrap_or(&Cell::Null);
            Shown { best: lowest.is_some() && cell.number() == *lowest, ..show(cell) }
        });
        cells.collect()
    };
    Grid {
        headings: headings.collect(),
        rows: table.rows.iter().take(fitting).map(shown).collect(),
        left_out: table.rows.len().saturating_sub(fitting),
        constant,
    }
}

fn compare(table: &mut Table, ablation: &Ablation) {
    let yardstick = |name: &str| ablation.blocks.iter().find(|block| block.name == name)?.skip_kl(2);
    let ratios: Vec<Cell> = table
        .records()
        .map(|record| {
            let ratio = record.number("kl").zip(yardstick(record.text("block").unwrap_or_default()));
            ratio.filter(|(_, skip)| *skip > 0.0).map_or(Cell::Null, |(kl, skip)| Cell::Number(kl / skip))
        })
        .collect();
    if ratios.iter().all(Cell::is_null) {
        return;
    }
    let width = table.columns.len();
    table.columns.push(RATIO.to_string());
    for (row, ratio) in table.rows.iter_mut().zip(ratios) {
        row.resize(width, Cell::Null);
        row.push(ratio);
    }
}

/// By block and KL; rows that measured none come last.
fn sort(table: &mut Table) {
    let key = |record: Record| {
        let kl = record.number("kl");
        (kl.is_none(), record.text("block").unwrap_or_default().to_string(), kl.unwrap_or(f64::INFINITY))
    };
    let keys: Vec<(bool, String, f64)> = table.records().map(key).collect();
    let mut order: Vec<usize> = (0..table.rows.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&keys[a], &keys[b]);
        a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)).then_with(|| a.2.total_cmp(&b.2))
    });
    table.rows = order.into_iter().map(|at| std::mem::take(&mut table.rows[at])).collect();
}

/// The columns to show, known ones first, and the sentences for those that never change.
fn choose(table: &Table) -> (Vec<usize>, Vec<String>) {
    let rank = |at: usize| KNOWN.iter().position(|known| known.0 == table.columns[at]).unwrap_or(KNOWN.len());
    let mut columns: Vec<usize> =
        (0..table.columns.len()).filter(|&at| table.has(&table.columns[at])).collect();
    columns.sort_by_key(|&at| rank(at));
    let has_method = table.has("method");
    columns.retain(|&at| !(has_method && table.columns[at] == "kind"));
    let mut constant = Vec::new();
    columns.retain(|&at| match constant_value(table, at) {
        Some(value) if !ALWAYS.contains(&table.columns[at].as_str()) => {
            constant.push(format!("{} {}", heading(&table.columns[at], false).text, show(value).text));
            false
        }
        _ => true,
    });
    if columns.is_empty() { ((0..table.columns.len()).collect(), Vec::new()) } else { (columns, constant) }
}

/// The value of a column that is the same in at least three rows, all there are.
fn constant_value(table: &Table, at: usize) -> Option<&Cell> {
    let value = table.rows.first()?.get(at)?;
    let same = table.rows.len() >= 3 && table.rows.iter().all(|row| row.get(at) == Some(value));
    same.then_some(value)
}

fn is_numeric(table: &Table, at: usize) -> bool {
    let mut values = table.rows.iter().filter_map(|row| row.get(at)).filter(|cell| !cell.is_null());
    values.all(|cell| cell.number().is_some())
}

/// The lowest value of a measure, where it is one of several. Leaving out one layer is not what flows compete with.
fn lowest(table: &Table, at: usize) -> Option<f64> {
    let column = table.columns[at].as_str();
    let measure = MEASURES.contains(&column);
    let values =
        || table.records().filter(|record| !is_skip(record)).filter_map(|record| record.number(column));
    let lowest = values().fold(f64::INFINITY, f64::min);
    (measure && values().any(|value| value > lowest)).then_some(lowest)
}

fn heading(column: &str, numeric: bool) -> Heading {
    let (text, meaning) = KNOWN
        .iter()
        .find(|known| known.0 == column)
        .map_or((column.to_string(), ""), |known| (known.1.to_string(), known.2));
    Heading { column: column.to_string(), text, meaning: meaning.to_string(), numeric }
}

fn show(cell: &Cell) -> Shown {
    let text = match cell {
        Cell::Null => String::new(),
        Cell::Bool(value) => if *value { "yes" } else { "no" }.to_string(),
        Cell::Int(value) => number::count(*value),
        Cell::Number(value) => number::in_table(*value),
        Cell::Text(text) => shorten(text),
    };
    Shown { text, numeric: cell.number().is_some(), best: false }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
