//! The two kinds of weights a layer holds.

use candle_core::{Result, Tensor};

use crate::ops;

/// Scale and shift of a layer norm: `y = (x − mean) / √(var + eps) ⊙ weight + bias`.
#[derive(Clone, Debug)]
pub struct Norm {
    /// (D)
    pub weight: Tensor,
    /// (D)
    pub bias: Tensor,
}

impl Norm {
    /// The same weights without the record for gradients.
    pub fn detach(&self) -> Self {
        Self { weight: self.weight.detach(), bias: self.bias.detach() }
    }

    /// Normalises the last dimension.
    ///
    /// # Shapes
    /// `x` (B, T, D), result the same.
    pub fn forward(&self, x: &Tensor, eps: f64) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, eps)
    }

    /// The same with each tensor replaced by what `f` makes of it.
    pub fn map(&self, f: &mut impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { weight: f(&self.weight)?, bias: f(&self.bias)? })
    }
}

/// An affine map `y = x·Wᵀ + b`, or a linear one where the bias is absent.
#[derive(Clone, Debug)]
pub struct Affine {
    /// (O, I)
    pub weight: Tensor,
    /// (O)
    pub bias: Option<Tensor>,
}

impl Affine {
    /// The same weights without the record for gradients.
    pub fn detach(&self) -> Self {
        Self { weight: self.weight.detach(), bias: self.bias.as_ref().map(Tensor::detach) }
    }

    /// Maps the last dimension.
    ///
    /// # Shapes
    /// `x` (…, I), result (…, O).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }

    /// The same with each tensor replaced by what `f` makes of it.
    pub fn map(&self, f: &mut impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { weight: f(&self.weight)?, bias: self.bias.as_ref().map(f).transpose()? })
    }
}
