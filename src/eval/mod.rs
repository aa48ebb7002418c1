//! How good a student is: KL, NMSE and perplexity against its teacher, on held-out windows.

mod metrics;
mod reference;
#[cfg(test)]
mod tests;

pub use metrics::{kl, nmse, perplexity};
pub use reference::{Metrics, Reference};
