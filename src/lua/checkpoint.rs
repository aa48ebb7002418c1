//! The options `checkpoint` and `resume` of trainings.

use anyhow::{Context, bail};
use mlua::{Lua, Table};

use super::catalogue::{OptionsTable, Param};
use super::options::Options;
use super::path::ScriptPath;
use crate::console;
use crate::train::{CheckpointOptions, Checkpoints, Descent, Saving};

/// What a training takes.
pub const OPTIONS: [Param; 2] = [
    ("checkpoint?", "CheckpointOptions", "saves the training now and then"),
    (
        "resume?",
        "boolean",
        "goes on from the newest checkpoint, or begins if there is none; false when left out",
    ),
];

/// The table behind `checkpoint`.
pub const CHECKPOINT: OptionsTable = OptionsTable {
    class: "CheckpointOptions",
    fields: &[
        ("dir", "string", "a folder of this training alone, made when it is missing"),
        (
            "every?",
            "integer",
            "steps between two checkpoints, 1000 when left out; the last step is always saved",
        ),
        ("keep?", "integer", "the newest so many stay, 2 when left out"),
        (
            "best?",
            "boolean",
            "the one with the lowest held-out loss, or else training loss, stays too; true when left out",
        ),
    ],
};

/// Opens the checkpoints that the options ask for.
///
/// # Errors
/// A folder that cannot be used, or that holds checkpoints though nothing is to be resumed.
pub fn saving(
    lua: &Lua,
    options: &Options,
    fingerprint: impl FnOnce() -> String,
) -> anyhow::Result<Option<Saving>> {
    let resume = options.or("resume", false)?;
    let Some(table) = options.get::<Table>("checkpoint")? else {
        if resume {
            bail!("option 'resume' needs the option 'checkpoint', which says where the checkpoints are");
        }
        return Ok(None);
    };
    let options = Options::read(lua, Some(table), &CHECKPOINT).context("option 'checkpoint'")?;
    let checkpoints = Checkpoints::open(CheckpointOptions {
        dir: options.required::<ScriptPath>("dir")?.to_path_buf(),
        every: options.count("every", 1000, 1)?,
        keep: options.count("keep", 2, 1)?,
        best: options.or("best", true)?,
    })?;
    Saving::new(checkpoints, fingerprint(), resume).map(Some)
}

/// Restores what was saved; how many steps had been taken.
///
/// # Errors
/// Those of [`Saving::resume`].
pub fn restore(saving: Option<&Saving>, descents: &mut [&mut Descent]) -> anyhow::Result<usize> {
    let warn = |line: &str| console::note(&format!("warning: {line}"));
    saving.map_or(Ok(0), |saving| saving.resume(descents, warn))
}
