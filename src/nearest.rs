//! What a misspelt name was meant to be.

/// The known name nearest to `name`, if one is near enough to be what was meant: at most one edit and one more
/// for every four letters (Damerau-Levenshtein distance, upper and lower case alike).
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_found_and_strangers_refused() {
        assert_eq!(nearest("dtpye", ["device", "dtype"]), Some("dtype"));
        assert_eq!(nearest("step", ["steps", "method"]), Some("steps"));
        assert_eq!(nearest("KLL", ["methods", "kl"]), Some("kl"));
        assert_eq!(nearest("colour", ["dtype", "steps"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
