//! Time conditioning in the manner of DiT (Peebles & Xie, arXiv 2212.09748): a sinusoidal embedding of
//! t, a small MLP, and the adaLN projection to shifts, scales and gates.

use anyhow::Result;
use candle_core::{D, Device, Tensor};

use crate::ops::{self, Activation};

/// Width of the sinusoidal embedding.
pub(super) const FREQUENCIES: usize = 256;

/// Flow time runs over 0..1; the sinusoids were designed for step numbers up to 1000.
const TIME_SCALE: f64 = 1000.0;
const MAX_PERIOD: f64 = 10_000.0;

/// Shifts, scales and gates of a layer at given times, one row G for each time.
#[derive(Clone)]
pub struct Modulation {
    /// (G, 6·D): γ₁, β₁, γ₂, β₂, α₁, α₂.
    pub(super) projection: Tensor,
    /// (G, D): γ₁, then β₁, γ₂, β₂.
    rows: [Tensor; 4],
    /// (G, 2, D): α₁ and α₂.
    pub gates: Tensor,
}

impl Modulation {
    /// Splits the projection (G, 6·D), which holds γ₁, β₁, γ₂, β₂, α₁, α₂.
    pub(super) fn new(projection: &Tensor) -> Result<Self> {
        let (groups, width) = projection.dims2()?;
        let d = width / 6;
        let part = |i: usize| projection.narrow(D::Minus1, i * d, d);
        let gates = projection.narrow(D::Minus1, 4 * d, 2 * d)?.reshape((groups, 2, d))?;
        Ok(Self { projection: projection.clone(), rows: [part(0)?, part(1)?, part(2)?, part(3)?], gates })
    }

    /// That of an ordinary layer: `γ = β = 0`, `α = 1`.
    pub(super) fn plain(width: usize, device: &Device) -> Result<Self> {
        let values: Vec<f32> = (0..6 * width).map(|i| if i < 4 * width { 0.0 } else { 1.0 }).collect();
        Self::new(&Tensor::from_vec(values, (1, 6 * width), device)?)
    }

    /// The same with gates times a length for each row.
    ///
    /// # Shapes
    /// `length` (G) or (1).
    #[cfg(feature = "cuda")]
    pub(super) fn lengthened(&self, length: &Tensor) -> Result<Self> {
        let width = self.projection.dim(1)? / 3;
        let norms = self.projection.narrow(1, 0, 2 * width)?;
        let gates = self.projection.narrow(1, 2 * width, width)?.broadcast_mul(&length.unsqueeze(1)?)?;
        Self::new(&Tensor::cat(&[norms, gates], 1)?)
    }

    /// The modulated norm's scale `w⊙(1+γ)` and shift `b⊙(1+γ) + β`, both (G, D); `branch` is 0 for the
    /// attention and 1 for the MLP.
    pub(super) fn norm(&self, branch: usize, weight: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
        let gain = (&self.rows[2 * branch] + 1.0)?;
        let shift = gain.broadcast_mul(bias)?.add(&self.rows[2 * branch + 1])?;
        Ok((gain.broadcast_mul(weight)?, shift))
    }
}

/// Weights of the time conditioning; the names are those of the checkpoint.
pub(super) struct TimeConditioning {
    /// (D, 256) and (D): first layer of the MLP.
    pub mlp_in: (Tensor, Tensor),
    /// (D, D) and (D): second layer of the MLP.
    pub mlp_out: (Tensor, Tensor),
    /// (6·D, D) and (6·D): the adaLN projection.
    pub adaln: (Tensor, Tensor),
}

impl TimeConditioning {
    /// The same weights without the record for gradients.
    pub fn detach(&self) -> Self {
        let detach = |(weight, bias): &(Tensor, Tensor)| (weight.detach(), bias.detach());
        Self { mlp_in: detach(&self.mlp_in), mlp_out: detach(&self.mlp_out), adaln: detach(&self.adaln) }
    }

    /// `SiLU(MLP(sinusoid(t)))`, what everything that depends on time is a linear map of.
    ///
    /// # Shapes
    /// `t` (G) in f32, result (G, D).
    pub fn condition(&self, t: &Tensor) -> Result<Tensor> {
        let hidden = ops::linear(&sinusoid(t)?, &self.mlp_in.0, Some(&self.mlp_in.1))?;
        let hidden = ops::linear(&Activation::Silu.apply(&hidden)?, &self.mlp_out.0, Some(&self.mlp_out.1))?;
        Ok(Activation::Silu.apply(&hidden)?)
    }

    /// `(γ, β, α)₁,₂ = Linear(condition)`.
    ///
    /// # Shapes
    /// `condition` (G, D).
    pub fn modulation(&self, condition: &Tensor) -> Result<Modulation> {
        Modulation::new(&self.projection(condition)?)
    }

    /// What [`Modulation::new`] splits, (G, 6·D).
    pub fn projection(&self, condition: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(condition, &self.adaln.0, Some(&self.adaln.1))?)
    }
}

/// `cos(1000·t·ω_i)` and `sin(1000·t·ω_i)` with `ω_i = 10000^(−i/128)`.
///
/// # Shapes
/// `t` (G), result (G, 256).
fn sinusoid(t: &Tensor) -> Result<Tensor> {
    let half = FREQUENCIES / 2;
    let frequency = |i: usize| (TIME_SCALE * MAX_PERIOD.powf(-(i as f64) / half as f64)) as f32;
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), t.device())?;
    let angles = t.unsqueeze(1)?.broadcast_mul(&frequencies)?;
    Ok(Tensor::cat(&[angles.cos()?, angles.sin()?], 1)?)
}

/// A single time as the (1) tensor that the field takes.
pub(super) fn instant(t: f64, device: &Device) -> Result<Tensor> {
    Ok(Tensor::new(&[t as f32], device)?)
}
