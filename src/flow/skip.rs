//! The skip baseline: the teacher with some consecutive layers removed.

use anyhow::{Result, ensure};
use candle_core::Tensor;

use super::Block;
use crate::pythia::Pythia;

/// Layers `from..from + count` left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// First layer left out.
    pub from: usize,
    /// How many.
    pub count: usize,
}

impl Skip {
    /// Leaves `count` layers out of a model with `layers` layers.
    ///
    /// # Errors
    /// Unless `1 ≤ count` and `from + count ≤ layers`.
    pub fn new(from: usize, count: usize, layers: usize) -> Result<Self> {
        ensure!(
            count >= 1 && from.saturating_add(count) <= layers,
            "cannot skip {count} layers from layer {from}: the model has layers 0..{}",
            layers.saturating_sub(1)
        );
        Ok(Self { from, count })
    }

    /// Every way to leave `count` layers out of a block.
    pub fn positions(block: Block, count: usize) -> Vec<Self> {
        (block.m..=block.n.saturating_sub(count)).map(|from| Self { from, count }).collect()
    }

    /// The one of [`positions`](Self::positions) that lies in the middle of the block.
    pub fn middle(block: Block, count: usize) -> Self {
        Self { from: block.m + (block.layers().saturating_sub(count)) / 2, count }
    }

    /// The residual stream in front of the final norm, from the latents at a boundary b ≤ `from`.
    ///
    /// # Shapes
    /// `x` (B, T, D), result the same.
    pub fn carry(&self, teacher: &Pythia, x: &Tensor, b: usize) -> Result<Tensor> {
        let x = teacher.run(x, b, self.from)?;
        teacher.run(&x, self.from + self.count, teacher.config.num_hidden_layers)
    }

    /// Logits of the shortened teacher.
    ///
    /// # Shapes
    /// `ids` (B, T), result (B, T, V).
    pub fn logits(&self, teacher: &Pythia, ids: &Tensor) -> Result<Tensor> {
        teacher.head(&self.carry(teacher, &teacher.hidden(ids, 0)?, 0)?)
    }

    /// Weights that leaving the layers out saves.
    pub fn parameters_removed(&self, teacher: &Pythia) -> i64 {
        let layer: usize = teacher.layer(self.from).tensors().iter().map(|(_, t)| t.elem_count()).sum();
        (layer * self.count) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stay_inside_the_block() {
        let block = Block { m: 6, n: 12 };
        let from: Vec<usize> = Skip::positions(block, 2).iter().map(|s| s.from).collect();
        assert_eq!(from, [6, 7, 8, 9, 10]);
        assert_eq!(Skip::positions(block, 6), [Skip { from: 6, count: 6 }]);
        assert_eq!(Skip::middle(block, 2).from, 8);
        assert!(Skip::new(23, 2, 24).is_err());
    }
}
