//! The rows of a table as series: what was tried, at which step, with which numbers.

use crate::results::RESERVED;
use crate::results::frame::Frame;
use crate::results::value::Value;

/// One row: numbers by name, at a step of the series that its texts name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    /// What the row's texts say was tried, such as `fw` or `fm-midpoint`; empty when they say nothing.
    pub series: String,
    pub step: i64,
    /// Seconds since the start of the series, where the row says so.
    pub seconds: Option<f64>,
    pub numbers: Vec<(String, f64)>,
}

/// Texts that name a series where a table has them; without them, all of its texts do.
const NAMING: [&str; 3] = ["method", "block", "solver"];

/// The rows of a table. The step is the column `step_column`, or the number of the row without it; every other number
/// is a value. Booleans count as 0 and 1.
pub(super) fn points(frame: &Frame, step_column: &str) -> Vec<Point> {
    let columns = frame.columns();
    let has_naming = columns.iter().any(|name| NAMING.contains(&name.as_str()));
    let names = |name: &str| !has_naming || NAMING.contains(&name);
    let point = |(at, row): (usize, Vec<Value>)| {
        let mut point = Point { series: String::new(), step: at as i64, seconds: None, numbers: vec![] };
        for (name, value) in columns.iter().zip(row) {
            if RESERVED.contains(&name.as_str()) {
                continue;
            }
            match value {
                Value::Int(step) if name == step_column => point.step = step,
                Value::String(_) if !names(name) => {}
                Value::String(text) if point.series.is_empty() => point.series = text,
                Value::String(text) => point.series = format!("{}-{text}", point.series),
                Value::Bool(flag) => point.numbers.push((name.clone(), f64::from(flag))),
                Value::Int(_) | Value::Float(_) => {
                    let number = value.as_f64().unwrap_or(f64::NAN);
                    if name == "seconds" {
                        point.seconds = Some(number);
                    }
                    point.numbers.push((name.clone(), number));
                }
                Value::Null => {}
            }
        }
        point
    };
    frame.rows().enumerate().map(point).collect()
}

#[cfg(test)]
mod tests {
    use polars::df;

    use super::*;

    #[test]
    fn texts_name_the_series_and_numbers_are_values() {
        let frame = Frame::new(
            df!(
                "run" => ["a"; 2], "method" => ["fw", "fm"], "step" => [10i64, 20], "loss" => [Some(0.5), None],
                "seconds" => [1.5, 2.5], "solver" => [None, Some("euler")], "note" => ["x"; 2], "ok" => [true, false],
            )
            .unwrap(),
        );
        let points = points(&frame, "step");
        let number = |name: &str, x: f64| (name.to_owned(), x);
        assert_eq!((points[0].series.as_str(), points[0].step, points[0].seconds), ("fw", 10, Some(1.5)));
        assert_eq!(points[0].numbers, [number("loss", 0.5), number("seconds", 1.5), number("ok", 1.0)]);
        assert_eq!((points[1].series.as_str(), points[1].step), ("fm-euler", 20));
        assert_eq!(points[1].numbers, [number("seconds", 2.5), number("ok", 0.0)]);
        assert_eq!(super::points(&frame, "k")[1].step, 1, "the row's number without a step column");
    }
}
