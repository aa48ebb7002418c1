//! Room `flow`.

mod recoupling;

pub use recoupling::{Recoupling, recoupling};
