//! Differentiable operations that candle lacks or that silently record no backward there
//! (`ops::layer_norm`, `softmax_last_dim`, `rope` and `sdpa` of candle 0.11 freeze everything upstream).
//!
//! Every operation here has up to three forms: a composition of candle's differentiable primitives, which is
//! the definition and runs on every device and dtype; a fused kernel for f32 on the CPU; and, with the feature
//! `cuda`, kernels for f32 and bf16 on NVIDIA cards. Kernels have a hand-written backward. The public function
//! picks the kernel where one applies.
//!
//! Shape letters: B batch, T tokens, D residual width, H heads, C channels per head, V vocabulary.

pub mod activation;
pub mod adamw;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
pub mod attention;
mod attention_cached;
mod attention_kernel;
#[cfg(test)]
pub(crate) mod check;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod divergence;
pub mod embedding;
pub mod field;
pub mod frozen;
pub mod gate;
pub mod graft;
mod kernel;
pub mod layer_norm;
pub mod linear;
mod math;
mod matmul;
mod matvec;
#[cfg(target_arch = "x86_64")]
mod narrow;
pub mod path;
pub mod pointwise;
pub mod recompute;
pub mod residual;
pub mod roofline;
pub mod rotary;
pub mod scale;
mod sequences;
mod simd;
mod square_error;
mod widen;

pub use activation::Activation;
pub use divergence::{cross_entropy, cross_entropy_of_known, kl_divergence};
pub use embedding::{embedding, embedding_gradient};
pub use gate::gated_sum;
pub use graft::graft;
pub use layer_norm::{layer_norm, layer_norm_to};
pub use linear::linear;
pub use matmul::matmul;
pub use path::straight_path;
pub use pointwise::{exp, sigmoid, tanh};
pub use recompute::Recompute;
pub use residual::residual;
pub use rotary::Rotary;
pub use scale::scale;
pub use square_error::mean_square;
pub use widen::widen;
