//! A run in the terminal: its curves as lines of bars, and its newest results.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use comfy_table::{CellAlignment, TableComponent};
use console::Term;

use super::sparkline::sparkline;
use super::watched::{Watched, there, version, words};
use crate::console as output;
use crate::report::input::{Cell, Report, Table};
use crate::report::number::{count, duration, in_table};
use crate::results::{RunRecord, Status};

/// How often the view is drawn anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Results shown at most, the newest.
const ROWS: usize = 8;

/// Columns shown at most, these first.
const COLUMNS: usize = 9;
const FIRST: [&str; 8] = ["block", "label", "method", "solver", "k", "kl", "nmse", "ppl"];
/// Columns that say nothing about one row of one run.
const UNTOLD: [&str; 4] = ["run", "run_id", "seed", "kind"];

/// Draws the run until it ends, each time over the drawing before; where standard output is no terminal, or `once` is
/// set, draws it once.
///
/// # Errors
/// When there is no such run or it cannot be read.
pub fn show(watched: &Watched, once: bool) -> Result<()> {
    let terminal = Term::stdout();
    let once = once || !terminal.is_term();
    let mut drawn: Option<(String, Report)> = None;
    let mut height = 0;
    loop {
        let record = there(watched)?;
        let version = version(&record);
        // Rows are read when there are new ones; the clock goes on in between.
        if drawn.as_ref().is_none_or(|(known, _)| *known != version) {
            drawn = Some((version, crate::report::read_run(&watched.root, &record.id)?));
        }
        if let Some((_, report)) = &drawn {
            let width = if terminal.is_term() { usize::from(terminal.size().1) } else { 100 };
            let text = view(&record, report, width);
            terminal.clear_last_lines(height)?;
            output::print(&text)?;
            height = text.lines().count();
        }
        if once || record.status != Status::Running {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

/// The whole view, no line wider than `width`.
fn view(record: &RunRecord, report: &Report, width: usize) -> String {
    let mut parts = vec![format!("{} · {}", record.name, words(record))];
    let curves = curves(&report.training);
    if !curves.is_empty() {
        parts.push(String::new());
        parts.extend(curve_lines(&curves, steps(record), width));
    }
    if !report.results.rows.is_empty() {
        parts.push(String::new());
        parts.extend(result_lines(&report.results));
    }
    let line = |text: &String| format!("{}\n", console::truncate_str(&visible(text), width.max(20), "…"));
    parts.iter().map(line).collect()
}

/// Text of a script's own may not steer the terminal.
fn visible(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// A training: its name, and step, loss and seconds of every point.
struct Curve {
    name: String,
    points: Vec<(f64, f64, Option<f64>)>,
}

fn curves(training: &Table) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for record in training.records() {
        let (Some(step), Some(loss)) = (record.number("step"), record.number("loss")) else { continue };
        let words = [record.text("method"), record.text("block")];
        let name = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let point = (step, loss, record.number("seconds"));
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name, points: vec![point] }),
        }
    }
    curves
}

/// The option that says how long the training is, where the script has it.
fn steps(record: &RunRecord) -> Option<f64> {
    record.options.get("steps").and_then(serde_json::Value::as_f64)
}

fn curve_lines(curves: &[Curve], steps: Option<f64>, width: usize) -> Vec<String> {
    let names = curves.iter().map(|curve| curve.name.chars().count()).max().unwrap_or(0).clamp(8, 28);
    let bars = width.saturating_sub(names + 52).clamp(8, 60);
    let head = format!(
        "{:names$}  {:bars$}  {:>9}  {:>9}  {:>9}  left",
        "training", "loss", "step", "last", "lowest"
    );
    let line = |curve: &Curve| {
        let losses: Vec<f64> = curve.points.iter().map(|(_, loss, _)| *loss).collect();
        let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let (step, loss, _) = curve.points[curve.points.len() - 1];
        let name: String = curve.name.chars().take(names).collect();
        format!(
            "{name:names$}  {:bars$}  {:>9}  {:>9}  {:>9}  {}",
            sparkline(&losses, bars),
            count(step as i64),
            in_table(loss),
            in_table(lowest),
            remaining(curve, steps).unwrap_or_default()
        )
    };
    std::iter::once(head).chain(curves.iter().map(line)).collect()
}

/// Time to the last step at the pace so far.
fn remaining(curve: &Curve, steps: Option<f64>) -> Option<String> {
    let (step, _, seconds) = curve.points.last()?;
    let left = steps? - step;
    (left > 0.0 && *step > 0.0).then_some(())?;
    Some(duration((*seconds)? / step * left))
}

fn result_lines(results: &Table) -> Vec<String> {
    let records: Vec<_> = results.records().collect();
    let newest = &records[records.len().saturating_sub(ROWS)..];
    let has = |column: &str| newest.iter().any(|record| !record.get(column).is_null());
    let told = |column: &&String| !UNTOLD.contains(&column.as_str()) && has(column);
    let mut columns: Vec<&String> = results.columns.iter().filter(told).collect();
    columns.sort_by_key(|column| FIRST.iter().position(|first| first == column).unwrap_or(FIRST.len()));
    columns.truncate(COLUMNS);
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_style(TableComponent::HeaderLines, '─');
    table.set_header(columns.iter().map(|column| visible(column)));
    for record in newest {
        table.add_row(columns.iter().map(|column| cell(record.get(column))));
    }
    for (shown, column) in table.column_iter_mut().zip(&columns) {
        if newest.iter().all(|record| record.get(column).number().is_some() || record.get(column).is_null()) {
            shown.set_cell_alignment(CellAlignment::Right);
        }
    }
    let head = format!("results, the newest of {}", count(records.len() as i64));
    std::iter::once(head).chain(table.trim_fmt().lines().map(str::to_owned)).collect()
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Bool(value) => value.to_string(),
        Cell::Int(value) => count(*value),
        Cell::Number(value) => in_table(*value),
        Cell::Text(text) => visible(&text.chars().take(40).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Run, RunInfo, Value};

    #[test]
    fn curves_results_and_time_left() {
        let root = tempfile::tempdir().unwrap();
        let options = serde_json::json!({"steps": 400}).as_object().cloned().unwrap();
        let info = RunInfo { name: "a\u{1b}[31m".into(), options, ..RunInfo::default() };
        let mut run = Run::create(root.path(), info).unwrap();
        let row = |cells: &[(&str, Value)]| cells.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
        for step in 1..=100i64 {
            let loss = 1.0 / step as f64;
            run.log_training(row(&[
                ("method", "fm".into()),
                ("step", step.into()),
                ("loss", loss.into()),
                ("seconds", (step as f64 * 0.5).into()),
            ]))
            .unwrap();
        }
        run.log(row(&[("method", "skip".into()), ("from", 7i64.into())])).unwrap();
        for _ in 0..ROWS {
            run.log(row(&[("method", "fm".into()), ("kl", 0.123_456.into())])).unwrap();
        }
        run.flush().unwrap();
        let report = crate::report::read_run(root.path(), &run.record().id).unwrap();
        let text = view(run.record(), &report, 100);
        assert!(text.starts_with("a\u{fffd}[31m · running for "), "{text}");
        let curve = text.lines().find(|line| line.starts_with("fm")).unwrap();
        assert!(curve.contains('█') && curve.contains("0.01000") && curve.ends_with("2 min 30 s"), "{curve}");
        assert!(text.contains("results, the newest of 9") && text.contains("0.1235"), "{text}");
        assert!(!text.contains("from"), "no row that is shown has it: {text}");
        for width in [30, 60, 200] {
            let narrow = view(run.record(), &report, width);
            assert!(narrow.lines().all(|line| line.chars().count() <= width), "{narrow}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
