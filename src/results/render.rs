//! A table as text: aligned for the eye, or CSV, JSON and Markdown for other programs.

use comfy_table::{Cell, CellAlignment, ContentArrangement, TableComponent};

use super::frame::Frame;
use super::value::Value;

/// Longer texts are cut in aligned tables, where one script's source would bury everything else.
const LONGEST_CELL: usize = 100;

impl Frame {
    /// An aligned table. Floats are rounded to four significant digits ([`short`]), numbers are set
    /// flush right, control characters are escaped, and long texts are cut.
    pub fn to_text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_style(TableComponent::HeaderLines, '─');
        table.set_header(self.columns().iter().map(|name| cut(&visible(name))));
        for row in self.rows() {
            table.add_row(row.iter().map(|value| Cell::new(cut(&visible(&short(value))))));
        }
        for (column, numeric) in table.column_iter_mut().zip(self.numeric()) {
            if numeric {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt() + "\n"
    }

    /// CSV (RFC 4180, a header line, `\n` between lines) with full precision; null is empty and the empty
    /// text is `""`.
    pub fn to_csv(&self) -> String {
        let header = self.columns().iter().map(|name| csv_text(name)).collect::<Vec<_>>().join(",") + "\n";
        std::iter::once(header).chain(self.csv_rows()).collect()
    }

    /// The lines of [`Frame::to_csv`] below its header.
    pub(super) fn csv_rows(&self) -> impl Iterator<Item = String> {
        self.rows().map(|row| row.iter().map(csv_cell).collect::<Vec<_>>().join(",") + "\n")
    }

    /// A JSON array with one object a row and full precision; null, NaN and the infinities are `null`.
    pub fn to_json(&self) -> String {
        let lines: Vec<_> = self.json_rows().map(|object| format!("  {object}")).collect();
        if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
    }

    /// The objects of [`Frame::to_json`].
    pub(super) fn json_rows(&self) -> impl Iterator<Item = serde_json::Value> {
        let columns = self.columns();
        self.rows().map(move |row| {
            let cells = columns.iter().cloned().zip(row.iter().map(Value::to_json));
            serde_json::Value::Object(cells.collect())
        })
    }

    /// A Markdown table with numbers as in [`Frame::to_text`]; markup in names and texts is escaped.
    pub fn to_markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let header = line(self.columns().iter().map(|name| markdown_text(name)).collect());
        let rule = self.numeric().iter().map(|&n| if n { "---:" } else { "---" }.to_owned()).collect();
        let rows = self.rows().map(|row| line(row.iter().map(|v| markdown_text(&short(v))).collect()));
        header + &line(rule) + &rows.collect::<String>()
    }

    /// For each column whether it holds numbers only.
    fn numeric(&self) -> Vec<bool> {
        let mut numeric = vec![true; self.width()];
        for row in self.rows() {
            for (flag, value) in numeric.iter_mut().zip(&row) {
                *flag &= matches!(value, Value::Null | Value::Int(_) | Value::Float(_));
            }
        }
        numeric
    }
}

/// A value for the eye: floats with four significant digits, whole parts never shortened below 10⁷,
/// and powers of ten beyond 10⁷ and below 10⁻⁴. A float that needs fewer digits is shown exactly.
pub fn short(value: &Value) -> String {
    let Value::Float(x) = value else {
        return value.to_string();
    };
    if !x.is_finite() || *x == 0.0 {
        return format!("{x}");
    }
    // Rounding can carry into the next power of ten, so the exponent is read after it.
    let rounded = format!("{x:.3e}");
    let exact = rounded.parse() == Ok(*x);
    let exponent: i32 = rounded.split('e').nth(1).and_then(|e| e.parse().ok()).unwrap_or(0);
    match exponent {
        -4..=6 if exact => format!("{x}"),
        -4..=6 => format!("{x:.*}", usize::try_from(3 - exponent).unwrap_or(0)),
        _ if exact => format!("{x:e}"),
        _ => rounded,
    }
}

fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn csv_cell(value: &Value) -> String {
    match value {
        Value::String(text) => csv_text(text),
        other => other.to_string(),
    }
}

fn csv_text(text: &str) -> String {
    if text.is_empty() || text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn markdown_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '[' | ']' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use polars::df;

    use super::*;

    fn frame() -> Frame {
        let methods = ["fm", "a,\"b\"\n<c>|"];
        let kl = [Some(0.123456), None];
        Frame::new(df!("method" => methods, "k" => [1i64, 10], "kl" => kl).unwrap())
    }

    #[test]
    fn four_significant_digits() {
        let cases = [
            (0.407149, "0.4071"),
            (33.9123, "33.91"),
            (0.99999, "1.000"),
            (0.5, "0.5"),
            (1.0, "1"),
            (123456.7, "123457"),
            (12345678.9, "1.235e7"),
            (0.000123456, "0.0001235"),
            (0.0000123456, "1.235e-5"),
            (1e-5, "1e-5"),
            (-2.0 / 3.0, "-0.6667"),
            (0.0, "0"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "NaN"),
        ];
        for (x, text) in cases {
            assert_eq!(short(&Value::Float(x)), text);
        }
        assert_eq!(short(&Value::Int(123456789)), "123456789");
    }

    #[test]
    fn text_is_aligned() {
        let expected = concat!(
            " method        k      kl\n",
            "─────────────────────────\n",
            " fm            1  0.1235\n",
            " a,\"b\"\\n<c>|  10\n",
        );
        assert_eq!(frame().to_text(), expected);
    }

    #[test]
    fn long_texts_are_cut_in_text_only() {
        let long = "x".repeat(1000);
        let frame = Frame::new(df!("script_text" => [long.clone()]).unwrap());
        assert!(frame.to_text().lines().all(|line| line.chars().count() < 110));
        assert!(frame.to_csv().contains(&long));
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(frame().to_csv(), "method,k,kl\nfm,1,0.123456\n\"a,\"\"b\"\"\n<c>|\",10,\n");
    }

    #[test]
    fn json_is_an_array_of_objects() {
        let rows: serde_json::Value = serde_json::from_str(&frame().to_json()).unwrap();
        assert_eq!(rows[0], serde_json::json!({"method": "fm", "k": 1, "kl": 0.123456}));
        assert_eq!(rows[1]["kl"], serde_json::Value::Null);
        let empty = Frame::new(df!("k" => Vec::<i64>::new()).unwrap());
        assert_eq!(empty.to_json(), "[]\n");
    }

    #[test]
    fn markdown_escapes_markup() {
        let expected = "| method | k | kl |\n| --- | ---: | ---: |\n| fm | 1 | 0.1235 |\n| a,\"b\" &lt;c>\\| | 10 |  |\n";
        assert_eq!(frame().to_markdown(), expected);
    }
}
