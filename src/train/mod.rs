//! Training of velocity fields on a frozen teacher's latents.

mod adamw;
mod check;
mod checkpoint;
mod curriculum;
mod descent;
mod ema;
mod language;
mod latents;
mod lessons;
mod muon;
mod objective;
mod optimizer;
mod options;
mod orthogonal;
mod pretrain;
#[cfg(test)]
mod pretrain_tests;
mod saving;
mod schedule;
mod sgd;
mod targets;
#[cfg(test)]
mod tests;
mod together;
mod trainer;

pub use adamw::{AdamW, AdamWOptions};
pub use checkpoint::{CheckpointOptions, Checkpoints, Saved};
pub use curriculum::Curriculum;
pub use descent::{Descent, Entry};
pub use ema::Ema;
pub use language::language_gradient;
pub use latents::{LatentOptions, cache_latents};
pub use lessons::{Lesson, Lessons};
pub use muon::{MOMENTUM, Muon};
pub use objective::Objective;
pub use optimizer::{Optimizer, Rule};
pub use options::Options;
pub use pretrain::{PretrainOptions, Pretrainer};
pub use saving::Saving;
pub use schedule::Schedule;
pub use sgd::Sgd;
pub use targets::Targets;
pub use together::{Progress, side_by_side, together};
pub use trainer::{StepReport, Trainer, draws};
