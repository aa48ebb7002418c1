//! Weights that change with time: low-rank updates of a layer's matrices, as LoRA's (Hu et al., arXiv 2106.09685)
//! with one diagonal for each time.

use anyhow::Result;
use candle_core::Tensor;

use crate::ops;
#[cfg(feature = "cuda")]
use crate::ops::cuda::Factors;
use crate::pythia::Config;

/// The layer's matrices in the order in which they are used.
const MATRICES: [&str; 4] = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"];

/// `W(t) = W + B·diag(s(t))·A` for each matrix W (O, I) of a layer, with A (r, I), B (O, r) and
/// `s(t) = Linear(SiLU(MLP(sinusoid(t))))`. B starts at zero, so that W(t) = W.
pub(super) struct LowRank {
    rank: usize,
    down: Vec<Tensor>,
    up: Vec<Tensor>,
    scale: (Tensor, Tensor),
}

impl LowRank {
    /// `tensor(name, shape)` supplies the initial value of each parameter.
    pub fn build(
        config: &Config,
        rank: usize,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        let (d, inner) = (config.hidden_size, config.intermediate_size);
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for (name, (outputs, inputs)) in
            MATRICES.into_iter().zip([(3 * d, d), (d, d), (inner, d), (d, inner)])
        {
            down.push(tensor(&format!("low_rank.{name}.down"), &[rank, inputs])?);
            up.push(tensor(&format!("low_rank.{name}.up"), &[outputs, rank])?);
        }
        let rows = MATRICES.len() * rank;
        let scale = (tensor("low_rank.scale.weight", &[rows, d])?, tensor("low_rank.scale.bias", &[rows])?);
        Ok(Self { rank, down, up, scale })
    }

    /// The same weights without the record for gradients.
    pub fn detach(&self) -> Self {
        let detach = |tensors: &[Tensor]| tensors.iter().map(Tensor::detach).collect();
        let scale = (self.scale.0.detach(), self.scale.1.detach());
        Self { rank: self.rank, down: detach(&self.down), up: detach(&self.up), scale }
    }

    /// s(t) of all matrices.
    ///
    /// # Shapes
    /// `condition` (G, D), one row for each time; result (G, 4·r).
    pub fn scales(&self, condition: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(condition, &self.scale.0, Some(&self.scale.1))?)
    }

    /// `B·diag(s)·A·x` of matrix i.
    ///
    /// # Shapes
    /// `x` (B, T, I); `scales` (G, 4·r) with G = B or 1; result (B, T, O).
    pub fn apply(&self, i: usize, x: &Tensor, scales: &Tensor) -> Result<Tensor> {
        let s = scales.narrow(1, i * self.rank, self.rank)?.unsqueeze(1)?;
        // The scales stay f32, and so do the sums over tokens that are their gradients.
        let inner = ops::linear(x, &self.down[i], None)?.to_dtype(s.dtype())?.broadcast_mul(&s)?;
        Ok(ops::linear(&inner.to_dtype(x.dtype())?, &self.up[i], None)?)
    }

    /// The factors as the operation on a CUDA card takes them.
    #[cfg(feature = "cuda")]
    pub fn factors(&self) -> Result<Factors> {
        Ok(Factors::new(&self.up, &self.down)?)
    }

    /// `B·diag(s)·A` of matrix i at one time.
    ///
    /// # Shapes
    /// `scales` (1, 4·r); result (O, I).
    pub fn update(&self, i: usize, scales: &Tensor) -> Result<Tensor> {
        let s = scales.narrow(1, i * self.rank, self.rank)?;
        Ok(self.up[i].broadcast_mul(&s)?.matmul(&self.down[i])?)
    }
}
