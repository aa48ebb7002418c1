//! The HTML page: words, table, charts and provenance poured into the template.

use anyhow::{Context, Result};
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use plotly::Plot;
use serde::Serialize;

use super::ablation::Ablation;
use super::charts::{self, Chart};
use super::grid::{self, Grid};
use super::input::{Report, RunRecord};
use super::number::plural;
use super::verdict::{Verdict, verdict};

const TEMPLATE: &str = include_str!("template.html");
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Characters of a script's source shown at most.
const SOURCE: usize = 60_000;

/// A chart as the template sees it.
#[derive(Serialize)]
struct Figure {
    id: String,
    title: String,
    reading: String,
    json: Value,
}

/// A script with the runs it made.
#[derive(Serialize)]
struct Listing {
    path: String,
    source: String,
    cut: bool,
    runs: Vec<String>,
}

/// The provenance of one run as the template sees it.
#[derive(Serialize)]
struct Provenance<'a> {
    name: &'a str,
    id: &'a str,
    status: &'a str,
    options: &'a [(String, String)],
    arguments: String,
    environment: &'a [(String, String)],
}

/// The whole page.
///
/// # Errors
/// When the template fails, which would be a fault of this program.
pub fn render(report: &Report) -> Result<String> {
    let ablation = Ablation::read(&report.results);
    let verdict: Verdict = verdict(report, ablation.as_ref());
    let grid: Grid = grid::grid(&report.results, ablation.as_ref());
    let figures: Vec<Figure> = charts::all(report, ablation.as_ref()).into_iter().map(figure).collect();
    let plotly = if figures.is_empty() { String::new() } else { plotly_script() };

    let mut environment = Environment::new();
    // The name's ending switches HTML escaping on for everything that is not marked safe here.
    environment.add_template("report.html", TEMPLATE).context("the report's template is broken")?;
    let template = environment.get_template("report.html").context("the report's template is missing")?;
    template
        .render(context! {
            title => report.title.as_str(),
            made => made(report),
            verdict => Serde(&verdict),
            grid => Serde(&grid),
            figures => Serde(&figures),
            runs => Serde(report.runs.iter().map(provenance).collect::<Vec<_>>()),
            listings => Serde(listings(&report.runs)),
            style => Value::from_safe_string(STYLE.into()),
            script => Value::from_safe_string(SCRIPT.into()),
            plotly => Value::from_safe_string(plotly),
        })
        .context("cannot fill the report's template")
}

fn made(report: &Report) -> String {
    let rows = plural(report.results.rows.len(), "row");
    format!("{rows} from {} · lft {}", plural(report.runs.len(), "run"), env!("CARGO_PKG_VERSION"))
}

fn figure(chart: Chart) -> Figure {
    let Chart { id, title, reading, json } = chart;
    Figure { id, title, reading, json: Value::from_safe_string(in_script(&json)) }
}

/// JSON that is safe inside a script element: `</script>` and `<!--` cannot occur, since no `<` is left.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Plotly alone as a script element; the crate's own bundle would add two megabytes of formula typesetting.
fn plotly_script() -> String {
    let scripts = Plot::offline_js_sources();
    let end = "</script>";
    scripts.split_inclusive(end).next().unwrap_or_default().to_string()
}

fn provenance(run: &RunRecord) -> Provenance<'_> {
    Provenance {
        name: &run.name,
        id: &run.id,
        status: &run.status,
        options: &run.options,
        arguments: run.arguments.join(" "),
        environment: &run.environment,
    }
}

/// Every different script once, with the runs that it made.
fn listings(runs: &[RunRecord]) -> Vec<Listing> {
    let mut listings: Vec<(&super::input::Script, Vec<String>)> = Vec::new();
    for run in runs {
        let Some(script) = &run.script else { continue };
        match listings.iter_mut().find(|(known, _)| *known == script) {
            Some((_, ids)) => ids.push(run.id.clone()),
            None => listings.push((script, vec![run.id.clone()])),
        }
    }
    let listing = |(script, runs): (&super::input::Script, Vec<String>)| {
        let end = script.source.char_indices().nth(SOURCE).map(|(end, _)| end);
        Listing {
            path: script.path.clone(),
            source: script.source[..end.unwrap_or(script.source.len())].to_string(),
            cut: end.is_some(),
            runs,
        }
    };
    listings.into_iter().map(listing).collect()
}
