//! A training that is saved now and then, and goes on from where it was saved.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;

use super::{Checkpoints, Descent, Saved};

/// The checkpoints of one or several descents that advance together.
pub struct Saving {
    checkpoints: Checkpoints,
    fingerprint: String,
}

impl Saving {
    /// `fingerprint` describes everything that decides the training: model, data and options.
    ///
    /// # Errors
    /// When the folder holds checkpoints and the training is not to be resumed.
    pub fn new(checkpoints: Checkpoints, fingerprint: String, resume: bool) -> Result<Self> {
        ensure!(
            resume || checkpoints.is_empty(),
            "{} holds checkpoints of an earlier training: resume = true goes on from them, another folder begins anew",
            checkpoints.dir().display()
        );
        Ok(Self { checkpoints, fingerprint })
    }

    /// Restores the newest whole checkpoint, if there is one; how many steps had been taken. `warn` is told of
    /// checkpoints that are damaged.
    ///
    /// # Errors
    /// Those of [`Checkpoints::latest`] and [`Descent::restore`].
    pub fn resume(&self, descents: &mut [&mut Descent], warn: impl FnMut(&str)) -> Result<usize> {
        let Some(saved) = self.checkpoints.latest(&self.fingerprint, warn)? else { return Ok(0) };
        for (i, descent) in descents.iter_mut().enumerate() {
            let prefix = format!("{i}/");
            let own = saved.tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?, t)));
            let own: HashMap<String, Tensor> = own.map(|(name, t)| (name.to_owned(), t.clone())).collect();
            descent
                .restore(&own)
                .with_context(|| format!("{} cannot be resumed", self.checkpoints.dir().display()))?;
        }
        Ok(saved.step)
    }

    /// Whether a step is one after which [`Saving::after`] writes a checkpoint.
    pub fn due(&self, step: usize, last: usize) -> bool {
        self.checkpoints.due(step, last)
    }

    /// To be called after every step; `last` is the number of the last one.
    ///
    /// # Errors
    /// When a checkpoint cannot be written; those before it are intact then.
    pub fn after(&mut self, step: usize, last: usize, descents: &[&Descent]) -> Result<()> {
        if !self.due(step, last) {
            return Ok(());
        }
        let mut tensors = Vec::new();
        for (i, descent) in descents.iter().enumerate() {
            tensors.extend(descent.tensors()?.into_iter().map(|(name, t)| (format!("{i}/{name}"), t)));
        }
        let scores = descents.iter().map(|descent| descent.score(self.checkpoints.every()));
        let score = scores.sum::<Option<f64>>().map(|sum| sum / descents.len() as f64);
        self.checkpoints.save(&Saved { step, score, fingerprint: self.fingerprint.clone(), tensors })
    }
}
