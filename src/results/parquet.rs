//! Parquet files, written whole and compressed with zstd.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use polars::prelude::{DataFrame, ParquetCompression, ParquetWriter};

use crate::atomic;

pub(super) fn write(path: &Path, frame: &mut DataFrame) -> Result<()> {
    atomic::write(path, |w| {
        writer(w).finish(frame)?;
        Ok(())
    })
}

pub(super) fn writer<W: Write>(w: W) -> ParquetWriter<W> {
    ParquetWriter::new(w).with_compression(ParquetCompression::Zstd(None))
}
