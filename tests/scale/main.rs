//! Training at scale, end to end: prepared tokens, pretraining, and trainings that are killed.

#[cfg(unix)]
mod checkpoints;
mod data;
mod pretrain;
#[path = "../program/mod.rs"]
mod program;
