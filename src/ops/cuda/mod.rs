//! The operations of this room as CUDA kernels, for f32 and bf16 with sums in f32.
//!
//! Each operation returns `None` where its kernel does not fit the operands (another device, dtype or layout), and the
//! caller falls back to the composition of candle's primitives. Kernels are compiled by `build.rs` beside this file.
//!
//! "Mixed" operands are what training in bf16 needs: the stream and the parameters stay f32, what is multiplied is bf16.

mod activation;
mod adamw;
mod attention;
mod attention_one;
mod decode;
mod divergence;
mod embedding;
mod field;
mod gate;
mod gemm;
mod graph;
mod hopper;
mod layer;
mod layer_norm;
mod linear;
mod low_rank;
mod maps;
mod memory;
mod mlp;
mod module;
mod path;
mod reduce;
mod residual;
mod rotary;
mod square_error;
mod trained;
mod unembedding;
mod widen;

pub use adamw::{ClippedSlot, clipped_adamw};
pub use decode::{ModelWeights, TokenStep};
pub use field::{Base, FieldSetting, Stage, walk};
pub use layer::{Attend, LayerSetting, LayerWeights, layer};
pub use low_rank::Factors;
pub use maps::Maps;
pub use memory::{PoolMark, open};
pub use trained::{Trained, trained};
pub use unembedding::{Unembedded, unembedding};

pub(super) use activation::activation;
pub(super) use attention::causal;
pub(super) use attention_one::{attend_one, split};
pub(super) use divergence::{cross_entropy, kl_divergence};
pub(super) use embedding::{embedding, embedding_gradient};
pub(super) use gate::gated_sum;
pub(super) use layer_norm::layer_norm;
pub(super) use linear::linear;
pub(super) use path::straight_path;
pub(super) use residual::residual;
pub(super) use square_error::mean_square;
pub(super) use widen::widen;
