//! Names for folders and files made from names that scripts choose.

use chrono::{DateTime, Utc};

/// Length of the readable part; with the suffix it stays far below every file system's limit.
const LONGEST: usize = 48;

/// A name that is one harmless path component: letters, digits, `-`, `_` and inner dots are kept,
/// everything else becomes `_`.
pub fn sanitise(name: &str) -> String {
    let kept: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' })
        .take(LONGEST)
        .collect();
    let trimmed = kept.trim_matches('.');
    if trimmed.is_empty() { "unnamed".to_owned() } else { trimmed.to_owned() }
}

/// A run id: the sanitised name, the start in UTC to the second, and four random hexadecimal digits.
pub fn run_id(name: &str, start: DateTime<Utc>) -> String {
    let suffix: u16 = rand::random();
    format!("{}-{}-{suffix:04x}", sanitise(name), start.format("%Y%m%d-%H%M%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_become_one_component() {
        assert_eq!(sanitise("<script>"), "_script_");
        assert_eq!(sanitise("../../x"), "_.._x");
        assert_eq!(sanitise(".."), "unnamed");
        assert_eq!(sanitise(""), "unnamed");
        assert_eq!(sanitise("a/b\\c\0d\ne"), "a_b_c_d_e");
        assert_eq!(sanitise("Größe 3.5"), "Größe_3.5");
        assert!(sanitise(&"ж".repeat(1000)).len() < 200);
    }

    #[test]
    fn ids_of_one_name_sort_by_time() {
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        assert!(run_id("a", at(1_000_000_000)) < run_id("a", at(1_000_000_001)));
        assert!(run_id("../x", at(0)).starts_with("_x-19700101-000000-"));
    }
}
