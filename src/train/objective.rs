//! The training algorithms by name.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use candle_core::Tensor;
use rand::Rng;

use super::Options;
use crate::flow::{self, Field};

/// What a velocity field is trained to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Objective {
    /// Flow matching, eq. 3.
    Fm,
    /// Flow walking, eq. 8.
    Fw,
    /// `L_FW + α·L_FM`, eq. 9.
    Hybrid,
    /// One step at t = 0.
    Regression,
}

impl Objective {
    /// All of them, in the order of the paper.
    pub const ALL: [Self; 4] = [Self::Fm, Self::Fw, Self::Hybrid, Self::Regression];

    /// The name used in scripts and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fm => "fm",
            Self::Fw => "fw",
            Self::Hybrid => "hybrid",
            Self::Regression => "regression",
        }
    }

    /// The loss of one batch; times are drawn from `rng`.
    ///
    /// # Shapes
    /// `x0`, `x1` (B, T, D); result a scalar.
    pub fn loss(
        self,
        u: &impl Field,
        x0: &Tensor,
        x1: &Tensor,
        options: &Options,
        rng: &mut impl Rng,
    ) -> Result<Tensor> {
        let (batch, device) = (x0.dim(0)?, x0.device());
        match self {
            Self::Fm => flow::matching_loss(u, x0, x1, &flow::uniform_times(batch, rng, device)?),
            Self::Regression => flow::regression_loss(u, x0, x1),
            Self::Fw => {
                let times = flow::walk_times(batch, options.walk, rng, device)?;
                flow::walking_loss(u, x0, x1, &times, options.solver)
            }
            Self::Hybrid => {
                let t = flow::uniform_times(batch, rng, device)?;
                let times = flow::walk_times(batch, options.walk, rng, device)?;
                flow::hybrid_loss(u, (x0, x1), &times, options.solver, &t, options.alpha)
            }
        }
    }
}

impl FromStr for Objective {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|o| o.name() == name) {
            Some(objective) => Ok(objective),
            None => bail!("unknown training method '{name}': it is one of fm, fw, hybrid, regression"),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
