//! The list of runs itself.

use anyhow::Result;

use super::{Global, Which};
use crate::cli::output;
use crate::results::{self, Listing};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// A method of which the run logged rows, such as `fw`.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// The column of `results` whose best and last values are shown; rows of the method `skip` do not count.
    #[arg(long, value_name = "COLUMN", default_value = "kl")]
    metric: String,
    /// The largest value is the best one.
    #[arg(long)]
    largest: bool,
    /// Column to sort by, smallest first [default: newest run first].
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
    /// The other way round.
    #[arg(long, short)]
    reverse: bool,
    /// Show at most so many runs.
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    output: output::Arguments,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let format = arguments.output.check()?;
    let root = global.runs_dir();
    let filter = arguments.which.filter();
    let unfiltered = filter.is_empty() && arguments.method.is_none();
    let listing = Listing {
        filter,
        method: arguments.method,
        metric: arguments.metric,
        largest: arguments.largest,
        sort: arguments.sort,
        reverse: arguments.reverse,
        limit: arguments.limit,
    };
    let answer = results::list(&root, &listing)?;
    output::warn(&answer.warnings);
    if answer.frame.height() == 0 {
        let folder = root.display();
        global.note(&match unfiltered {
            true => format!("no runs in the folder {folder}: `lft run SCRIPT` makes one"),
            false => format!("no such runs in the folder {folder}"),
        });
    }
    arguments.output.write(&answer.frame, format)
}
