//! Opens generated reports in headless Chromium: charts are drawn, the table sorts and filters, nothing logs an error,
//! and hostile names do no harm. Without Chromium the tests say that they are skipped.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lft::report::input::{Cell, Report, RunRecord, Script, Table};
use lft::report::write;

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Would leave a mark on the page's root element if it ever ran.
const ATTACK: &str = "</script><img src=x onerror=\"document.documentElement.dataset.attacked=1\">";

fn browser() -> Option<&'static str> {
    let runs = |name: &&str| {
        let version =
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let found = NAMES.into_iter().find(runs);
    if found.is_none() {
        println!("skipped: no chromium");
    }
    found
}

/// The page's document after its scripts ran, without network.
fn opened(browser: &str, page: &Path, folder: &Path) -> String {
    let dom = folder.join("dom.html");
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=60000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .stdout(File::create(&dom).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(300) {
            child.kill().unwrap();
            panic!("{browser} did not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::read_to_string(dom).unwrap()
}

/// An ablation of two methods whose names and texts come with `mark`.
fn report(mark: &str) -> Report {
    let text = |text: &str| Cell::Text(format!("{text}{mark}"));
    let mut rows = Vec::new();
    for (method, first) in [("fm", 0.30), ("fw", 0.61)] {
        for k in 1..=12i64 {
            let kl = Cell::Number(0.2 + (first - 0.2) / k as f64);
            let (nmse, ppl) = (Cell::Number(0.05), Cell::Number(41.0));
            let params = Cell::Int(900_000);
            rows.push(vec![
                text("run"),
                text(method),
                text("{6,12}"),
                text("euler"),
                Cell::Int(k),
                kl,
                nmse,
                ppl,
                params,
            ]);
        }
    }
    let skip = Cell::Text("skip".into());
    let skipped =
        [Cell::Null, Cell::Null, Cell::Number(0.209), Cell::Null, Cell::Number(42.0), Cell::Int(400_000)];
    rows.push([text("run"), skip, text("{6,12}")].into_iter().chain(skipped).collect());
    let training =
        |at: i64| vec![text("run"), text("fm"), Cell::Int(at), Cell::Number(1.0 / (1.0 + at as f64))];
    let columns = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let script = Script { path: format!("a.lua{mark}"), source: format!("-- {mark}") };
    Report {
        title: format!("Steps {mark}"),
        runs: vec![RunRecord {
            id: "run-1".into(),
            name: format!("run{mark}"),
            script: Some(script),
            ..RunRecord::default()
        }],
        results: Table {
            columns: columns(&[
                "run",
                "method",
                "block",
                "solver",
                "k",
                "kl",
                "nmse",
                "ppl",
                "params_removed",
            ]),
            rows,
        },
        training: Table {
            columns: columns(&["run", "method", "step", "loss"]),
            rows: (0..300).map(training).collect(),
        },
        notes: vec![mark.to_string()],
    }
}

/// The start tag of the root element, which carries what the page says about itself.
fn root(dom: &str) -> &str {
    let tag = dom.find("<html").map(|at| &dom[at..]).unwrap_or_default();
    &tag[..tag.find('>').unwrap_or(0)]
}

fn check(dom: &str) {
    let root = root(dom);
    assert!(root.contains("data-charts=\"5\""), "all charts are drawn: {root}");
    assert!(!root.contains("data-error"), "{root}");
    for id in ["kl-0", "nmse-0", "ppl-0", "training-0", "parameters"] {
        let start = dom.find(&format!("id=\"{id}\"")).unwrap();
        let figure = &dom[start..start + dom[start..].find("</figure>").unwrap()];
        assert!(figure.contains("main-svg"), "{id} holds a drawing");
    }
}

#[test]
fn charts_are_drawn_without_errors() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    write(&report(""), &page).unwrap();
    check(&opened(browser, &page, folder.path()));
}

#[test]
fn hostile_names_are_only_shown() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    write(&report(ATTACK), &page).unwrap();
    let dom = opened(browser, &page, folder.path());
    check(&dom);
    assert!(!root(&dom).contains("data-attacked"), "{}", root(&dom));
    assert!(!dom.contains("<img src=\"x\""), "no element was made of a name");
}

#[test]
fn table_sorts_and_filters_and_legend_toggles() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    write(&report(""), &page).unwrap();
    // Acts as a reader would and writes down what is then seen.
    let actions = r##"<script>addEventListener("load", () => setTimeout(() => {
        const seen = document.documentElement.dataset;
        const head = (name) => [...document.querySelectorAll("#table th")].find((th) => th.textContent.trim() === name);
        const first = (name) => document.querySelector("#table tbody tr").cells[head(name).cellIndex].textContent.trim();
        head("k").querySelector("button").click();
        seen.ascending = first("k") + " " + head("k").getAttribute("aria-sort");
        head("k").querySelector("button").click();
        seen.descending = first("k") + " " + head("k").getAttribute("aria-sort");
        head("method").querySelector("button").click();
        seen.words = first("method") + " " + (head("k").getAttribute("aria-sort") ?? "none");
        const filter = document.getElementById("filter");
        filter.value = "FW euler";
        filter.dispatchEvent(new Event("input"));
        seen.filtered = document.getElementById("shown").textContent;
        const chart = document.getElementById("kl-0");
        const at = chart.data.findIndex((trace) => trace.name === "fm · euler");
        const toggle = [...chart.querySelectorAll(".legend .traces")].find((item) => item.textContent.includes("fm · euler"));
        for (const type of ["mousedown", "mouseup"]) {
          toggle.querySelector(".legendtoggle").dispatchEvent(new MouseEvent(type, { bubbles: true }));
        }
        setTimeout(() => { seen.toggled = chart.data[at].visible; }, 2000);
    }, 5000));</script></body>"##;
    let html = fs::read_to_string(&page).unwrap().replace("</body>", actions);
    fs::write(&page, html).unwrap();
    let dom = opened(browser, &page, folder.path());
    check(&dom);
    for seen in [
        "data-ascending=\"1 ascending\"",
        "data-descending=\"12 descending\"",
        "data-words=\"fm none\"",
        "data-filtered=\"12 of 25 rows\"",
        "data-toggled=\"legendonly\"",
    ] {
        assert!(root(&dom).contains(seen), "{seen} in {}", root(&dom));
    }
}
