//! `--format` and `--output`: how and where tables are written.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::failure::UsageError;
use crate::meter::Spinner;
use crate::results::{self, Answer, Encoding, Frame, Streamed};
use crate::{atomic, console};

/// How long work may last before it shows how it goes on.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns for the eye, numbers rounded.
    Table,
    /// Comma-separated values, full precision.
    Csv,
    /// An array of objects, full precision.
    Json,
    /// A Markdown table, numbers rounded.
    Markdown,
    /// A Parquet file; needs --output.
    Parquet,
}

/// The options of a subcommand that prints a table.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How the table is written [default: by the ending of --output, else table].
    #[arg(long, short, value_enum, hide_possible_values = false)]
    format: Option<Format>,
    /// File to write, whole or not at all, instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Arguments {
    /// The format to write.
    ///
    /// # Errors
    /// When Parquet was asked for without a file to hold it.
    pub fn check(&self) -> Result<Format> {
        let by_ending = || self.output.as_deref().and_then(by_ending);
        let format = self.format.or_else(by_ending).unwrap_or(Format::Table);
        if format == Format::Parquet && self.output.is_none() {
            bail!(UsageError("--format parquet needs --output FILE: a terminal cannot show it"));
        }
        Ok(format)
    }

    /// Runs a statement and writes its rows. Those of the formats for other programs are written as they are found;
    /// tables for the eye need all rows to align them. A terminal sees that long work goes on.
    pub fn query(&self, root: &Path, sql: &str, format: Format, quiet: bool) -> Result<Streamed> {
        let mut spinner = Spinner::new(quiet, "reading", PATIENCE)?;
        let encoding = match format {
            Format::Csv => Encoding::Csv,
            Format::Json => Encoding::Json,
            Format::Parquet => Encoding::Parquet,
            Format::Table | Format::Markdown => {
                let Answer { frame, warnings, files } = results::query(root, sql)?;
                spinner.finish();
                warn(&warnings);
                self.write(&frame, format)?;
                return Ok(Streamed { rows: Some(frame.height()), warnings, files });
            }
        };
        let streamed = results::stream(root, sql, encoding, |fill| match &self.output {
            Some(path) => atomic::write(path, |w| fill(&mut Told { writer: w, spinner: &spinner })),
            None if std::io::stdout().is_terminal() => {
                // Rows on a terminal show well enough that the work goes on.
                spinner.finish();
                console::stream(|w| fill(w))
            }
            None => console::stream(|w| fill(&mut Told { writer: w, spinner: &spinner })),
        })?;
        spinner.finish();
        warn(&streamed.warnings);
        Ok(streamed)
    }

    pub fn write(&self, frame: &Frame, format: Format) -> Result<()> {
        let text = match (format, &self.output) {
            (Format::Parquet, Some(path)) => return frame.write_parquet(path),
            (Format::Csv, _) => frame.to_csv(),
            (Format::Json, _) => frame.to_json(),
            (Format::Markdown, _) => frame.to_markdown(),
            (Format::Table | Format::Parquet, _) => frame.to_text(),
        };
        match &self.output {
            Some(path) => atomic::write(path, |w| Ok(w.write_all(text.as_bytes())?)),
            None => console::print(&text),
        }
    }
}

/// A writer that tells a spinner how much went through it.
struct Told<'a> {
    writer: &'a mut dyn Write,
    spinner: &'a Spinner,
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.spinner.wrote(written);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

/// Shows warnings, which `--quiet` does not silence.
pub(super) fn warn(warnings: &[String]) {
    for line in warnings {
        console::note(&format!("warning: {line}"));
    }
}

fn by_ending(path: &Path) -> Option<Format> {
    match path.extension().and_then(OsStr::to_str)? {
        "csv" => Some(Format::Csv),
        "json" => Some(Format::Json),
        "md" => Some(Format::Markdown),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}
