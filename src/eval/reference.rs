//! The teacher's side of an evaluation, computed once and shared by every student and solver.

use std::sync::{Arc, OnceLock};

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};

use super::metrics::squared_error;
use crate::flow::{Block, EarlyExit, Integration, Skip, Student};
use crate::ops;
use crate::pythia::Pythia;

/// Rows of logits held at a time, so that no B × T × V tensor ever exists.
const LOGIT_ROWS: usize = 512;

/// Figures of merit of a replacement on held-out windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// KL(teacher ‖ student) of the next token, mean over tokens, nats.
    pub kl: f64,
    /// Σ‖x̂₁ − x1‖² / Σ‖x1‖² at boundary n.
    pub nmse: f64,
    /// Perplexity of the student.
    pub ppl: f64,
    /// Perplexity of the teacher on the same tokens.
    pub teacher_ppl: f64,
    /// Velocity evaluations of one window, the most that any batch took.
    pub nfe: usize,
    /// Velocity evaluations of a token, on average; below `nfe` where tokens stop early.
    pub mean_nfe: f64,
    /// Tokens the KL is a mean over.
    pub tokens: usize,
}

/// What a teacher computes on a set of windows: latents at a block's boundaries and its last hidden states.
pub struct Reference {
    /// The teacher.
    pub teacher: Arc<Pythia>,
    /// The block.
    pub block: Block,
    batches: Vec<Batch>,
    /// Mean cross-entropy of the teacher, once it is known.
    teacher_nats: OnceLock<f64>,
}

/// One batch of windows.
struct Batch {
    x0: Tensor,
    x1: Tensor,
    /// (B·T, D): the teacher's final norm, ready for the unembedding.
    last: Tensor,
    /// (B·T): the token that follows each position.
    next: Tensor,
}

impl Reference {
    /// Runs the teacher over windows of token ids without recording a graph. Each tensor is (B, T + 1): the
    /// first T tokens of a window are read, the last T predicted.
    ///
    /// `progress` is told the windows done after each batch.
    ///
    /// # Errors
    /// If there are no windows or they have fewer than two tokens.
    pub fn new(
        teacher: Arc<Pythia>,
        block: Block,
        windows: &[Tensor],
        mut progress: impl FnMut(usize),
    ) -> Result<Self> {
        ensure!(!windows.is_empty(), "an evaluation needs at least one window of tokens");
        let mut reference = Self { teacher, block, batches: Vec::new(), teacher_nats: OnceLock::new() };
        let mut done = 0;
        for ids in windows {
            reference.batches.push(reference.run_teacher(ids)?);
            done += ids.dim(0)?;
            progress(done);
        }
        Ok(reference)
    }

    fn run_teacher(&self, ids: &Tensor) -> Result<Batch> {
        let (_, tokens) = ids.dims2()?;
        ensure!(tokens >= 2, "evaluation windows need at least two tokens, these have {tokens}");
        let x0 = self.teacher.hidden(&ids.narrow(1, 0, tokens - 1)?, self.block.m)?;
        let x1 = self.teacher.run(&x0, self.block.m, self.block.n)?;
        let last = self.last(&x1)?;
        let next = ids.narrow(1, 1, tokens - 1)?.flatten_all()?.to_device(self.teacher.device())?;
        Ok(Batch { x0: ops::widen(&x0)?, x1: ops::widen(&x1)?, last, next })
    }

    /// From boundary n to the final norm, rows (B·T, D).
    fn last(&self, x1: &Tensor) -> Result<Tensor> {
        let x1 = x1.to_dtype(self.teacher.dtype())?;
        let x = self.teacher.run(&x1, self.block.n, self.teacher.config.num_hidden_layers)?;
        let width = self.teacher.config.hidden_size;
        Ok(self.teacher.final_norm(&x)?.reshape(((), width))?)
    }

    fn logits(&self, last: &Tensor, first: usize, rows: usize) -> Result<Tensor> {
        let rows = last.narrow(0, first, rows)?;
        Ok(ops::linear(&rows, self.teacher.unembed_weight(), None)?.to_dtype(DType::F32)?)
    }

    /// Evaluates any replacement of the block: `transport` carries latents (B, T, D) from boundary m to n
    /// and tells how many velocity evaluations a token took.
    ///
    /// # Errors
    /// Those of `transport`, and latents of another shape.
    pub fn evaluate(&self, mut transport: impl FnMut(&Tensor) -> Result<(Tensor, f64)>) -> Result<Metrics> {
        let (mut kl, mut nats, mut teacher_nats, mut tokens) = (0.0, 0.0, 0.0, 0);
        let (mut error, mut energy, mut most, mut evaluations) = (0.0, 0.0, 0f64, 0.0);
        for batch in &self.batches {
            let (x1, nfe) = transport(&batch.x0)?;
            ensure!(
                x1.dims() == batch.x1.dims(),
                "the replacement returned latents of shape {:?} for {:?}",
                x1.dims(),
                batch.x1.dims()
            );
            let (e, n) = squared_error(&x1, &batch.x1)?;
            (error, energy) = (error + e, energy + n);
            (most, evaluations) = (most.max(nfe), evaluations + nfe * batch.rows() as f64);
            let last = self.last(&x1)?;
            for (first, rows) in blocks(batch.rows()) {
                let (teacher, student) =
                    (self.logits(&batch.last, first, rows)?, self.logits(&last, first, rows)?);
                let next = batch.next.narrow(0, first, rows)?;
                kl += sum(&ops::kl_divergence(&teacher, &student)?)?;
                nats += sum(&ops::cross_entropy(&student, &next)?)?;
                // The teacher's logits are at hand here: no pass of their own for its perplexity.
                if self.teacher_nats.get().is_none() {
                    teacher_nats += sum(&ops::cross_entropy(&teacher, &next)?)?;
                }
            }
            tokens += batch.rows();
        }
        let teacher_nats = *self.teacher_nats.get_or_init(|| teacher_nats / tokens as f64);
        Ok(Metrics {
            kl: kl / tokens as f64,
            nmse: error / energy,
            ppl: (nats / tokens as f64).exp(),
            teacher_ppl: teacher_nats.exp(),
            nfe: most.ceil() as usize,
            mean_nfe: evaluations / tokens as f64,
            tokens,
        })
    }

    /// Evaluates a student.
    ///
    /// # Errors
    /// If it replaces another block, or the solver fails.
    pub fn student(&self, student: &Student, integration: &Integration) -> Result<Metrics> {
        self.check(student)?;
        self.evaluate(|x0| {
            let (x1, stats) = student.transport(x0, integration)?;
            Ok((x1, stats.nfe as f64))
        })
    }

    /// Evaluates a student whose tokens may stop early.
    ///
    /// # Errors
    /// If it replaces another block.
    pub fn student_early(&self, student: &Student, exit: &EarlyExit) -> Result<Metrics> {
        self.check(student)?;
        self.evaluate(|x0| student.transport_early(x0, exit))
    }

    fn check(&self, student: &Student) -> Result<()> {
        ensure!(
            student.block == self.block,
            "the student replaces block {}, these references are of block {}",
            student.block,
            self.block
        );
        Ok(())
    }

    /// Evaluates a skip baseline whose layers lie inside the block.
    ///
    /// # Errors
    /// If they do not.
    pub fn skip(&self, skip: &Skip) -> Result<Metrics> {
        let end = skip.from + skip.count;
        ensure!(
            skip.from >= self.block.m && end <= self.block.n,
            "layers {}..{end} do not lie inside block {}",
            skip.from,
            self.block
        );
        self.evaluate(|x0| {
            let x = self.teacher.run(&x0.to_dtype(self.teacher.dtype())?, self.block.m, skip.from)?;
            Ok((self.teacher.run(&x, end, self.block.n)?, 0.0))
        })
    }

    /// Perplexity of the teacher itself.
    ///
    /// # Errors
    /// When memory is short.
    pub fn teacher_ppl(&self) -> Result<f64> {
        if let Some(nats) = self.teacher_nats.get() {
            return Ok(nats.exp());
        }
        let (mut nats, mut tokens) = (0.0, 0);
        for batch in &self.batches {
            for (first, rows) in blocks(batch.rows()) {
                let next = batch.next.narrow(0, first, rows)?;
                nats += sum(&ops::cross_entropy(&self.logits(&batch.last, first, rows)?, &next)?)?;
            }
            tokens += batch.rows();
        }
        Ok(self.teacher_nats.get_or_init(|| nats / tokens as f64).exp())
    }
}

impl Batch {
    /// Positions B·T.
    fn rows(&self) -> usize {
        self.next.elem_count()
    }
}

/// Blocks of rows, (first, number).
pub(super) fn blocks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(LOGIT_ROWS).map(move |first| (first, LOGIT_ROWS.min(rows - first)))
}

/// The sum of a vector, in f64 on the host.
pub(super) fn sum(nats: &Tensor) -> Result<f64> {
    Ok(nats.to_vec1::<f32>()?.into_iter().map(f64::from).sum())
}
