//! Quotation marks of a text.

use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// What becomes of typographic quotation marks and apostrophes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quotes {
    /// They stay.
    #[default]
    Kept,
    /// They become `"` and `'`, so that a small model need not learn several signs for one thing.
    Ascii,
}

impl Quotes {
    /// The text with the marks changed.
    pub fn apply(self, text: String) -> String {
        match self {
            Self::Ascii if text.contains(CURLY) => text
                .chars()
                .map(|c| match c {
                    '‘' | '’' | '‚' | '‛' => '\'',
                    '“' | '”' | '„' | '‟' => '"',
                    other => other,
                })
                .collect(),
            _ => text,
        }
    }
}

const CURLY: [char; 8] = ['‘', '’', '‚', '‛', '“', '”', '„', '‟'];

impl FromStr for Quotes {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "kept" => Ok(Self::Kept),
            "ascii" => Ok(Self::Ascii),
            _ => bail!("unknown treatment of quotation marks '{name}': it is 'kept' or 'ascii'"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotation_marks_become_ascii_and_all_else_stays() {
        let text = "“It’s ‘so’,” „said‟ she ‚—‛ naïve…".to_owned();
        assert_eq!(Quotes::Kept.apply(text.clone()), text);
        assert_eq!(Quotes::Ascii.apply(text), "\"It's 'so',\" \"said\" she '—' naïve…");
        assert_eq!(Quotes::Ascii.apply("plain 'text'".to_owned()), "plain 'text'");
    }

    #[test]
    fn names_are_checked() {
        assert_eq!("ascii".parse::<Quotes>().unwrap(), Quotes::Ascii);
        assert!("curly".parse::<Quotes>().unwrap_err().to_string().contains("'kept' or 'ascii'"));
    }
}
