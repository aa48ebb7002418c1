//! Training of velocity fields on a frozen teacher's latents.

mod adamw;
mod check;
mod curriculum;
mod muon;
mod objective;
mod optimizer;
mod options;
mod schedule;
mod sgd;
mod targets;
#[cfg(test)]
mod tests;
mod together;
mod trainer;

pub use adamw::{AdamW, AdamWOptions};
pub use curriculum::Curriculum;
pub use muon::{MOMENTUM, Muon};
pub use objective::Objective;
pub use optimizer::{Optimizer, Rule};
pub use options::Options;
pub use schedule::Schedule;
pub use sgd::Sgd;
pub use targets::Targets;
pub use together::{Progress, together};
pub use trainer::{StepReport, Trainer, draws};
