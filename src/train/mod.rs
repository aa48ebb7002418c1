//! Training of velocity fields on a frozen teacher's latents.

mod objective;
mod optimizer;
mod options;
mod schedule;
#[cfg(test)]
mod tests;
mod together;
mod trainer;

pub use objective::Objective;
pub use optimizer::AdamW;
pub use options::Options;
pub use schedule::Schedule;
pub use together::{Progress, together};
pub use trainer::{StepReport, Trainer, draws};
