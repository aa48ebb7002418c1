//! GPT-NeoX, the architecture of the Pythia models (Biderman et al., arXiv 2304.01373), on plain tensors.
//!
//! A model is a chain of residual layers between an embedding and a head. **Boundary** b ∈ 0..=L is the
//! residual stream after b layers: 0 the embeddings, L what enters the final norm. Everything here works
//! between boundaries, so that a caller may replace any stretch of the chain by something else.
//!
//! Weights are plain tensors and never variables: running the model records no graph, unless the latents
//! that it is given carry one already.
//!
//! Shape letters: B batch, T tokens, D residual width, H heads, C channels per head, V vocabulary, L layers.

pub mod affine;
pub mod cache;
pub mod checkpoint;
pub mod config;
mod config_json;
mod family;
pub mod generate;
pub mod hub;
pub mod info;
pub mod layer;
mod mapped;
pub mod model;
mod random;
pub mod sampler;
mod save;
mod tape;
pub mod tokenizer;
pub mod weights;

pub use affine::{Affine, Norm};
pub use cache::Cache;
pub use config::Config;
pub use generate::{Decoder, generate};
pub use info::Info;
pub use layer::{Layer, LayerContext};
pub use model::Pythia;
pub use sampler::Sampling;
pub use save::SHARD_BYTES;
pub use tape::Tape;
