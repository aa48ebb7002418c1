//! The types of a file's columns as text, for the memo.

use polars::prelude::{DataType, Schema};

/// The types that `lft` writes; files of other programs may have more, and those are opened each time.
const KNOWN: [(&str, DataType); 9] = [
    ("null", DataType::Null),
    ("bool", DataType::Boolean),
    ("i32", DataType::Int32),
    ("i64", DataType::Int64),
    ("u32", DataType::UInt32),
    ("u64", DataType::UInt64),
    ("f32", DataType::Float32),
    ("f64", DataType::Float64),
    ("text", DataType::String),
];

/// Names and types as JSON; `None` when a type has no short name.
pub(super) fn write(schema: &Schema) -> Option<String> {
    let column = |(name, dtype): (&polars::prelude::PlSmallStr, &DataType)| {
        let (short, _) = KNOWN.iter().find(|(_, known)| known == dtype)?;
        Some((name.to_string(), *short))
    };
    let columns: Vec<_> = schema.iter().map(column).collect::<Option<_>>()?;
    serde_json::to_string(&columns).ok()
}

/// The schema that [`write`] wrote.
pub(super) fn read(text: &str) -> Option<Schema> {
    let columns: Vec<(String, String)> = serde_json::from_str(text).ok()?;
    let mut schema = Schema::with_capacity(columns.len());
    for (name, short) in columns {
        let (_, dtype) = KNOWN.iter().find(|(known, _)| *known == short)?;
        schema.insert(name.into(), dtype.clone());
    }
    Some(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_survive_and_strangers_are_left_out() {
        let mut schema = Schema::default();
        for (name, dtype) in KNOWN {
            schema.insert(format!("\"{name}\"").as_str().into(), dtype);
        }
        assert_eq!(read(&write(&schema).unwrap()), Some(schema.clone()));
        schema.insert("list".into(), DataType::List(Box::new(DataType::Int64)));
        assert_eq!(write(&schema), None);
        assert_eq!(read("[[\"a\",\"huge\"]]"), None);
    }
}
