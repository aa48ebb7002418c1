//! Step times that are trained instead of equal.

use anyhow::Result;
use candle_core::{D, DType, Tensor};

use crate::ops::divergence::log_softmax;

/// Increasing times `0 = t₀ < t₁ < … < t_k = 1`: the step lengths are the softmax of k trainable numbers, which
/// start at zero, so that the steps are equal at first.
pub(super) struct LearnedTimes {
    /// (k)
    lengths: Tensor,
}

impl LearnedTimes {
    pub fn new(lengths: Tensor) -> Self {
        Self { lengths }
    }

    /// The same times without the record for gradients.
    pub fn detach(&self) -> Self {
        Self { lengths: self.lengths.detach() }
    }

    /// Number of steps k.
    pub fn steps(&self) -> usize {
        self.lengths.elem_count()
    }

    /// The times as differentiable tensors.
    ///
    /// # Shapes
    /// k + 1 tensors (1).
    pub fn times(&self) -> Result<Vec<Tensor>> {
        let lengths = log_softmax(&self.lengths.unsqueeze(0)?)?.exp()?.squeeze(0)?;
        let mut t = Tensor::zeros(1, DType::F32, lengths.device())?;
        let mut times = vec![t.clone()];
        for i in 0..self.steps() {
            t = (t + lengths.narrow(D::Minus1, i, 1)?)?;
            times.push(t.clone());
        }
        Ok(times)
    }
}
