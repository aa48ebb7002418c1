//! One run as TensorBoard event files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chrono::DateTime;

use super::event;
use super::series::{Point, points};
use crate::atomic;
use crate::results::catalog::Entry;
use crate::results::query::rows_of;
use crate::results::{RESULTS, TRAINING, sanitise};

/// The table of a run, the column that counts its steps, and what stands before its tags.
const TABLES: [(&str, &str, &str); 2] = [(TRAINING, "step", "training"), (RESULTS, "k", "results")];

/// Writes `folder/<series>/events.out.tfevents.<start>.lft`, one for each series of the run, so that TensorBoard shows
/// them as curves of one chart. Tags are `training/<column>` by the column `step`, and `results/<column>` by `k`.
pub(super) fn write(
    root: &Path,
    entry: &Entry,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<PathBuf>> {
    let start = DateTime::parse_from_rfc3339(&entry.record.start).map_or(0, |time| time.timestamp_millis());
    let start = start as f64 / 1e3;
    let mut series: BTreeMap<String, Vec<(&str, Point)>> = BTreeMap::new();
    for (file, step, prefix) in TABLES {
        for point in points(&rows_of(root, entry, file, warnings)?, step) {
            series.entry(point.series.clone()).or_default().push((prefix, point));
        }
    }
    let mut written = vec![];
    for (name, points) in series {
        let folder = if name.is_empty() { folder.to_owned() } else { folder.join(sanitise(&name)) };
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join(format!("events.out.tfevents.{}.lft", start as i64));
        atomic::write(&path, |writer| {
            event::begin(writer, start)?;
            for (prefix, point) in &points {
                let tag = |(name, value): &(String, f64)| (format!("{prefix}/{name}"), *value);
                let scalars: Vec<_> = point.numbers.iter().map(tag).collect();
                event::scalars(writer, start + point.seconds.unwrap_or(0.0), point.step, &scalars)?;
            }
            Ok(())
        })?;
        written.push(path);
    }
    Ok(written)
}
