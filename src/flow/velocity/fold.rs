//! One Euler step as an ordinary layer.

use anyhow::{Result, ensure};
use candle_core::Tensor;

use super::{Conditioned, VelocityField};
use crate::pythia::Layer;

impl VelocityField {
    /// The ordinary layer that one Euler step of length d at time t is:
    /// `w⊙(1+γ)` and `b⊙(1+γ) + β` in the norms, `W(t)` in the projections, d·α in the last of each branch.
    ///
    /// # Shapes
    /// `t`, `d` (1).
    ///
    /// # Errors
    /// With a sequential teacher unless d = 1: there the MLP reads `x + α₁⊙Attn`, the folded layer's
    /// `x + d·α₁⊙Attn`.
    pub(in crate::flow) fn folded(&self, t: &Tensor, d: &Tensor) -> Result<Layer> {
        let length = d.to_vec1::<f32>()?[0];
        ensure!(
            self.context.parallel || length == 1.0,
            "the teacher's residual is sequential: its flow is a layer of the teacher's kind only in one Euler \
             step (steps = 1), since in shorter ones the MLP would read another input"
        );
        let Conditioned { modulation, scales } = self.condition(t)?;
        let mut layer = self.layer.clone();
        for (branch, norm) in
            [&mut layer.input_layernorm, &mut layer.post_attention_layernorm].into_iter().enumerate()
        {
            let (weight, bias) = modulation.norm(branch, &norm.weight, &norm.bias)?;
            (norm.weight, norm.bias) = (weight.squeeze(0)?, bias.squeeze(0)?);
        }
        let affines = [
            &mut layer.query_key_value,
            &mut layer.dense,
            &mut layer.dense_h_to_4h,
            &mut layer.dense_4h_to_h,
        ];
        for (i, affine) in affines.into_iter().enumerate() {
            if let (Some(low_rank), Some(scales)) = (&self.low_rank, &scales) {
                affine.weight = (&affine.weight + low_rank.update(i, scales)?)?;
            }
            if i % 2 == 1 {
                let gate = modulation.gates.get(0)?.get(i / 2)?.broadcast_mul(d)?;
                affine.weight = affine.weight.broadcast_mul(&gate.unsqueeze(1)?)?;
                affine.bias = affine.bias.as_ref().map(|bias| bias.mul(&gate)).transpose()?;
            }
        }
        Ok(layer)
    }
}
