//! What the teacher makes of a batch of tokens, computed once for all students.

use anyhow::{Context, Result};
use candle_core::Tensor;

use super::{Lesson, Objective, Trainer};
use crate::data::LatentBatch;
use crate::flow::{Block, teacher_logits};
use crate::ops;
use crate::pythia::Pythia;

/// What one student learns from.
#[derive(Clone, Debug)]
pub struct Targets {
    /// (B, T): the tokens.
    pub ids: Tensor,
    /// (B, T, D): latents in front of the block, f32.
    pub x0: Tensor,
    /// (B, T, D): latents behind it, f32.
    pub x1: Tensor,
    /// (B, T, D) each: latents at all boundaries m to n, f32, where the objective follows them.
    pub path: Option<Vec<Tensor>>,
    /// (B·T, V): the teacher's logits, where the objective compares them.
    pub logits: Option<Tensor>,
}

impl Targets {
    /// Those of `count` of the examples.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn part(&self, first: usize, count: usize) -> Result<Self> {
        let (batch, tokens) = self.ids.dims2()?;
        if (first, count) == (0, batch) {
            return Ok(self.clone());
        }
        let rows = |x: &Tensor, each: usize| x.narrow(0, first * each, count * each)?.contiguous();
        let path = self.path.as_ref().map(|path| path.iter().map(|x| rows(x, 1)).collect()).transpose()?;
        let logits = self.logits.as_ref().map(|logits| rows(logits, tokens)).transpose()?;
        Ok(Self { ids: rows(&self.ids, 1)?, x0: rows(&self.x0, 1)?, x1: rows(&self.x1, 1)?, path, logits })
    }
}

/// One pass of the teacher: latents at every boundary that some student needs, and the logits if one does.
pub(super) struct TeacherPass {
    ids: Tensor,
    latents: Vec<(usize, Tensor)>,
    logits: Option<Tensor>,
}

impl TeacherPass {
    /// What a lesson gives.
    pub fn of(teacher: &Pythia, lesson: Lesson, trainers: &[Trainer], step: usize) -> Result<Self> {
        match lesson {
            Lesson::Tokens(ids) => Self::new(teacher, &ids, trainers, step),
            Lesson::Latents(boundaries, batch) => {
                Self::remembered(teacher, boundaries, batch, trainers, step)
            }
        }
    }

    /// Takes latents from disk; the teacher runs only where logits are compared.
    fn remembered(
        teacher: &Pythia,
        boundaries: Vec<usize>,
        LatentBatch { ids, latents }: LatentBatch,
        trainers: &[Trainer],
        step: usize,
    ) -> Result<Self> {
        let moved = latents.iter().map(|x| x.to_device(teacher.device()));
        let moved: Vec<Tensor> = moved.collect::<candle_core::Result<_>>()?;
        let latents: Vec<(usize, Tensor)> = boundaries.into_iter().zip(moved).collect();
        let compared = trainers.iter().any(|t| step < t.options.steps && t.options.compares_logits(step));
        let logits = match latents.last().filter(|_| compared) {
            Some((at, x)) => Some(teacher_logits(teacher, *at, x)?),
            None => None,
        };
        Ok(Self { ids, latents, logits })
    }

    /// Runs the teacher as far as the trainers that are still active at `step` need it.
    fn new(teacher: &Pythia, ids: &Tensor, trainers: &[Trainer], step: usize) -> Result<Self> {
        let active = || trainers.iter().filter(|t| step < t.options.steps);
        let boundaries = |t: &Trainer| {
            let Block { m, n } = t.student.block;
            if t.options.objective(step) == Objective::Path { (m..=n).collect() } else { vec![m, n] }
        };
        let mut wanted: Vec<usize> = active().flat_map(boundaries).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut x = teacher.hidden(ids, 0)?;
        let mut at = 0;
        let mut latents = Vec::with_capacity(wanted.len());
        for boundary in wanted {
            x = teacher.run(&x, at, boundary)?;
            at = boundary;
            latents.push((boundary, ops::widen(&x)?));
        }
        let compared = active().any(|t| t.options.compares_logits(step));
        let logits = compared.then(|| teacher_logits(teacher, at, &x)).transpose()?;
        Ok(Self { ids: ids.clone(), latents, logits })
    }

    /// What the student of one block learns from.
    pub fn targets(&self, Block { m, n }: Block) -> Result<Targets> {
        let at = |boundary: usize| {
            self.find(boundary).with_context(|| {
                let known: Vec<usize> = self.latents.iter().map(|(b, _)| *b).collect();
                format!("there are no latents at boundary {boundary}, only at {known:?}")
            })
        };
        let path = (m..=n).map(|boundary| self.find(boundary)).collect();
        Ok(Targets { ids: self.ids.clone(), x0: at(m)?, x1: at(n)?, path, logits: self.logits.clone() })
    }

    fn find(&self, boundary: usize) -> Option<Tensor> {
        self.latents.iter().find(|(b, _)| *b == boundary).map(|(_, latents)| latents.clone())
    }
}
