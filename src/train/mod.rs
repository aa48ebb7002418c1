//! Training of velocity fields on a frozen teacher's latents.

mod adamw;
mod check;
mod objective;
mod optimizer;
mod options;
mod schedule;
mod sgd;
#[cfg(test)]
mod tests;
mod together;
mod trainer;

pub use adamw::{AdamW, AdamWOptions};
pub use objective::Objective;
pub use optimizer::Optimizer;
pub use options::Options;
pub use schedule::Schedule;
pub use sgd::Sgd;
pub use together::{Progress, side_by_side, together};
pub use trainer::{StepReport, Trainer, draws};
