//! Several students trained side by side on one teacher pass.

use std::sync::Arc;

use anyhow::{Error, Result, ensure};
use candle_core::Tensor;

use super::targets::TeacherPass;
use super::{StepReport, Trainer};

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
/// boundary that anyone needs (or to the logits), and every student learns from the same latents.
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
        let pass = TeacherPass::new(&teacher, &ids, trainers, step)?;
        for (i, trainer) in trainers.iter_mut().enumerate().filter(|(_, t)| step < t.options.steps) {
            if failed[i] {
                continue;
            }
            match pass.targets(trainer.student.block).and_then(|targets| trainer.step(&targets)) {
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
