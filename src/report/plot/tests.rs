use serde_json::Value;

use super::*;
use crate::report::input::Cell;
use crate::report::samples::{table, text};

fn rows() -> Table {
    let row = |method: &str, k: i64, kl: f64| vec![text(method), Cell::Int(k), Cell::Number(kl)];
    table(
        &["method", "k", "kl"],
        vec![row("fm", 2, 0.2), row("fm", 1, 0.3), row("fw", 1, 0.5), row("fm", 1, 0.5), row("<b>", 1, 0.1)],
    )
}

fn plot(kind: Kind) -> Plot {
    Plot {
        x: Some("k".into()),
        y: Some("kl".into()),
        group: Some("method".into()),
        ..Plot::new(kind, rows())
    }
}

fn drawn(plot: &Plot) -> Value {
    serde_json::from_str(&plot.chart("a").unwrap().json).unwrap()
}

#[test]
fn a_line_joins_means_in_order_and_bands_repetitions() {
    let chart = drawn(&plot(Kind::Line));
    let data = chart["data"].as_array().unwrap();
    assert_eq!(data.len(), 4, "fm has a band and a line, the others a line each");
    assert_eq!(data[0]["fill"], "toself");
    assert_eq!(data[0]["y"], serde_json::json!([0.5, 0.2, 0.2, 0.3]));
    assert_eq!(
        (&data[1]["x"], &data[1]["y"]),
        (&serde_json::json!([1.0, 2.0]), &serde_json::json!([0.4, 0.2]))
    );
    assert_eq!(data[3]["name"], "&lt;b&gt;");
}

#[test]
fn every_kind_draws() {
    for kind in [Kind::Line, Kind::Scatter, Kind::Bar, Kind::Box] {
        let chart = plot(kind).chart("a").unwrap();
        assert_eq!(chart.title, "kl against k by method");
        assert!(!chart.reading.is_empty() && chart.json.contains("\"data\""));
    }
    let heat =
        Plot { value: Some("kl".into()), y: Some("method".into()), group: None, ..plot(Kind::Heatmap) };
    assert_eq!(drawn(&heat)["data"][0]["z"][0], serde_json::json!([0.4, 0.2]));
    let columns = ["method", "k", "kl"].map(String::from).to_vec();
    let parallel = drawn(&Plot { columns, ..Plot::new(Kind::Parallel, rows()) });
    let dimensions = &parallel["data"][0]["dimensions"];
    assert_eq!(dimensions[0]["values"], serde_json::json!([0, 0, 1, 0, 2]));
    assert_eq!(dimensions[0]["ticktext"][2], "&lt;b&gt;");
}

#[test]
fn mistakes_name_the_column() {
    let wrong = Plot { y: Some("kll".into()), ..plot(Kind::Line) };
    assert_eq!(wrong.chart("a").unwrap_err().to_string(), "no row has a column 'kll' (did you mean 'kl'?)");
    let missing = Plot { x: None, ..plot(Kind::Bar) };
    assert!(missing.chart("a").unwrap_err().to_string().starts_with("option 'x' is missing"));
    let empty = Plot::new(Kind::Line, Table::default());
    assert_eq!(empty.chart("a").unwrap_err().to_string(), "there are no rows to draw");
    assert!(
        Plot::new(Kind::Parallel, rows())
            .chart("a")
            .unwrap_err()
            .to_string()
            .contains("at least two columns")
    );
}

#[test]
fn long_series_are_thinned_and_say_so() {
    let row = |at: i64| vec![Cell::Int(at), Cell::Number((at as f64 / 50.0).sin())];
    let long = table(&["x", "y"], (0..10_000).map(row).collect());
    let plot = Plot { x: Some("x".into()), y: Some("y".into()), ..Plot::new(Kind::Line, long) };
    let chart = plot.chart("a").unwrap();
    assert!(chart.reading.ends_with("The largest series has 10,000 points, of which a part is drawn."));
    let drawn: Value = serde_json::from_str(&chart.json).unwrap();
    assert_eq!(drawn["data"][0]["x"].as_array().unwrap().len(), 2000);
}
