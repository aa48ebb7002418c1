//! The HTML page: words, tables, charts and provenance poured into the template.

use anyhow::{Context, Result, anyhow};
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use plotly::Plot;
use serde::Serialize;

use super::ablation::Ablation;
use super::charts::{self, Chart, Tools};
use super::comparison::comparisons;
use super::differences::differences;
use super::grid;
use super::input::{Report, RunRecord, Script, Section};
use super::markdown;
use super::number::plural;
use super::verdict::verdict;

const TEMPLATE: &str = include_str!("template.html");
const FIGURE: &str = include_str!("figure.html");
/// The page of one figure alone.
pub(super) const PLOT: &str = include_str!("plot.html");
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = concat!(include_str!("charts.js"), include_str!("legend.js"), include_str!("tables.js"));
const LIVE: &str = include_str!("live.js");

/// What a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A file that holds everything it needs and may load nothing.
    File,
    /// The page that `lft watch` serves: as a file, but it may ask its own server for what is new.
    Live,
    /// What that page asks for: the same without the chart library.
    Update,
}

/// Characters of a script's source shown at most.
const SOURCE: usize = 60_000;

/// A chart as the template sees it.
#[derive(Serialize)]
struct Figure {
    id: String,
    title: String,
    reading: String,
    json: Value,
    /// Whether the reader may choose the scale of the vertical axis, and the smoothing of curves.
    scale: bool,
    curves: bool,
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

/// A part of the page that a script or a person added.
#[derive(Serialize)]
#[serde(untagged)]
enum Part {
    Text { text: Value },
    Figure { figure: Figure },
}

/// The whole page.
///
/// `own` is a template in Jinja's language in place of the page's own. It may begin with `{% extends "report.html" %}` and
/// replace the blocks `style`, `header`, `verdict`, `sections`, `results`, `benchmarks`, `comparison`, `charts` and `made`; `figure.html`
/// draws one `figure`. Text is escaped as in the page's own template.
///
/// # Errors
/// When a figure of the report's own cannot be drawn, or a template fails.
pub fn render(report: &Report, own: Option<&str>, form: Form) -> Result<String> {
    let ablation = Ablation::read(&report.results);
    let figures: Vec<Figure> = charts::all(report, ablation.as_ref()).into_iter().map(figure).collect();
    let sections = report.sections.iter().enumerate().map(part).collect::<Result<Vec<Part>>>()?;
    let drawn = !figures.is_empty() || sections.iter().any(|part| matches!(part, Part::Figure { .. }));
    let plotly = if drawn || form == Form::Live { plotly_script() } else { String::new() };
    let script = if form == Form::Live { format!("{SCRIPT}{LIVE}") } else { SCRIPT.to_string() };

    let mut environment = Environment::new();
    // The names' ending switches HTML escaping on for everything that is not marked safe here.
    environment.add_template("report.html", TEMPLATE).context("the report's template is broken")?;
    environment.add_template("figure.html", FIGURE).context("the figures' template is broken")?;
    if let Some(own) = own {
        environment.add_template("own.html", own).map_err(|error| in_template(&error))?;
    }
    let template = environment.get_template(if own.is_some() { "own.html" } else { "report.html" })?;
    template
        .render(context! {
            title => report.title.as_str(),
            made => made(report),
            verdict => Serde(&verdict(report, ablation.as_ref())),
            sections => Serde(&sections),
            grid => Serde(&grid::grid(&report.results, ablation.as_ref())),
            benchmarks => Serde(grid::grid(&report.benchmarks, None)),
            comparisons => Serde(ablation.as_ref().map(comparisons).unwrap_or_default()),
            figures => Serde(&figures),
            differences => Serde(differences(&report.runs)),
            runs => Serde(report.runs.iter().map(provenance).collect::<Vec<_>>()),
            listings => Serde(listings(&report.runs)),
            live => form == Form::Live,
            style => Value::from_safe_string(STYLE.into()),
            script => Value::from_safe_string(script),
            plotly => Value::from_safe_string(if form == Form::Update { String::new() } else { plotly }),
        })
        .map_err(|error| in_template(&error))
}

/// The error with the line of the template that it points to.
fn in_template(error: &minijinja::Error) -> anyhow::Error {
    let line = error.line().map(|line| format!(" line {line}")).unwrap_or_default();
    anyhow!("cannot fill the template{line}: {error}")
}

fn part((at, section): (usize, &Section)) -> Result<Part> {
    Ok(match section {
        Section::Text(text) => Part::Text { text: Value::from_safe_string(markdown::to_html(text)) },
        Section::Plot(plot) => Part::Figure { figure: figure(plot.chart(&format!("own-{at}"))?) },
    })
}

fn made(report: &Report) -> String {
    let rows = plural(report.results.rows.len(), "row");
    format!("{rows} from {} · lft {}", plural(report.runs.len(), "run"), env!("CARGO_PKG_VERSION"))
}

fn figure(chart: Chart) -> Figure {
    let Chart { id, title, reading, json, tools } = chart;
    Figure {
        id,
        title,
        reading,
        json: Value::from_safe_string(in_script(&json)),
        scale: tools != Tools::None,
        curves: tools == Tools::Curves,
    }
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
    let mut listings: Vec<(&Script, Vec<String>)> = Vec::new();
    for run in runs {
        let Some(script) = &run.script else { continue };
        match listings.iter_mut().find(|(known, _)| *known == script) {
            Some((_, ids)) => ids.push(run.id.clone()),
            None => listings.push((script, vec![run.id.clone()])),
        }
    }
    let listing = |(script, runs): (&Script, Vec<String>)| {
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
