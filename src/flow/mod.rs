//! The Latent Flow Transformer: velocity field, flow matching, flow walking, student, skip baselines,
//! and the recoupling ratio that says which block a flow can replace.

mod block;
mod checkpoint;
mod distillation;
mod early_exit;
mod export;
mod extras;
mod field;
mod generate;
mod init;
mod integration;
mod learned_times;
mod lowrank;
mod matching;
mod moments;
#[cfg(feature = "cuda")]
mod on_card;
mod on_processor;
mod path;
mod recompute;
pub mod recoupling;
mod skip;
mod student;
#[cfg(test)]
mod tests;
mod time;
mod velocity;
mod walking;

pub use block::Block;
pub use distillation::{divergence, language_loss, teacher_logits};
pub use early_exit::EarlyExit;
pub use extras::Extras;
pub use field::{Base, Field, Stage};
pub use generate::StudentDecoder;
pub use init::Init;
pub use integration::Integration;
pub use matching::{matching_loss, regression_loss, uniform_times};
pub use path::{path_loss, uniform_layers};
pub use recompute::Evaluation;
pub use recoupling::{Recoupling, recoupling};
pub use skip::Skip;
pub use student::Student;
pub use velocity::VelocityField;
pub use walking::{equal_times, hybrid_loss, walk, walk_times, walking_loss};
