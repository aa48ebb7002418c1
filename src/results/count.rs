//! Counting a whole table, which needs no file to be opened: the footers' numbers of rows are remembered.

use polars::prelude::{Column, DataFrame, IdxSize, IntoLazy, LazyFrame};

use super::FILES;
use super::union::Union;

/// The statement `SELECT COUNT(*) AS name FROM table`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Count<'a> {
    pub table: &'static str,
    /// What the column is called.
    name: &'a str,
}

/// What Polars calls a count without a name.
const UNNAMED: &str = "len";

/// The statement as a bare count; `None` when it is anything else.
pub(super) fn of_table(sql: &str) -> Option<Count<'_>> {
    let rest = after(sql, &["select", "count", "(", "*", ")"])?;
    let (name, rest) = match after(rest, &["as"]) {
        Some(named) => word(named),
        None => (UNNAMED, rest),
    };
    let (table, end) = word(after(rest, &["from"])?);
    let table = FILES.iter().map(|(table, _)| *table).find(|known| table.eq_ignore_ascii_case(known))?;
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (plain && matches!(end.trim(), "" | ";")).then_some(Count { table, name })
}

impl Count<'_> {
    /// The answer, when it is known without looking at rows.
    pub fn known(&self, union: &Union) -> Option<LazyFrame> {
        let rows = IdxSize::try_from(union.rows()?).ok()?;
        Some(DataFrame::new(1, vec![Column::new(self.name.into(), [rows])]).ok()?.lazy())
    }
}

/// What follows these words at the beginning of a text, whatever their case.
fn after<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    words.iter().try_fold(text, |rest, wanted| {
        let (found, rest) = word(rest);
        found.eq_ignore_ascii_case(wanted).then_some(rest)
    })
}

/// The first word or sign of a text, and the rest.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let letters = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let end = letters.max(text.chars().next().map_or(0, char::len_utf8));
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_counts_are_counts() {
        let count = |table, name| Some(Count { table, name });
        assert_eq!(of_table("SELECT COUNT(*) FROM training"), count("training", "len"));
        assert_eq!(of_table(" select count ( * )\nas N_1 from Results ; "), count("results", "N_1"));
        for other in [
            "",
            "SELECT",
            "SELECT COUNT(*) FROM runs",
            "SELECT COUNT(*) FROM training WHERE latest",
            "SELECT COUNT(*), run FROM training",
            "SELECT COUNT(loss) FROM training",
            "SELECT COUNT(*) AS \"n\" FROM training",
            "SELECT COUNT(*) AS n FROM training t",
            "SELECT COUNT(*) + 1 FROM training",
        ] {
            assert_eq!(of_table(other), None, "{other}");
        }
    }
}
