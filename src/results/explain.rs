//! Polars errors in the user's terms.

use anyhow::{Error, anyhow};
use polars::prelude::{PolarsError, Schema};

use crate::nearest::nearest;

/// The tables of a query with their columns.
pub(super) type Tables = Vec<(&'static str, Schema)>;

/// Says what is wrong with a query: for an unknown table or column, which ones there are and which is nearest.
pub(super) fn explain(error: &PolarsError, tables: &Tables) -> Error {
    let text = first_line(error);
    if let Some(name) = between(&text, "relation '", "'").or_else(|| between(&text, "table '", "' does not"))
    {
        return anyhow!(
            "no table `{name}`{}; tables: {}",
            hint(name, &super::query::TABLES),
            super::query::TABLES.join(", ")
        );
    }
    if let Some(name) = unknown_column(&text) {
        let known: Vec<&str> = tables.iter().flat_map(|(_, s)| s.iter_names()).map(|n| n.as_str()).collect();
        let listing: Vec<String> = tables.iter().map(|(table, schema)| columns_of(table, schema)).collect();
        return anyhow!("no column `{name}`{}; {}", hint(name, &known), listing.join("; "));
    }
    anyhow!("the query failed: {text}")
}

/// The beginning of a Polars error's first line: query plans and syntax trees follow further on.
pub(super) fn first_line(error: &PolarsError) -> String {
    const LONGEST: usize = 300;
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_end_matches(':').chars().take(LONGEST).collect()
}

fn unknown_column(text: &str) -> Option<&str> {
    between(text, "unable to find column \"", "\"").or_else(|| between(text, "no column named '", "'"))
}

fn columns_of(table: &str, schema: &Schema) -> String {
    let names: Vec<_> = schema.iter_names().map(|n| n.as_str()).collect();
    format!("columns of {table}: {}", names.join(", "))
}

fn hint(name: &str, known: &[&str]) -> String {
    nearest(name, known.iter().copied()).map_or(String::new(), |near| format!(" (did you mean `{near}`?)"))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(hint("method", &["methods", "kl"]), " (did you mean `methods`?)");
        assert_eq!(hint("KL", &["methods", "kl"]), " (did you mean `kl`?)");
        assert_eq!(hint("velocity", &["methods", "kl"]), "");
        assert_eq!(hint("x", &[]), "");
    }
}
