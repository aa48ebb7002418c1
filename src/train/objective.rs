//! The training algorithms by name.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use rand::Rng;

use super::{Options, Targets};
use crate::flow::{self, Evaluation, Student};
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
    /// The update of every layer of the block at its own time.
    Path,
    /// KL(teacher ‖ student) of the next token alone, through the layers behind the block.
    Kl,
    /// The language-modelling loss alone, through the same layers.
    Lm,
}

impl Objective {
    /// All of them, those of the paper first and in its order.
    pub const ALL: [Self; 7] =
        [Self::Fm, Self::Fw, Self::Hybrid, Self::Regression, Self::Path, Self::Kl, Self::Lm];

    /// The name used in scripts and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fm => "fm",
            Self::Fw => "fw",
            Self::Hybrid => "hybrid",
            Self::Regression => "regression",
            Self::Path => "path",
            Self::Kl => "kl",
            Self::Lm => "lm",
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
        let u = Evaluation::of(&student.velocity, options.recompute)?;
        let latent = self.latent_loss(&u, targets, options, student.block.layers(), rng)?;
        let weight = if self == Self::Kl { 1.0 } else { options.kl_weight };
        let mut terms: Vec<Tensor> = latent.into_iter().collect();
        if weight > 0.0 || self == Self::Lm {
            let (teacher, n) = (student.teacher.as_ref(), student.block.n);
            let x1 = arrival(&u, student, targets, options)?;
            if weight > 0.0 {
                let logits = targets.logits.as_ref().context("the KL term needs the teacher's logits")?;
                terms.push((flow::divergence(teacher, n, &x1, logits)? * weight)?);
            }
            if self == Self::Lm {
                terms.push(flow::language_loss(teacher, n, &x1, &targets.ids)?);
            }
        }
        let sum = terms.into_iter().map(Ok).reduce(|a, b| Ok((a? + b?)?));
        sum.with_context(|| format!("the objective {self} has no term"))?
    }

    /// The part that compares latents; those of the next token have none.
    fn latent_loss(
        self,
        u: &Evaluation,
        targets: &Targets,
        options: &Options,
        layers: usize,
        rng: &mut impl Rng,
    ) -> Result<Option<Tensor>> {
        let Targets { x0, x1, .. } = targets;
        let (batch, device) = (x0.dim(0)?, x0.device());
        let loss = match self {
            Self::Kl | Self::Lm => return Ok(None),
            Self::Fm => flow::matching_loss(u, x0, x1, &flow::uniform_times(batch, rng, device)?),
            Self::Regression => flow::regression_loss(u, x0, x1),
            Self::Path => {
                let path = targets.path.as_ref().context("the objective path needs the block's latents")?;
                flow::path_loss(u, path, &flow::uniform_layers(batch, layers, rng))
            }
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

/// Latents at boundary n, integrated as the options name it for losses of the next token.
fn arrival(u: &Evaluation, student: &Student, targets: &Targets, options: &Options) -> Result<Tensor> {
    let times = match student.velocity.learned_times(options.kl_steps) {
        Some(times) => times?,
        None => flow::equal_times(options.kl_steps, targets.x0.device())?,
    };
    flow::walk(u, &targets.x0, &times, options.kl_solver)
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
