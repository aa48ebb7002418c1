//! The training algorithms by name.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use rand::Rng;

use super::{Options, Targets};
use crate::flow::{self, Student};
use crate::nearest::nearest;

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
    /// KL(teacher ‖ student) of the next token alone, through the layers behind the block.
    Kl,
}

impl Objective {
    /// All of them, those of the paper first and in its order.
    pub const ALL: [Self; 5] = [Self::Fm, Self::Fw, Self::Hybrid, Self::Regression, Self::Kl];

    /// The name used in scripts and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fm => "fm",
            Self::Fw => "fw",
            Self::Hybrid => "hybrid",
            Self::Regression => "regression",
            Self::Kl => "kl",
        }
    }

    /// The loss of one batch, the weighted KL included; times are drawn from `rng`.
    ///
    /// # Shapes
    /// result a scalar.
    pub fn loss(
        self,
        student: &Student,
        targets: &Targets,
        options: &Options,
        rng: &mut impl Rng,
    ) -> Result<Tensor> {
        let latent = self.latent_loss(student, targets, options, rng)?;
        let weight = if self == Self::Kl { 1.0 } else { options.kl_weight };
        let kl = (weight > 0.0).then(|| divergence(student, targets, options)).transpose()?;
        match (latent, kl) {
            (Some(latent), Some(kl)) => Ok((latent + (kl * weight)?)?),
            (Some(loss), None) | (None, Some(loss)) => Ok(loss),
            (None, None) => bail!("the objective {self} has no term"),
        }
    }

    /// The part that compares latents; the KL alone has none.
    fn latent_loss(
        self,
        student: &Student,
        targets: &Targets,
        options: &Options,
        rng: &mut impl Rng,
    ) -> Result<Option<Tensor>> {
        let u = student.velocity.as_ref();
        let Targets { x0, x1, .. } = targets;
        let (batch, device) = (x0.dim(0)?, x0.device());
        let loss = match self {
            Self::Kl => return Ok(None),
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
        };
        loss.map(Some)
    }
}

/// The KL through the integration that the options name.
fn divergence(student: &Student, targets: &Targets, options: &Options) -> Result<Tensor> {
    let logits = targets.logits.as_ref().context("the KL term needs the teacher's logits")?;
    let times = flow::equal_times(options.kl_steps, targets.x0.device())?;
    let (u, teacher) = (student.velocity.as_ref(), student.teacher.as_ref());
    flow::distillation_loss(u, teacher, student.block.n, &targets.x0, logits, &times, options.kl_solver)
}

impl FromStr for Objective {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        if let Some(objective) = Self::ALL.into_iter().find(|o| o.name() == name) {
            return Ok(objective);
        }
        let all = Self::ALL.map(Self::name);
        let hint = nearest(name, all).map_or(String::new(), |near| format!(" (did you mean '{near}'?)"));
        bail!("unknown training method '{name}'{hint}: it is one of {}", all.join(", "))
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
