//! The whole page, made from rows and read back.

use super::input::{Cell, Report, Section};
use super::plot::{Kind, Plot};
use super::samples::{ablation, results, run, skip, student, table, text};
use super::{page, verdict, write};
use crate::report::ablation::Ablation;

const ATTACK: &str = "</script><script>alert(1)</script><img src=x onerror=alert(2)>";

fn render(report: &Report) -> String {
    page::render(report, None, page::Form::File).unwrap()
}

/// The page without Plotly's own text.
fn own(html: &str) -> String {
    let plotly = html.find("<script type=\"text/javascript\">").unwrap_or(html.len());
    let end = html[plotly..].find("</script>").map_or(html.len(), |at| plotly + at);
    format!("{}{}", &html[..plotly], &html[end..])
}

fn judged(rows: Vec<Vec<Cell>>) -> verdict::Verdict {
    let report = Report { results: results(rows), ..Report::default() };
    verdict::verdict(&report, Ablation::read(&report.results).as_ref())
}

#[test]
fn plotly_is_there_once_and_nothing_is_loaded() {
    let html = render(&ablation(40));
    assert_eq!(html.matches("plotly.js v").count(), 1);
    assert!(!html.contains("MathJax.js") && !own(&html).contains("MathJax"));
    // The table is saved as a file through an address of the page's own.
    let own = own(&html).to_lowercase().replace("objecturl(", "");
    assert!(own.len() < 400_000, "{} bytes beside Plotly", own.len());
    for load in ["src=", "href=\"http", "@import", "url(", "http://", "https://", "//cdn", "fetch("] {
        assert!(!own.contains(load), "the page holds {load}");
    }
    assert!(own.contains("default-src 'none'"));
}

#[test]
fn all_charts_have_words() {
    let html = render(&ablation(40));
    for id in [
        "kl-0",
        "nmse-0",
        "ppl-0",
        "kl-1",
        "nmse-1",
        "ppl-1",
        "training-0",
        "training-1",
        "parameters",
        "time-0",
        "nfe-0",
        "time-1",
        "nfe-1",
    ] {
        for part in [
            format!("class=\"chart\" id=\"{id}\""),
            format!("data-chart=\"{id}\""),
            format!("\"reading-{id}\""),
        ] {
            assert!(html.contains(&part), "{part}");
        }
    }
    assert_eq!(html.matches("<figcaption").count(), 13);
    // Two comparisons are explained as well.
    assert_eq!(html.matches("How to read this:").count(), 15);
    assert!(html.contains("solver steps k") && html.contains("KL in nats per token"));
}

#[test]
fn chart_data_is_json() {
    let html = render(&ablation(40));
    let mut found = 0;
    for part in html.split("data-chart=").skip(1).filter(|part| part.starts_with('"')) {
        let Some(json) = part.split_once('>').and_then(|(_, rest)| rest.split("</script>").next()) else {
            continue;
        };
        let Ok(chart) = serde_json::from_str::<serde_json::Value>(json) else { continue };
        assert!(!chart["data"].as_array().unwrap().is_empty());
        found += 1;
    }
    assert_eq!(found, 13);
}

#[test]
fn names_from_scripts_stay_text() {
    let mut report = ablation(10);
    report.title = ATTACK.into();
    report.notes = vec![ATTACK.into()];
    let rows = table(&[ATTACK, "y"], vec![vec![text(ATTACK), Cell::Number(1.0)]]);
    let columns = (Some(ATTACK.to_string()), Some("y".to_string()));
    let plot =
        Plot { x: columns.0.clone(), y: columns.1, group: columns.0, ..Plot::new(Kind::Scatter, rows) };
    let words = Plot { title: ATTACK.into(), reading: ATTACK.into(), x_label: ATTACK.into(), ..plot.clone() };
    let plots = [plot, words].map(|plot| Section::Plot(Box::new(plot)));
    report.sections = [Section::Text(ATTACK.into())].into_iter().chain(plots).collect();
    let mut record = run(ATTACK, ATTACK);
    record.script.as_mut().unwrap().source = ATTACK.into();
    record.script.as_mut().unwrap().path = ATTACK.into();
    record.options = vec![(ATTACK.into(), ATTACK.into())];
    record.environment = vec![(ATTACK.into(), ATTACK.into())];
    record.arguments = vec![ATTACK.into()];
    report.runs = vec![record, run("other", "other-1")];
    for table in [&mut report.results, &mut report.training] {
        for row in &mut table.rows {
            for cell in row.iter_mut().filter(|cell| matches!(cell, Cell::Text(_))) {
                if !matches!(cell.text(), Some("skip" | "flow")) {
                    *cell = text(ATTACK);
                }
            }
        }
        table.columns.push(ATTACK.into());
        for (at, row) in table.rows.iter_mut().enumerate() {
            row.push(text(&format!("{ATTACK}{at}")));
        }
    }
    let html = render(&report);
    let own = own(&html).to_lowercase();
    assert!(!own.contains("<script>alert") && !own.contains("<img"));
    assert!(own.contains("&lt;script&gt;alert(1)"), "the name is shown");
    // In charts Plotly would read a few tags, so they are escaped once for Plotly and once for the script element.
    assert!(own.contains("\\u0026lt;img src=x"));
    let plain = render(&ablation(10));
    let scripts = |html: &str| html.matches("</script").count();
    let charts = |html: &str| html.matches("<figure").count();
    assert_eq!(scripts(&html) - charts(&html), scripts(&plain) - charts(&plain));
}

#[test]
fn the_verdict_compares_with_skipping() {
    let verdict = judged(vec![
        student("fm", "{6,12}", "euler", 3, 0.407),
        student("fw", "{6,12}", "midpoint", 3, 0.300),
        skip("{6,12}", 2, "best", 0.500),
        skip("{6,12}", 2, "middle", 0.600),
        skip("{6,12}", 6, "best", 1.500),
    ]);
    let block = &verdict.blocks[0];
    assert_eq!(block.headline, "FW {6,12} midpoint k = 3: KL 0.300, 0.600 × skip-2");
    assert_eq!(
        block.lead,
        "Flow walking (fw) with midpoint, k = 3 is best: its KL is 0.300 nats per token, 0.600 × skip-2 (0.500) and \
         0.200 × skipping the whole block (1.50). Its perplexity is 45.8, the teacher's 33.9."
    );
    assert_eq!(block.judgement, "It beats skip-2 and skipping the whole block.");
    assert_eq!(block.caution, "");
    assert_eq!(block.methods[0].against, ["0.814 ×, beats it", "0.271 ×, beats it"]);
}

#[test]
fn the_verdict_admits_defeat() {
    let rows = |kl| {
        vec![
            student("fm", "{6,12}", "euler", 3, kl),
            skip("{6,12}", 2, "best", 0.2),
            skip("{6,12}", 4, "best", 0.4),
            skip("{6,12}", 6, "best", 0.9),
        ]
    };
    let block = &judged(rows(0.3)).blocks[0];
    assert_eq!(block.judgement, "It does not beat skip-2, but it beats skip-4 and skipping the whole block.");
    assert_eq!(block.caution, "The two do not save the same: skip-2 leaves out 2 layers, the student 5.");
    assert!(block.methods.is_empty(), "one method needs no comparison of methods");
    assert_eq!(
        judged(rows(1.0)).blocks[0].judgement,
        "It does not beat skip-2, skip-4 or skipping the whole block."
    );
    let alone = judged(vec![student("fm", "{6,12}", "euler", 1, 0.3)]);
    assert!(alone.blocks[0].judgement.starts_with("No skip baseline was measured"));
}

#[test]
fn repetitions_are_averaged_and_lost_runs_are_told() {
    let verdict = judged(vec![
        student("fm", "{6,12}", "euler", 1, 0.2),
        student("fm", "{6,12}", "euler", 1, 0.4),
        student("fm", "{6,12}", "euler", 2, f64::NAN),
    ]);
    assert!(verdict.blocks[0].lead.contains("its KL is 0.300"), "{}", verdict.blocks[0].lead);
    assert!(verdict.blocks[0].lead.ends_with("These are means of 2 repetitions."));
    assert!(verdict.remarks[0].starts_with("1 row without a finite KL"), "{:?}", verdict.remarks);
}

#[test]
fn a_template_replaces_blocks_and_text_stays_text() {
    let mut report = ablation(3);
    report.title = ATTACK.into();
    let own = "{% extends \"report.html\" %}{% block results %}<p>Mine: {{ title }}, {{ grid.rows|length }}</p>{% endblock %}";
    let html = page::render(&report, Some(own), page::Form::File).unwrap();
    assert!(html.contains("<p>Mine: &lt;&#x2f;script&gt;") && !html.contains("id=\"table\""));
    assert!(html.contains("id=\"kl-0\""), "the other blocks stay");
    let wrong = page::render(&report, Some("a\n{% if %}"), page::Form::File).unwrap_err().to_string();
    assert!(wrong.starts_with("cannot fill the template line 2: "), "{wrong}");
}

#[test]
fn sections_stand_in_their_order() {
    let mut report = Report { title: "Mine".into(), ..Report::default() };
    let rows = table(&["x", "y"], vec![vec![Cell::Int(1), Cell::Number(2.0)]]);
    let plot = Plot { x: Some("x".into()), y: Some("y".into()), ..Plot::new(Kind::Line, rows) };
    let text = |text: &str| Section::Text(text.into());
    report.sections = vec![text("# Why *this*"), Section::Plot(Box::new(plot)), text("after")];
    let html = render(&report);
    let place = |part: &str| html.find(part).unwrap_or_else(|| panic!("{part}"));
    assert!(
        place("<h2>Why <em>this</em></h2>") < place("id=\"own-1\"")
            && place("id=\"own-1\"") < place("<p>after</p>")
    );
    assert_eq!(html.matches("plotly.js v").count(), 1, "own figures need the library, too");
}

#[test]
fn seeds_are_counted() {
    let mut rows: Vec<Vec<Cell>> =
        (0..3).map(|at| student("fw", "{6,12}", "euler", 3, 0.40 + 0.01 * at as f64)).collect();
    for (at, row) in rows.iter_mut().enumerate() {
        row.push(Cell::Int(at as i64));
    }
    rows.push(skip("{6,12}", 2, "best", 0.82));
    let mut results = results(rows);
    results.columns.push("seed".into());
    let report = Report { results, ..Report::default() };
    let block = &verdict::verdict(&report, Ablation::read(&report.results).as_ref()).blocks[0];
    assert_eq!(block.headline, "FW {6,12} euler k = 3: KL 0.410, 0.500 × skip-2, 3 seeds");
    assert!(block.lead.ends_with("These are means of 3 seeds."), "{}", block.lead);
    let kl: serde_json::Value =
        serde_json::from_str(&super::charts::all(&report, Ablation::read(&report.results).as_ref())[0].json)
            .unwrap();
    assert!(kl["data"].as_array().unwrap().iter().any(|trace| trace["fill"] == "toself"), "a band is drawn");
}

#[test]
fn the_best_flow_is_bold_and_no_baseline() {
    let rows = vec![
        student("fm", "{6,12}", "euler", 1, 0.3),
        student("fw", "{6,12}", "euler", 1, 0.2),
        skip("{6,12}", 1, "best", 0.1),
    ];
    let html = render(&Report { results: results(rows), ..Report::default() });
    assert!(html.contains("class=\"n best\">0.2000") && html.contains("class=n>0.1000"));
    assert_eq!(html.matches("n best").count(), 3, "KL, NMSE and perplexity");
}

#[test]
fn other_columns_get_a_table_and_no_charts() {
    let rows = vec![
        vec![text("x"), Cell::Number(0.123_456), Cell::Bool(true)],
        vec![text("y"), Cell::Null, Cell::Null],
    ];
    let report = Report {
        title: "Mine".into(),
        runs: vec![run("mine", "mine-1")],
        results: table(&["thing", "value", "good"], rows),
        ..Report::default()
    };
    let html = render(&report);
    assert!(html.contains("data-column=\"value\""));
    assert!(html.contains("This report shows 2 rows of results from 1 run."));
    assert!(html.contains("<td class=n>0.1235") && html.contains("<td>yes"));
    assert!(!html.contains("<figure") && !html.contains("plotly.js v"), "no charts, no library");
}

#[test]
fn benchmarks_have_a_table_of_their_own() {
    let columns = ["run", "run_id", "name", "device", "median", "ci_lo", "ci_hi", "outliers_high_mild"];
    let row = |name: &str, median: f64| {
        let times = [median, 0.9 * median, 1.1 * median].map(Cell::Number);
        [vec![text("speed"), text("speed-1"), text(name), text("cpu")], times.into(), vec![Cell::Int(0)]]
            .concat()
    };
    let rows = vec![row("lookup", 0.001_234_5), row(ATTACK, 2.0), row("walk", 3.0)];
    let report = Report { title: "Speed".into(), benchmarks: table(&columns, rows), ..Report::default() };
    let html = render(&report);
    assert!(
        html.contains("3 timings")
            && html.contains("<td class=n>0.001234")
            && html.contains("median &#x2f; s")
    );
    assert!(html.contains("The same in every row:") && html.contains("device cpu"));
    assert!(!own(&html).contains("<script>alert"));
    assert!(!render(&ablation(5)).contains("id=\"benchmarks\""));
}

#[test]
fn nothing_logged_is_still_a_page() {
    let html = render(&Report { title: "Empty".into(), ..Report::default() });
    assert!(html.contains("No results were logged.") && html.ends_with("</html>"));
}

#[test]
fn two_hundred_runs_stay_small() {
    let mut report = ablation(0);
    let (rows, mut training) = (report.results.rows.clone(), Vec::new());
    report.results.rows.clear();
    for at in 0..200 {
        let id = format!("ablate_steps-{at:03}");
        report.runs.push(run("ablate_steps", &id));
        for mut row in rows.iter().take(40).cloned() {
            row[1] = text(&id);
            report.results.rows.push(row);
        }
        for step in 0..1500 {
            let loss = Cell::Number(1.0 / f64::from(step + 1));
            training.push(vec![
                text("ablate_steps"),
                text(&id),
                text("fm"),
                text("{6,12}"),
                Cell::Int(step.into()),
                loss,
            ]);
        }
    }
    report.training.rows = training;
    let html = render(&report);
    assert!(html.len() < 8 << 20, "{} bytes", html.len());
    assert!(html.contains("further rows are not shown here"));
}

#[test]
fn written_whole_into_a_new_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reports").join("a.html");
    let summary = write(&ablation(5), None, &path).unwrap();
    assert_eq!(summary.bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!((summary.runs, summary.path), (1, path.clone()));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
}
