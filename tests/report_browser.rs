//! Opens generated pages in headless Chromium: charts are drawn, the table sorts and filters, nothing logs an error or
//! loads anything, hostile names do no harm, and the live page takes over what is new. Without Chromium the tests say
//! that they are skipped.
//!
//! With `LFT_REPORT=FILE LFT_SCREENSHOTS=FOLDER`, both absolute, they also take the pictures of `docs/img`.

mod browser;

use std::fs;
use std::path::{Path, PathBuf};

use browser::{browser, file, opened, printed, screenshot};
use lft::live::{Server, Watched, Which};
use lft::report::input::{Cell, Report, RunRecord, Script, Section, Table};
use lft::report::plot::{Kind, Plot};
use lft::report::write;
use lft::results::{Run, RunInfo, Value};

/// Would leave a mark on the page's root element if it ever ran.
const ATTACK: &str = "</script><img src=x onerror=\"document.documentElement.dataset.attacked=1\">";

/// The charts of [`report`].
const CHARTS: [&str; 13] = [
    "own-1",
    "own-2",
    "own-3",
    "own-4",
    "own-5",
    "own-6",
    "kl-0",
    "nmse-0",
    "ppl-0",
    "training-0",
    "parameters",
    "nfe-0",
    "recoupling-0",
];

/// An ablation of two methods over three seeds whose names and texts come with `mark`, and figures of every kind.
fn report(mark: &str) -> Report {
    let text = |text: &str| Cell::Text(format!("{text}{mark}"));
    let (mut rows, mut training) = (Vec::new(), Vec::new());
    for seed in 0..3i64 {
        let id = format!("run-{seed}");
        for (method, first, last) in [("fm", 0.30, 0.24), ("fw", 0.61, 0.20)] {
            for k in 1..=6i64 {
                let kl = last + (first - last) / k as f64 + 0.004 * ((seed * 7 + k * 3) % 5) as f64;
                rows.push(vec![
                    text("steps"),
                    Cell::Text(id.clone()),
                    Cell::Int(seed),
                    text(method),
                    text("{6,12}"),
                    text("euler"),
                    Cell::Int(k),
                    Cell::Number(kl),
                    Cell::Number(0.21 * kl),
                    Cell::Number(33.9 * kl.exp()),
                    Cell::Int(842_880),
                    Cell::Int(k),
                    Cell::Null,
                    Cell::Null,
                    Cell::Null,
                    Cell::Int(5),
                ]);
            }
            for step in 0..150i64 {
                let noise = ((step * 31 + seed * 17) % 23) as f64 / 60.0;
                let loss = last * (1.0 + 5.0 / (1.0 + step as f64 / 9.0)) * (1.0 + noise);
                training.push(vec![
                    text("steps"),
                    Cell::Text(id.clone()),
                    text(method),
                    text("{6,12}"),
                    Cell::Int(step * 4),
                    Cell::Number(loss),
                ]);
            }
        }
    }
    let mut other = |cells: &[(usize, Cell)]| {
        let mut row = vec![Cell::Null; 16];
        row[0] = text("steps");
        for (at, cell) in cells {
            row[*at] = cell.clone();
        }
        rows.push(row);
    };
    for (layers, kl) in [(1, 0.092), (2, 0.208), (3, 0.358), (4, 0.506), (6, 1.07)] {
        other(&[
            (3, Cell::Text("skip".into())),
            (4, text("{6,12}")),
            (7, Cell::Number(kl)),
            (9, Cell::Number(33.9 * f64::exp(kl))),
            (10, Cell::Int(layers * 198_272)),
            (15, Cell::Int(layers)),
        ]);
    }
    for (m, n, ratio) in [(0, 6, 0.41), (6, 12, 0.08), (0, 12, 0.63), (6, 18, 0.27), (12, 18, 0.11)] {
        other(&[(12, Cell::Int(m)), (13, Cell::Int(n)), (14, Cell::Number(ratio))]);
    }
    let columns = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let names = [
        "run",
        "run_id",
        "seed",
        "method",
        "block",
        "solver",
        "k",
        "kl",
        "nmse",
        "ppl",
        "params_removed",
        "nfe",
        "m",
        "n",
        "ratio",
        "layers_removed",
    ];
    let results = Table { columns: columns(&names), rows };
    let run = |seed: u64| RunRecord {
        id: format!("run-{seed}"),
        name: format!("steps{mark}"),
        status: "finished".into(),
        seed: Some(seed),
        script: Some(Script { path: format!("a.lua{mark}"), source: format!("-- {mark}") }),
        options: vec![("steps".into(), "600".into()), (format!("note{mark}"), format!("{seed}{mark}"))],
        ..RunRecord::default()
    };
    Report {
        title: format!("How many solver steps does a latent flow need? {mark}"),
        runs: (0..3).map(run).collect(),
        training: Table {
            columns: columns(&["run", "run_id", "method", "block", "step", "loss"]),
            rows: training,
        },
        benchmarks: Table::default(),
        sections: sections(&results, mark),
        results,
        notes: if mark.is_empty() { Vec::new() } else { vec![mark.to_string()] },
    }
}

fn sections(results: &Table, mark: &str) -> Vec<Section> {
    let column = |name: &str| Some(name.to_string());
    let flows = Table {
        columns: results.columns.clone(),
        rows: results.rows.iter().filter(|row| !row[6].is_null()).cloned().collect(),
    };
    let plot = |kind: Kind| Plot {
        x: column("k"),
        y: column("kl"),
        group: column("method"),
        title: if mark.is_empty() { String::new() } else { mark.to_string() },
        ..Plot::new(kind, flows.clone())
    };
    let map = Plot { y: column("method"), value: column("kl"), group: None, ..plot(Kind::Heatmap) };
    let columns = ["method", "k", "nmse", "kl"].map(String::from).to_vec();
    let text = format!(
        "## Figures of my own\n\nMade with `lft.plot`, *in order*. {mark}\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    );
    let plots = [
        plot(Kind::Line),
        plot(Kind::Scatter),
        plot(Kind::Bar),
        plot(Kind::Box),
        map,
        Plot { columns, ..plot(Kind::Parallel) },
    ];
    let plots = plots.into_iter().map(|plot| Section::Plot(Box::new(plot)));
    std::iter::once(Section::Text(text)).chain(plots).collect()
}

/// Acts as a reader would and writes down what is then seen.
const ACTIONS: &str = r##"<script>
const seen = document.documentElement.dataset;
for (const level of ["error", "warn"]) console[level] = (...words) => { seen.error = words.join(" "); };
addEventListener("load", () => setTimeout(async () => {
  // Far charts wait.
  const last = document.getElementById("recoupling-0");
  const isDrawn = () => last.querySelector(".main-svg") !== null;
  seen.lazily = seen.drawn + " " + isDrawn();

  // Printing draws what still waits, and leaves every chart as wide as its place again.
  dispatchEvent(new Event("beforeprint"));
  await new Promise((resume) => setTimeout(resume, 2000));
  const widths = () => [...charts.values()].map((div) => div._fullLayout.width);
  const places = () => [...charts.values()].map((div) => div.clientWidth);
  seen.printed = seen.drawn + " " + [...new Set(widths())].join();
  dispatchEvent(new Event("afterprint"));
  await new Promise((resume) => setTimeout(resume, 2000));
  seen.afterwards = seen.charts + " " + (widths().join() === places().join());

  const head = (name) => [...document.querySelectorAll("#table th")].find((th) => th.textContent.trim() === name);
  const first = (name) => document.querySelector("#table tbody tr").cells[head(name).cellIndex].textContent.trim();
  head("k").querySelector("button").click();
  seen.ascending = first("k") + " " + head("k").getAttribute("aria-sort");
  head("k").querySelector("button").click();
  seen.descending = first("k") + " " + head("k").getAttribute("aria-sort");
  head("method").querySelector("button").click();
  seen.words = first("method") + " " + (head("k").getAttribute("aria-sort") ?? "none");
  const filter = document.getElementById("filter");
  const filtered = (words) => {
    filter.value = words;
    filter.dispatchEvent(new Event("input"));
    return document.getElementById("shown").textContent;
  };
  seen.filtered = filtered("FW euler");
  seen.compared = filtered("method=fm k>=5 KL<0.3");
  const csv = results.csv();
  seen.csv = csv.split("\n").length + " " + csv.split(",").slice(0, 3).join(" ");
  seen.without = filtered("k>0 -fw");
  seen.unknown = filtered("kll<1");
  seen.all = filtered("");
  seen.best = document.querySelectorAll("#table .best").length;

  const chart = document.getElementById("kl-0");
  const trace = (name) => chart.data.findIndex((one) => one.name === name);
  const toggle = [...chart.querySelectorAll(".legend .traces")].find((item) => item.textContent.includes("fm · euler"));
  for (const type of ["mousedown", "mouseup"]) {
    toggle.querySelector(".legendtoggle").dispatchEvent(new MouseEvent(type, { bubbles: true }));
  }
  const log = document.querySelector(".tools[data-for='kl-0'] .log");
  const before = chart.layout.yaxis.type;
  log.click();
  seen.scale = before + " " + chart.layout.yaxis.type + " " + chart.layout.yaxis.title.text;

  const keyed = document.getElementById("nmse-0");
  const key = (name) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  const names = [...keyed.querySelectorAll(".legend .traces[role=switch]")];
  names.find((name) => name.getAttribute("tabindex") === "0").focus();
  key("ArrowDown");
  seen.moved = names.indexOf(document.activeElement) + " " + names.filter((name) => name.getAttribute("tabindex") === "0").length;
  const chosen = document.activeElement;
  key("Enter");

  const training = document.getElementById("training-0");
  const slider = document.querySelector(".tools[data-for='training-0'] .smoothing");
  const line = training.data.findIndex((one) => one.meta === "line");
  const rough = () => training.data[line].y.reduce((sum, y, at, all) => sum + (at ? Math.abs(y - all[at - 1]) : 0), 0);
  const strength = (value) => { slider.value = value; slider.dispatchEvent(new Event("input")); return rough(); };
  const [none, strong] = [strength(0), strength(6)];
  seen.smoothed = (none > 1.5 * strong) + " " + document.querySelector(".half").textContent;

  seen.loaded = performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length;
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
  seen.unnamed = [...document.querySelectorAll("button, input, a, summary, [role=region], [role=group]")].filter((element) =>
    !(element.textContent.trim() || element.labels?.length || element.getAttribute("aria-label") || element.dataset.title ||
      element.hasAttribute("aria-labelledby"))).length;
  setTimeout(() => {
    const band = chart.data[trace("fm · euler, band")];
    seen.keyed = chosen.getAttribute("aria-checked");
    seen.toggled = chart.data[trace("fm · euler")].visible + " " + band.visible + " " + band.fill;
  }, 2000);
}, 5000));</script></head>"##;

#[test]
fn a_reader_sorts_filters_hides_and_smooths() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    write(&report(""), None, &page).unwrap();
    let html = fs::read_to_string(&page).unwrap().replacen("</head>", ACTIONS, 1);
    fs::write(&page, html).unwrap();
    let seen = opened(browser, &file(&page), 90);
    seen.assert_drawn(&CHARTS);
    for (what, found) in [
        ("lazily", "near false"),
        ("printed", "all 660"),
        ("afterwards", "13 true"),
        ("moved", "1 1"),
        ("keyed", "false"),
        ("ascending", "1 ascending"),
        ("descending", "6 descending"),
        ("words", "fm none"),
        ("filtered", "18 of 46 rows"),
        ("compared", "6 of 46 rows"),
        ("csv", "8 seed block method"),
        ("without", "18 of 46 rows"),
        ("unknown", "there is no column “kll”"),
        ("all", "46 rows"),
        ("scale", "log linear KL in nats per token"),
        ("smoothed", "true 10 %"),
        ("loaded", "0"),
        ("wide", "true"),
        ("unnamed", "0"),
        ("toggled", "legendonly legendonly toself"),
    ] {
        seen.assert_says(what, found);
    }
}

#[test]
fn printing_draws_every_chart_and_logs_nothing() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    write(&report(""), None, &page).unwrap();
    let (pdf, messages) = printed(browser, &file(&page));
    assert_eq!(messages, [""; 0]);
    assert!(pdf.starts_with(b"%PDF"), "{} bytes", pdf.len());
}

#[test]
fn hostile_names_are_only_shown() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    write(&report(ATTACK), None, &page).unwrap();
    let all = "<script>addEventListener(\"load\", () => drawRest());</script></head>";
    fs::write(&page, fs::read_to_string(&page).unwrap().replacen("</head>", all, 1)).unwrap();
    let seen = opened(browser, &file(&page), 30);
    seen.assert_drawn(&CHARTS);
    assert!(!seen.root().contains("data-attacked"), "{}", seen.root());
    assert!(!seen.dom.contains("<img src=\"x\""), "no element was made of a name");
}

#[test]
fn the_live_page_takes_over_new_rows() {
    let Some(browser) = browser() else { return };
    let root = tempfile::tempdir().unwrap();
    let info = RunInfo { name: format!("live{ATTACK}"), ..RunInfo::default() };
    let mut run = Run::create(root.path(), info).unwrap();
    let row = |cells: &[(&str, Value)]| cells.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
    let mut log = |step: i64| {
        run.log(row(&[
            ("method", "fm".into()),
            ("k", step.into()),
            ("kl", (1.0 / (1.0 + step as f64)).into()),
        ]))
        .unwrap();
        for (at, loss) in [(2 * step, 0.5), (2 * step + 1, 0.4)] {
            run.log_training(row(&[("method", "fm".into()), ("step", at.into()), ("loss", loss.into())]))
                .unwrap();
        }
        run.flush().unwrap();
    };
    log(1);
    let watched = Watched { root: root.path().to_owned(), which: Which::OwnProcess };
    let server = Server::start(watched, Some(0)).unwrap();
    let address = server.address();
    let opening = std::thread::spawn(move || opened(browser, &address, 40));
    let mut step = 1;
    while !opening.is_finished() {
        step += 1;
        log(step);
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    let seen = opening.join().unwrap();
    let (began, rest) =
        seen.root().split_once("data-version=\"").unwrap_or_else(|| panic!("{}", seen.root()));
    assert!(!began.contains("data-error") && !rest.contains("data-error"), "{}", seen.root());
    assert!(!seen.root().contains("data-attacked"));
    let version: Vec<&str> = rest.split('"').next().unwrap().split('/').collect();
    let (status, rows) = (version[1], version[2].parse::<usize>().unwrap());
    assert!(status == "running" && rows > 1 && rows <= step as usize, "{version:?}");
    assert!(seen.dom.contains(&format!(">{rows} rows</output>")), "the table holds what the version says");
    assert!(seen.dom.contains("running for "), "the page says how the run stands");
}

/// Pictures show what was measured, so they are taken of a report that `lft report` made.
#[test]
fn pictures_for_the_documentation() {
    let [page, folder] =
        ["LFT_REPORT", "LFT_SCREENSHOTS"].map(|name| std::env::var_os(name).map(PathBuf::from));
    let (Some(page), Some(folder), Some(browser)) = (page, folder, browser()) else { return };
    let shot = |name: &str, page: &Path, size, dark| {
        screenshot(browser, &file(page), size, dark, &folder.join(name));
    };
    shot("report.png", &page, (1280, 1500), false);
    shot("report-dark.png", &page, (1280, 1500), true);
    shot("report-phone.png", &page, (500, 1100), false);
    // What stands further down, without what stands above.
    let passing = tempfile::tempdir().unwrap();
    let lower = passing.path().join("report.html");
    let hidden = "<style>header, #verdict, #results { display: none; }</style></head>";
    fs::write(&lower, fs::read_to_string(&page).unwrap().replacen("</head>", hidden, 1)).unwrap();
    shot("report-charts.png", &lower, (1280, 1300), false);
}
