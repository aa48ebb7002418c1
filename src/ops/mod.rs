//! Differentiable operations that candle lacks or that silently record no backward there
//! (`ops::layer_norm`, `softmax_last_dim`, `rope` and `sdpa` of candle 0.11 freeze everything upstream).
//!
//! Every operation here has two forms: a composition of candle's differentiable primitives, which is
//! the definition and runs on every device and dtype, and a fused kernel for f32 on the CPU with a
//! hand-written backward. The public function picks the kernel where it applies.
//!
//! Shape letters: B batch, T tokens, D residual width, H heads, C channels per head, V vocabulary.

pub mod activation;
pub mod adamw;
pub mod attention;
mod attention_kernel;
#[cfg(test)]
pub(crate) mod check;
pub mod divergence;
pub mod gate;
mod kernel;
pub mod layer_norm;
pub mod linear;
mod math;
pub mod residual;
pub mod rotary;
pub mod scale;
mod simd;

pub use activation::Activation;
pub use divergence::{cross_entropy, kl_divergence};
pub use gate::gated_sum;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use residual::residual;
pub use rotary::Rotary;
pub use scale::scale;
