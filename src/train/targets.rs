//! What the teacher makes of a batch of tokens, computed once for all students.

use anyhow::{Context, Result};
use candle_core::{DType, Tensor};

use super::Trainer;
use crate::flow::{Block, teacher_logits};
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
    /// (B·T, V): the teacher's logits, where the objective compares them.
    pub logits: Option<Tensor>,
}

/// One pass of the teacher: latents at every boundary that some student needs, and the logits if one does.
pub(super) struct TeacherPass {
    ids: Tensor,
    latents: Vec<(usize, Tensor)>,
    logits: Option<Tensor>,
}

impl TeacherPass {
    /// Runs the teacher as far as the trainers that are still active at `step` need it.
    pub fn new(teacher: &Pythia, ids: &Tensor, trainers: &[Trainer], step: usize) -> Result<Self> {
        let active = || trainers.iter().filter(|t| step < t.options.steps);
        let mut wanted: Vec<usize> = active().flat_map(|t| [t.student.block.m, t.student.block.n]).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut x = teacher.hidden(ids, 0)?;
        let mut at = 0;
        let mut latents = Vec::with_capacity(wanted.len());
        for boundary in wanted {
            x = teacher.run(&x, at, boundary)?;
            at = boundary;
            latents.push((boundary, x.to_dtype(DType::F32)?));
        }
        let compared = active().any(|t| t.options.compares_logits(step));
        let logits = compared.then(|| teacher_logits(teacher, at, &x)).transpose()?;
        Ok(Self { ids: ids.clone(), latents, logits })
    }

    /// What the student of one block learns from.
    pub fn targets(&self, Block { m, n }: Block) -> Result<Targets> {
        Ok(Targets { ids: self.ids.clone(), x0: self.at(m)?, x1: self.at(n)?, logits: self.logits.clone() })
    }

    fn at(&self, boundary: usize) -> Result<Tensor> {
        let found = self.latents.iter().find(|(b, _)| *b == boundary);
        let (_, latents) = found.with_context(|| format!("boundary {boundary} was not computed"))?;
        Ok(latents.clone())
    }
}
