//! The student: a teacher whose block is replaced by an integrated flow.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::Tensor;

use super::{Block, Integration, VelocityField};
use crate::ode::Stats;
use crate::ops;
use crate::pythia::Pythia;

/// Teacher layers 0..m, the flow from 0 to 1, teacher layers n..L, final norm and head.
#[derive(Clone)]
pub struct Student {
    /// The frozen teacher.
    pub teacher: Arc<Pythia>,
    /// The block's replacement.
    pub velocity: Arc<VelocityField>,
    /// The replaced block.
    pub block: Block,
}

impl Student {
    /// A student of `teacher`.
    ///
    /// # Errors
    /// If the field's width is not the teacher's, or its block lies outside the teacher.
    pub fn new(teacher: Arc<Pythia>, velocity: Arc<VelocityField>) -> Result<Self> {
        let block = velocity.block();
        Block::new(block.m, block.n, teacher.config.num_hidden_layers)?;
        ensure!(
            velocity.width() == teacher.config.hidden_size,
            "the velocity field has width {}, the teacher {}",
            velocity.width(),
            teacher.config.hidden_size
        );
        Ok(Self { teacher, velocity, block })
    }

    /// The teacher's latents at the block's two boundaries, in f32.
    ///
    /// # Shapes
    /// `ids` (B, T), results (B, T, D).
    pub fn latents(&self, ids: &Tensor) -> Result<(Tensor, Tensor)> {
        let x0 = self.teacher.hidden(ids, self.block.m)?;
        let x1 = self.teacher.run(&x0, self.block.m, self.block.n)?;
        Ok((ops::widen(&x0)?, ops::widen(&x1)?))
    }

    /// Carries latents from boundary m to boundary n along the flow.
    ///
    /// # Shapes
    /// `x0` (B, T, D), result the same.
    pub fn transport(&self, x0: &Tensor, integration: &Integration) -> Result<(Tensor, Stats)> {
        let x0 = ops::widen(x0)?;
        let u = self.velocity.detach();
        integration.run(&u, |x, t| u.at(x, t), &x0)
    }

    /// The residual stream in front of the final norm.
    ///
    /// # Shapes
    /// `ids` (B, T), result (B, T, D).
    pub fn hidden(&self, ids: &Tensor, integration: &Integration) -> Result<Tensor> {
        let x0 = self.teacher.hidden(ids, self.block.m)?;
        let (x1, _) = self.transport(&x0, integration)?;
        self.teacher.run(&x1.to_dtype(x0.dtype())?, self.block.n, self.teacher.config.num_hidden_layers)
    }

    /// Logits of the next token at every position.
    ///
    /// # Shapes
    /// `ids` (B, T), result (B, T, V).
    pub fn logits(&self, ids: &Tensor, integration: &Integration) -> Result<Tensor> {
        self.teacher.head(&self.hidden(ids, integration)?)
    }

    /// Weights that the replacement saves: the block's layers less the velocity field.
    pub fn parameters_removed(&self) -> i64 {
        let layer: usize =
            self.teacher.layer(self.block.m).tensors().iter().map(|(_, t)| t.elem_count()).sum();
        (layer * self.block.layers()) as i64 - self.velocity.parameter_count() as i64
    }
}
