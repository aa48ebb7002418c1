//! Several students trained side by side on one teacher pass.

use std::sync::Arc;

use anyhow::{Context, Error, Result, ensure};
use candle_core::{DType, Tensor};

use super::{StepReport, Trainer};
use crate::flow::Block;
use crate::pythia::Pythia;

/// What the loop tells after every step of one student.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Which of the trainers.
    pub trainer: usize,
    /// Its step.
    pub report: StepReport,
    /// Tokens it has seen so far.
    pub tokens: usize,
}

/// Trains all trainers to their ends. In each step the teacher runs once over the batch, as far as the last
/// boundary that anyone needs, and every student learns from the same latents.
///
/// `batch(step)` supplies token ids (B, T) of step 0, 1, …; `watch` hears of every student's step and may
/// stop the training by an error.
///
/// # Errors
/// If the trainers have different teachers, and those of a step.
pub fn together(
    trainers: &mut [Trainer],
    batch: impl FnMut(usize) -> Result<Tensor>,
    watch: impl FnMut(Progress) -> Result<()>,
) -> Result<()> {
    side_by_side(trainers, batch, watch, |_, error| Err(error)).map(|_| ())
}

/// As [`together`], but a student whose step fails need not end the others: `fail` is told which one and why, and when
/// it returns well, the others go on without that student. Returns how often the teacher ran.
///
/// # Errors
/// If the trainers have different teachers, and those of `batch`, `watch` and `fail`.
pub fn side_by_side(
    trainers: &mut [Trainer],
    mut batch: impl FnMut(usize) -> Result<Tensor>,
    mut watch: impl FnMut(Progress) -> Result<()>,
    mut fail: impl FnMut(usize, Error) -> Result<()>,
) -> Result<usize> {
    let Some(first) = trainers.first() else { return Ok(0) };
    let teacher = first.student.teacher.clone();
    ensure!(
        trainers.iter().all(|t| Arc::ptr_eq(&t.student.teacher, &teacher)),
        "students that train together must share one teacher"
    );
    let steps = trainers.iter().map(|t| t.options.steps).max().unwrap_or(0);
    let mut tokens = 0;
    let mut failed = vec![false; trainers.len()];
    for step in 0..steps {
        let goes_on = |(trainer, failed): (&Trainer, &bool)| !failed && step < trainer.options.steps;
        if !trainers.iter().zip(&failed).any(goes_on) {
            return Ok(step);
        }
        let ids = batch(step)?;
        tokens += ids.elem_count();
        let latents = Latents::new(&teacher, &ids, trainers, step)?;
        for (i, trainer) in trainers.iter_mut().enumerate().filter(|(_, t)| step < t.options.steps) {
            if failed[i] {
                continue;
            }
            let Block { m, n } = trainer.student.block;
            let (x0, x1) = (latents.at(m)?, latents.at(n)?);
            match trainer.step(&x0, &x1) {
                Ok(report) => watch(Progress { trainer: i, report, tokens })?,
                Err(error) => {
                    fail(i, error)?;
                    failed[i] = true;
                }
            }
        }
    }
    Ok(steps)
}

/// Latents of one batch at every boundary that some student needs.
struct Latents(Vec<(usize, Tensor)>);

impl Latents {
    fn new(teacher: &Pythia, ids: &Tensor, trainers: &[Trainer], step: usize) -> Result<Self> {
        let active = trainers.iter().filter(|t| step < t.options.steps);
        let mut wanted: Vec<usize> = active.flat_map(|t| [t.student.block.m, t.student.block.n]).collect();
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
        Ok(Self(latents))
    }

    fn at(&self, boundary: usize) -> Result<Tensor> {
        let found = self.0.iter().find(|(b, _)| *b == boundary);
        let (_, latents) = found.with_context(|| format!("boundary {boundary} was not computed"))?;
        Ok(latents.clone())
    }
}
