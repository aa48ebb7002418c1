//! The activations of GPT-NeoX checkpoints.

use candle_core::{Result, Tensor};

/// Pointwise non-linearity of the MLP, named as in Hugging Face's `hidden_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x·Φ(x)` with the exact error function.
    Gelu,
    /// `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    GeluNew,
    /// The same tanh approximation under its other Hugging Face name.
    GeluFast,
    /// `max(x, 0)`.
    Relu,
    /// `x·σ(x)`.
    Silu,
}

impl Activation {
    /// Applies the activation elementwise; any shape, differentiable.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluNew | Self::GeluFast => x.gelu(),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
        }
    }
}
