//! The recoupling ratio of every pair of boundaries, as a heat map.

use serde_json::{Value, json};

use super::{Chart, Tools, axes, drawing};
use crate::report::input::{Record, Table};

/// Larger maps carry no numbers in their cells.
const NUMBERED: usize = 14;

/// One chart a run name that logged rows with `m`, `n` and `ratio`; repetitions are averaged.
pub fn charts(results: &Table) -> Vec<Chart> {
    if !["m", "n", "ratio"].iter().all(|column| results.has(column)) {
        return Vec::new();
    }
    let mut runs: Vec<(&str, Vec<Cell>)> = Vec::new();
    for (run, cell) in results.records().filter_map(cell) {
        match runs.iter_mut().find(|(known, _)| *known == run) {
            Some((_, cells)) => cells.push(cell),
            None => runs.push((run, vec![cell])),
        }
    }
    let several = runs.len() > 1;
    runs.iter()
        .enumerate()
        .map(|(at, (run, cells))| chart(if several { run } else { "" }, at, cells))
        .collect()
}

/// Start and end of a block, and its ratio.
type Cell = (i64, i64, f64);

fn cell<'a>(record: Record<'a>) -> Option<(&'a str, Cell)> {
    let run = record.text("run").unwrap_or_default();
    Some((run, (record.whole("m")?, record.whole("n")?, record.number("ratio")?)))
}

fn chart(run: &str, at: usize, cells: &[Cell]) -> Chart {
    let sorted = |of: fn(&Cell) -> i64| {
        let mut values: Vec<i64> = cells.iter().map(of).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let (starts, ends) = (sorted(|cell| cell.0), sorted(|cell| cell.1));
    let mean = |m: i64, n: i64| {
        let same: Vec<f64> =
            cells.iter().filter(|cell| (cell.0, cell.1) == (m, n)).map(|cell| cell.2).collect();
        (!same.is_empty()).then(|| same.iter().sum::<f64>() / same.len() as f64)
    };
    let ratios: Vec<Vec<Option<f64>>> =
        starts.iter().map(|m| ends.iter().map(|n| mean(*m, *n)).collect()).collect();
    let mut map = json!({
        "type": "heatmap", "x": ends, "y": starts, "z": ratios, "colorscale": "Cividis", "zmin": 0,
        "xgap": 1, "ygap": 1, "colorbar": {"title": {"text": "R"}, "thickness": 14},
        "hovertemplate": "block {%{y},%{x}}: R = %{z:.4f}<extra></extra>",
    });
    if starts.len().max(ends.len()) <= NUMBERED {
        map["texttemplate"] = Value::from("%{z:.2f}");
    }
    let ticks = |values: &[i64]| values.iter().map(|value| *value as f64).collect::<Vec<_>>();
    let x = axes::linear("end n of the block").tick_values(ticks(&ends));
    let y = axes::linear("start m of the block").tick_values(ticks(&starts));
    let of_run = if run.is_empty() { String::new() } else { format!(" in {run}") };
    Chart {
        id: format!("recoupling-{at}"),
        title: format!("Recoupling ratio of every block{of_run}"),
        reading: "each cell is a block {m,n}; 0 (dark) means that the optimal assignment leaves every latent with its \
                  own end, so straight paths do not cross and flow matching is at its best; the larger the ratio, the \
                  more paths cross."
            .into(),
        tools: Tools::None,
        json: drawing(vec![map], axes::layout(x, y)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::input::Cell as Value;
    use crate::report::samples::{table, text};

    #[test]
    fn cells_are_placed_by_boundary_and_averaged() {
        let row = |m, n, ratio| vec![text("r"), Value::Int(m), Value::Int(n), Value::Number(ratio)];
        let rows = vec![row(6, 12, 0.2), row(0, 6, 0.5), row(6, 12, 0.4), row(0, 12, 0.7)];
        let charts = charts(&table(&["run", "m", "n", "ratio"], rows));
        assert_eq!(charts.len(), 1);
        let drawn: serde_json::Value = serde_json::from_str(&charts[0].json).unwrap();
        assert_eq!(drawn["data"][0]["x"], json!([6, 12]));
        assert_eq!(drawn["data"][0]["y"], json!([0, 6]));
        let z = &drawn["data"][0]["z"];
        assert_eq!((&z[0][0], &z[0][1], &z[1][0]), (&json!(0.5), &json!(0.7), &serde_json::Value::Null));
        assert!((z[1][1].as_f64().unwrap() - 0.3).abs() < 1e-12);
    }

    #[test]
    fn other_rows_have_no_map() {
        assert!(super::charts(&table(&["run", "m", "n"], vec![])).is_empty());
    }
}
