//! Work against precision: what an error costs with every solver, as `scripts/bench_solvers.lua` logs it.

use plotly::common::{DashType, Line, Marker, Mode};
use plotly::{Plot, Scatter};

use super::{Chart, Tools, axes, json};
use crate::report::input::{Record, Table};
use crate::report::style::{self, plain};

/// A measure of work.
#[derive(Clone, Copy)]
struct Work {
    column: &'static str,
    title: &'static str,
    axis: &'static str,
}

const WORK: [Work; 2] = [
    Work { column: "nfe", title: "velocity evaluations", axis: "velocity evaluations (NFE)" },
    Work { column: "seconds", title: "time", axis: "time of one solve in seconds" },
];

/// One chart for each problem and measure of work; none where the rows are no solver benchmark.
pub fn charts(results: &Table) -> Vec<Chart> {
    if !["problem", "solver", "error"].iter().all(|column| results.has(column)) {
        return Vec::new();
    }
    let mut problems: Vec<&str> = Vec::new();
    for problem in results.records().filter_map(|record| record.text("problem")) {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    let drawn = problems
        .iter()
        .enumerate()
        .flat_map(|(at, problem)| WORK.iter().filter_map(move |work| chart(results, problem, at, *work)));
    drawn.collect()
}

/// A solver in one mode: its points in the order of the rows.
struct Curve {
    solver: String,
    adaptive: bool,
    work: Vec<f64>,
    error: Vec<f64>,
    hover: Vec<String>,
}

fn chart(results: &Table, problem: &str, at: usize, work: Work) -> Option<Chart> {
    let curves = curves(results, problem, work);
    let mut solvers: Vec<String> = curves.iter().map(|curve| curve.solver.clone()).collect();
    solvers.dedup();
    let all = |values: fn(&Curve) -> &[f64]| curves.iter().flat_map(values).copied().collect::<Vec<f64>>();
    let (works, errors) = (all(|curve| &curve.work), all(|curve| &curve.error));
    if works.len() < 2 {
        return None;
    }
    let mut plot = Plot::new();
    for curve in curves {
        plot.add_trace(trace(curve, &solvers));
    }
    let (x, y) = (axes::fitting(work.axis, &works), axes::fitting("relative error at the end", &errors));
    Some(Chart {
        id: format!("precision-{}-{at}", work.column),
        title: format!("Error against {} on {problem}", work.title),
        reading: "down is more exact, left is less work: at a given height the leftmost curve is the cheapest solver. \
                  Solid lines take equal steps, dashed ones choose their own by a tolerance. Where curves flatten, \
                  rounding hides the solver's error."
            .into(),
        tools: Tools::Scale,
        json: json(plot, axes::layout(x, y)),
    })
}

fn curves(results: &Table, problem: &str, work: Work) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for record in results.records().filter(|record| record.text("problem") == Some(problem)) {
        // Neither an exact result nor one that exploded has a place on logarithmic axes.
        let Some((spent, error)) = record.number(work.column).zip(record.number("error")) else { continue };
        let Some(solver) = record.text("solver").filter(|_| spent > 0.0 && error > 0.0) else { continue };
        let adaptive = record.text("mode") == Some("adaptive");
        let same = |curve: &Curve| curve.solver == solver && curve.adaptive == adaptive;
        let at = curves.iter().position(same).unwrap_or_else(|| {
            let (work, error, hover) = (Vec::new(), Vec::new(), Vec::new());
            curves.push(Curve { solver: solver.to_owned(), adaptive, work, error, hover });
            curves.len() - 1
        });
        curves[at].work.push(spent);
        curves[at].error.push(error);
        curves[at].hover.push(setting(&record));
    }
    curves
}

/// `k = 8` or `rtol = 0.001`.
fn setting(record: &Record) -> String {
    match (record.whole("k"), record.number("rtol")) {
        (Some(k), _) => format!("k = {k}"),
        (None, Some(rtol)) => format!("rtol = {rtol:e}"),
        (None, None) => String::new(),
    }
}

fn trace(curve: Curve, solvers: &[String]) -> Box<Scatter<f64, f64>> {
    let colour = style::colour(&curve.solver, solvers);
    let (_, symbol) = style::stroke(&curve.solver);
    let (name, dash) = match curve.adaptive {
        true => (format!("{}, adaptive", curve.solver), DashType::Dash),
        false => (curve.solver, DashType::Solid),
    };
    Scatter::new(curve.work, curve.error)
        .name(plain(&name))
        .mode(Mode::LinesMarkers)
        .hover_text_array(curve.hover)
        .hover_template("%{fullData.name}, %{hovertext}<br>%{x:.4g}: error %{y:.3g}<extra></extra>")
        .clip_on_axis(false)
        .line(Line::new().color(colour).width(2.0).dash(dash))
        .marker(Marker::new().color(colour).symbol(symbol).size(7))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::input::Cell;
    use crate::report::samples::{table, text};

    fn row(problem: &str, solver: &str, mode: &str, k: i64, error: f64) -> Vec<Cell> {
        vec![
            text(problem),
            text(solver),
            text(mode),
            Cell::Int(k),
            Cell::Int(2 * k),
            Cell::Number(error),
            Cell::Number(1e-3 * k as f64),
        ]
    }

    fn benchmark() -> Table {
        let columns = ["problem", "solver", "mode", "k", "nfe", "error", "seconds"];
        let mut rows = Vec::new();
        for problem in ["circle", "<b>"] {
            for k in [1, 2, 4] {
                rows.push(row(problem, "euler", "fixed", k, 1.0 / k as f64));
                rows.push(row(problem, "tsit5", "adaptive", k, 1e-3 / k as f64));
            }
            rows.push(row(problem, "euler", "fixed", 8, f64::NAN));
            rows.push(row(problem, "euler", "fixed", 16, 0.0));
        }
        table(&columns, rows)
    }

    #[test]
    fn every_problem_has_a_chart_of_evaluations_and_one_of_time() {
        let charts = charts(&benchmark());
        let ids: Vec<&str> = charts.iter().map(|chart| chart.id.as_str()).collect();
        assert_eq!(ids, ["precision-nfe-0", "precision-seconds-0", "precision-nfe-1", "precision-seconds-1"]);
        let json: serde_json::Value = serde_json::from_str(&charts[0].json).unwrap();
        let traces = json["data"].as_array().unwrap();
        assert_eq!(traces.len(), 2);
        assert_eq!(
            traces[0]["x"],
            serde_json::json!([2.0, 4.0, 8.0]),
            "points without an error are left out"
        );
        assert_eq!(
            (&traces[1]["name"], &traces[1]["line"]["dash"]),
            (&"tsit5, adaptive".into(), &"dash".into())
        );
        assert_eq!(json["layout"]["yaxis"]["type"], "log");
    }

    #[test]
    fn other_rows_have_none() {
        assert!(charts(&table(&["solver", "kl"], vec![vec![text("euler"), Cell::Number(0.3)]])).is_empty());
        let one = table(
            &["problem", "solver", "error", "nfe"],
            vec![vec![text("p"), text("euler"), Cell::Number(0.1), Cell::Int(1)]],
        );
        assert!(charts(&one).is_empty(), "one point is no diagram");
    }
}
