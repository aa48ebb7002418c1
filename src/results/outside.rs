//! What a statement could read besides the runs: Polars' table functions open files by name.

/// The functions of Polars' SQL that read files.
const FUNCTIONS: [&str; 4] = ["read_csv", "read_ipc", "read_json", "read_parquet"];

/// The function that a statement names and that would read a file. Looks at the text, so that a column or a text
/// that holds such a name counts as well: what may not be read is worth a false alarm.
pub fn file_function(sql: &str) -> Option<&'static str> {
    let sql = sql.to_lowercase();
    FUNCTIONS.into_iter().find(|function| sql.contains(function))
}

#[cfg(test)]
mod tests {
    use polars::sql::SQLContext;

    use super::*;

    #[test]
    fn functions_that_read_files_are_found_however_they_are_written() {
        for sql in [
            "SELECT * FROM read_csv('a')",
            "select * from\tREAD_CSV ('a')",
            "SELECT * FROM \"Read_Csv\"('a')",
        ] {
            assert_eq!(file_function(sql), Some("read_csv"), "{sql}");
        }
        assert_eq!(file_function("SELECT kl FROM results"), None);
    }

    /// Polars knows no other way to name a file.
    #[test]
    fn tables_are_not_taken_for_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.csv");
        std::fs::write(&file, "secret\n42\n").unwrap();
        let path = file.display();
        let answer = |sql: &str| SQLContext::new().execute(sql).and_then(|plan| plan.collect());
        assert!(answer(&format!("SELECT * FROM read_csv('{path}')")).is_ok());
        for table in [
            format!("'{path}'"),
            format!("\"{path}\""),
            format!("scan_csv('{path}')"),
            format!("csv('{path}')"),
        ] {
            assert!(answer(&format!("SELECT * FROM {table}")).is_err(), "{table}");
        }
    }
}
