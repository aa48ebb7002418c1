//! The gated sum of a layer's two branches.

use candle_core::{Result, Tensor};

/// `y = α₁⊙a + α₂⊙m`, the velocity of a time-conditioned layer from its attention and MLP branches.
///
/// # Shapes
/// `attention` and `mlp` (B, T, D); `gates` (B, 2, D) holding α₁ and α₂ of each example, or (1, 2, D)
/// for one pair of gates; result (B, T, D).
pub fn gated_sum(attention: &Tensor, mlp: &Tensor, gates: &Tensor) -> Result<Tensor> {
    composed(attention, mlp, gates)
}

fn composed(attention: &Tensor, mlp: &Tensor, gates: &Tensor) -> Result<Tensor> {
    let first = attention.broadcast_mul(&gates.narrow(1, 0, 1)?)?;
    first + mlp.broadcast_mul(&gates.narrow(1, 1, 1)?)?
}
