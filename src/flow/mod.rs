//! The Latent Flow Transformer: velocity field, flow matching, flow walking, student, skip baselines,
//! and the recoupling ratio that says which block a flow can replace.

mod block;
mod checkpoint;
mod field;
mod generate;
mod init;
mod matching;
#[cfg(feature = "cuda")]
mod on_card;
pub mod recoupling;
mod skip;
mod student;
#[cfg(test)]
mod tests;
mod time;
mod velocity;
mod walking;

pub use block::Block;
pub use field::Field;
pub use generate::StudentDecoder;
pub use init::Init;
pub use matching::{matching_loss, regression_loss, uniform_times};
pub use recoupling::{Recoupling, recoupling};
pub use skip::Skip;
pub use student::{Integration, Student};
pub use velocity::VelocityField;
pub use walking::{hybrid_loss, walk, walk_times, walking_loss};
