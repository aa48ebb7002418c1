//! Which objective a step of the training has.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

use super::Objective;

/// Objectives one after the other, each for a share of the training: `fm:0.3,fw:0.7`.
#[derive(Clone, Debug, PartialEq)]
pub struct Curriculum(Vec<(Objective, f64)>);

impl Curriculum {
    /// The objective of a step, counted from 0, of a training of `steps`.
    pub fn objective(&self, step: usize, steps: usize) -> Objective {
        let progress = (step as f64 + 0.5) / steps as f64;
        let mut end = 0.0;
        for &(objective, share) in &self.0 {
            end += share;
            if progress < end {
                return objective;
            }
        }
        self.0[self.0.len() - 1].0
    }

    /// The objectives in order.
    pub fn objectives(&self) -> impl Iterator<Item = Objective> {
        self.0.iter().map(|(objective, _)| *objective)
    }
}

impl From<Objective> for Curriculum {
    fn from(objective: Objective) -> Self {
        Self(vec![(objective, 1.0)])
    }
}

impl FromStr for Curriculum {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = || format!("a curriculum looks like \"fm:0.3,fw:0.7\", not {text:?}");
        let part = |part: &str| {
            let (name, share) = part.trim().split_once(':').with_context(form)?;
            let share: f64 = share.trim().parse().ok().filter(|share| *share > 0.0).with_context(form)?;
            Ok((name.trim().parse()?, share))
        };
        let parts: Vec<(Objective, f64)> = text.split(',').map(part).collect::<Result<_>>()?;
        let sum: f64 = parts.iter().map(|(_, share)| share).sum();
        ensure!((sum - 1.0).abs() < 1e-6, "the shares of the curriculum {text:?} sum to {sum}, not to 1");
        Ok(Self(parts))
    }
}

impl fmt::Display for Curriculum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(objective, _)] = self.0[..] {
            return objective.fmt(f);
        }
        for (i, (objective, share)) in self.0.iter().enumerate() {
            write!(f, "{}{objective}:{share}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_training_are_kept() {
        let curriculum: Curriculum = "fm:0.3, kl:0.7".parse().unwrap();
        let kl = (0..10).filter(|step| curriculum.objective(*step, 10) == Objective::Kl).count();
        assert_eq!(
            (curriculum.objective(2, 10), curriculum.objective(3, 10), kl),
            (Objective::Fm, Objective::Kl, 7)
        );
        assert_eq!(curriculum.objective(99, 10), Objective::Kl, "beyond the end the last one stays");
        assert_eq!(curriculum.to_string(), "fm:0.3,kl:0.7");
        assert_eq!(Curriculum::from(Objective::Fw).to_string(), "fw");
    }

    #[test]
    fn broken_curricula_are_refused_with_the_reason() {
        for (text, reason) in [
            ("fm", "looks like"),
            ("fm:x", "looks like"),
            ("fm:-1,fw:2", "looks like"),
            ("fm:0.3,fw:0.3", "sum to 0.6"),
            ("fn:1", "did you mean 'fm'"),
        ] {
            let error = text.parse::<Curriculum>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
