//! How good a student is: KL, NMSE and perplexity against its teacher, on held-out windows.

mod language;
mod metrics;
mod reference;
#[cfg(test)]
mod tests;

pub use language::language_loss;
pub use metrics::{kl, nmse, perplexity};
pub use reference::{Metrics, Reference};
