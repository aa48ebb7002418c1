//! Sweeps over configurations: which points there are, and which of them are finished.
//!
//! A point is a run of its own, so that whatever is known of runs holds for it too. A finished one has a file
//! `sweep.json` in its folder that says which sweep and configuration it belongs to and what came of it; that file is
//! all that a sweep needs in order to go on where it was interrupted.

mod exact;
mod space;
mod store;

pub use space::{Config, Dimension, Space, label};
pub use store::{Finished, finished, keep, key, run_name};
