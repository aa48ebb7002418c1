//! Rows as JSON that gives every number back as it was.
//!
//! `serde_json` reads a float to within its last digit only, unless it is compiled otherwise, and JSON has neither NaN nor the
//! infinities. So a float stands as `{"float": "0.1"}`, a text that Rust writes and reads without loss.

use anyhow::{Context, Result};
use serde_json::{Map, Value as Json, json};

use crate::results::{Row, Value};

/// The cells of a row by their names.
pub(super) type Cells = Map<String, Json>;

const FLOAT: &str = "float";

/// A row as it is written.
pub(super) fn cells(row: &Row) -> Cells {
    let cell = |value: &Value| match value {
        Value::Float(_) => json!({FLOAT: value.to_string()}),
        other => other.to_json(),
    };
    row.iter().map(|(name, value)| (name.clone(), cell(value))).collect()
}

/// The row that was written. Plain floats, which earlier versions wrote, are taken as they are.
///
/// # Errors
/// When a text is no number; the cell is named.
pub(super) fn row(cells: &Cells) -> Result<Row> {
    let cell = |(name, json): (&String, &Json)| {
        let value = match json.get(FLOAT) {
            Some(text) => Value::Float(
                text.as_str()
                    .and_then(|text| text.parse().ok())
                    .with_context(|| format!("'{name}' is {json}, no number"))?,
            ),
            None => json.into(),
        };
        Ok((name.clone(), value))
    };
    cells.iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Through a file's text and back.
    fn again(row: &Row) -> Row {
        let text = serde_json::to_string(&cells(row)).unwrap();
        super::row(&serde_json::from_str(&text).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn every_float_comes_back_to_the_last_bit(bits in any::<u64>(), digits in 0.0..1.0f64) {
            for number in [f64::from_bits(bits), digits] {
                let there = again(&vec![("x".to_owned(), number.into())]);
                let back = there[0].1.as_f64().unwrap();
                prop_assert!(back.to_bits() == number.to_bits() || back.is_nan() && number.is_nan(), "{number:?} {back:?}");
            }
        }
    }

    #[test]
    fn other_cells_are_plain_json_and_keep_their_kind() {
        let row: Row = [
            ("solver", Value::from("euler")),
            ("k", 3i64.into()),
            ("one", 1.0.into()),
            ("ok", true.into()),
            ("none", Value::Null),
            ("far", f64::NEG_INFINITY.into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let text =
            r#"{"solver":"euler","k":3,"one":{"float":"1.0"},"ok":true,"none":null,"far":{"float":"-inf"}}"#;
        assert_eq!(serde_json::to_string(&cells(&row)).unwrap(), text);
        assert_eq!(again(&row), row);
    }

    #[test]
    fn what_earlier_versions_wrote_is_read() {
        let cells = json!({"kl": 0.25, "k": 3}).as_object().cloned().unwrap();
        assert_eq!(
            super::row(&cells).unwrap(),
            [("kl".to_owned(), 0.25.into()), ("k".to_owned(), 3i64.into())]
        );
    }
}
