//! Other ways to make a model shallower, for the same table: which layers change the residual stream least
//! (ShortGPT, LLM-Streamline, "The Unreasonable Ineffectiveness of the Deeper Layers"), and one linear map in
//! place of a block (ReplaceMe).
//!
//! A room of its own because nothing here is a flow: it knows models and latents, and gives models back.

mod distances;
mod least_squares;
mod replace_me;

pub use distances::{Distance, Distances, distances};
pub use replace_me::replace_me;
