//! Parquet files, written whole and compressed with zstd.

use std::path::Path;

use anyhow::Result;
use polars::prelude::{DataFrame, ParquetCompression, ParquetWriter};

use crate::atomic;

pub(super) fn write(path: &Path, frame: &mut DataFrame) -> Result<()> {
    atomic::write(path, |w| {
        ParquetWriter::new(w).with_compression(ParquetCompression::Zstd(None)).finish(frame)?;
        Ok(())
    })
}
