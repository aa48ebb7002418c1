//! `lft`: a laboratory for the Latent Flow Transformer (Wu et al., arXiv 2505.14513).
//!
//! A contiguous block of a language model's layers is replaced by one learned transport operator,
//! a velocity field `u(x, t)` that an ODE solver integrates from `t = 0` to `t = 1`.
//!
//! The rooms of the house, from the ground up; each may use only what stands before it:
//!
//! | room | holds |
//! |---|---|
//! | [`ops`] | differentiable fused tensor operations |
//! | [`ode`] | solvers over any state with a vector-space interface |
//! | [`pythia`] | the GPT-NeoX language model |
//! | [`data`] | tokenized text and seeded sampling |
//! | [`flow`] | velocity field, flow matching, flow walking, student, recoupling |
//! | [`eval`] | KL, NMSE, perplexity, skip baselines |
//! | [`rivals`] | other ways to make a model shallower |
//! | [`train`] | optimizer, schedule, trainer loop |
//! | [`results`] | run folders, Parquet tables, SQL |
//! | [`bench`] | timing: samples, robust statistics, comparisons, baselines |
//! | [`sweep`] | the points of a sweep, and which are finished |
//! | [`report`] | charts and the HTML page |
//! | [`live`] | looking at a run while it goes on |
//! | [`lua`] | the scripting host |
//! | [`cli`] | one file a subcommand |
//!
//! Beside the rooms stand tools that any of them may take: [`atomic`] writes files whole, [`nearest`] guesses
//! what a misspelt name was meant to be, [`device`] opens devices by name, [`console`] writes to a terminal
//! that may have gone away, [`meter`] shows progress on it, [`heap`] is the allocator and counts what lives on it,
//! [`reuse`] keeps large blocks for it, and [`threads`] says whose threads do the work.

pub mod atomic;
pub mod bench;
pub mod cli;
pub mod console;
pub mod data;
pub mod device;
pub mod eval;
pub mod flow;
pub mod heap;
pub mod live;
pub mod lua;
pub mod meter;
pub mod nearest;
pub mod ode;
pub mod ops;
pub mod pythia;
pub mod report;
pub mod results;
pub mod reuse;
pub mod rivals;
pub mod sweep;
pub mod threads;
pub mod train;
