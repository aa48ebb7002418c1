//! Several students trained side by side on one teacher pass.

use std::sync::Arc;

use anyhow::{Error, Result, ensure};

use super::targets::TeacherPass;
use super::{Descent, Entry, Lesson, Saving, Trainer};

/// What the loop tells after every step of one student.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Which of the trainers.
    pub trainer: usize,
    /// Its step.
    pub entry: Entry,
}

/// Trains all trainers to their ends. In each step the teacher runs once over the batch, as far as the last
/// boundary that anyone needs (or to the logits), and every student learns from the same latents.
///
/// `lesson(step)` supplies what step 0, 1, … learns from; `watch` hears of every student's step and may stop the
/// training by an error. Trainers that were restored from a checkpoint go on behind it: `watch` first hears of the
/// steps before, and `lesson` is not asked for them. `saving` keeps checkpoints.
///
/// # Errors
/// If the trainers have different teachers, and those of a step or of a checkpoint.
pub fn together(
    trainers: &mut [Trainer],
    lesson: impl FnMut(usize) -> Result<Lesson>,
    saving: Option<&mut Saving>,
    watch: impl FnMut(Progress) -> Result<()>,
) -> Result<()> {
    side_by_side(trainers, lesson, saving, watch, |_, error| Err(error)).map(|_| ())
}

/// As [`together`], but a student whose step fails need not end the others: `fail` is told which one and why, and when
/// it returns well, the others go on without that student. Returns how often the teacher ran.
///
/// # Errors
/// If the trainers have different teachers, and those of `lesson`, `saving`, `watch` and `fail`.
pub fn side_by_side(
    trainers: &mut [Trainer],
    mut lesson: impl FnMut(usize) -> Result<Lesson>,
    mut saving: Option<&mut Saving>,
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
    let taken = trainers.iter().map(Trainer::steps_taken).max().unwrap_or(0);
    for step in 0..taken {
        for (trainer, t) in trainers.iter().enumerate() {
            t.descent()
                .history()
                .get(step)
                .map_or(Ok(()), |entry| watch(Progress { trainer, entry: *entry }))?;
        }
    }
    let mut failed = vec![false; trainers.len()];
    for step in taken..steps {
        let goes_on = |(trainer, failed): (&Trainer, &bool)| !failed && step < trainer.options.steps;
        if !trainers.iter().zip(&failed).any(goes_on) {
            return Ok(step);
        }
        let pass = TeacherPass::of(&teacher, lesson(step)?, trainers, step)?;
        for (i, trainer) in trainers.iter_mut().enumerate().filter(|(_, t)| step < t.options.steps) {
            if failed[i] {
                continue;
            }
            match pass.targets(trainer.student.block).and_then(|targets| trainer.step(&targets)) {
                Ok(entry) => watch(Progress { trainer: i, entry })?,
                Err(error) => {
                    fail(i, error)?;
                    failed[i] = true;
                }
            }
        }
        if let Some(saving) = &mut saving {
            let descents: Vec<&Descent> = trainers.iter().map(Trainer::descent).collect();
            saving.after(step + 1, steps, &descents)?;
        }
    }
    for trainer in trainers.iter().zip(&failed).filter(|(_, failed)| !**failed).map(|(trainer, _)| trainer) {
        trainer.finish()?;
    }
    Ok(steps)
}
