//! `lft.flow`: velocity fields, students, skip baselines, and the losses that train them.

mod integration;
mod losses;
mod recoupling;
mod skip;
mod student;
mod velocity;

pub use skip::{SKIP, option as skip_option};
pub use student::StudentObject;
pub use velocity::Velocity;

use anyhow::{Context, bail};

use super::options::Options;
use super::register::Registry;
use crate::flow::Block;
use crate::pythia::Pythia;

/// Registers `lft.flow`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.flow", "The Latent Flow Transformer: a learned flow in place of a block of layers.");
    velocity::register(registry)?;
    student::register(registry)?;
    skip::register(registry)?;
    losses::register(registry)?;
    recoupling::register(registry)
}

/// The option `block`, `{m, n}`.
///
/// # Errors
/// Other than two boundaries of the teacher with m < n.
pub fn block_option(options: &Options, teacher: &Pythia) -> anyhow::Result<Option<Block>> {
    let Some(pair) = options.get::<Vec<i64>>("block")? else { return Ok(None) };
    let [m, n] = pair[..] else {
        bail!("option 'block' must be two boundaries {{m, n}}, found {} numbers", pair.len());
    };
    let boundary =
        |b: i64| usize::try_from(b).ok().with_context(|| format!("option 'block': there is no boundary {b}"));
    Block::new(boundary(m)?, boundary(n)?, teacher.config.num_hidden_layers).map(Some)
}
