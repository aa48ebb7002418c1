//! `lft export`: runs in the forms of other programs.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use super::{Global, output};
use crate::console;
use crate::meter::Meter;
use crate::results::{self, ExportFormat};

/// Write runs in the forms of other programs.
///
/// `tensorboard` writes event files: `tensorboard --logdir DIR` shows the curves. `wandb` writes `config.json`,
/// `history.jsonl` and `summary.json` for each run, with the names that W&B uses.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lft export --format tensorboard --output logs
  lft export ablate_steps --format wandb --output exported")]
pub(super) struct Arguments {
    /// Ids of runs, or names, which mean every run of that name [default: every run].
    runs: Vec<String>,
    /// The form to write.
    #[arg(long, short, value_enum)]
    format: Form,
    /// Folder to write into; each run gets a folder of its own in it.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// TensorBoard event files.
    Tensorboard,
    /// The files of a W&B run.
    Wandb,
}

pub(super) fn execute(global: &Global, arguments: &Arguments) -> Result<()> {
    let format = match arguments.format {
        Form::Tensorboard => ExportFormat::TensorBoard,
        Form::Wandb => ExportFormat::Wandb,
    };
    let mut meter: Option<Meter> = None;
    let (written, warnings) = results::export(
        &global.runs_dir(),
        &arguments.runs,
        format,
        &arguments.output,
        &mut |done, total| {
            if meter.is_none() {
                meter =
                    Meter::new(global.quiet, total as u64, "exporting", ("runs", 1), output::PATIENCE).ok();
            }
            if let Some(meter) = &meter {
                meter.set(done as u64, None);
            }
        },
    )?;
    drop(meter);
    output::warn(&warnings);
    written.iter().try_for_each(|path| console::print(&format!("{}\n", path.display())))
}
