//! One run as the files of a W&B run: `config.json`, `history.jsonl`, `summary.json`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chrono::DateTime;
use serde_json::{Map, Value as Json, json};

use super::series::points;
use crate::atomic;
use crate::results::catalog::Entry;
use crate::results::query::rows_of;
use crate::results::{RESERVED, RESULTS, TRAINING};

/// Writes the files into `folder`. A line of the history is a row of `training` with the names that W&B gives to its
/// own: `_step`, `_runtime` in seconds, `_timestamp` in seconds since 1970. The summary holds the rows of `results`.
pub(super) fn write(
    root: &Path,
    entry: &Entry,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<PathBuf>> {
    let record = &entry.record;
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let start = DateTime::parse_from_rfc3339(&record.start).map_or(0, |time| time.timestamp_millis());
    let training = rows_of(root, entry, TRAINING, warnings)?;
    let history = folder.join("history.jsonl");
    atomic::write(&history, |writer| {
        for (mut line, point) in training.json_rows().zip(points(&training, "step")) {
            if let Json::Object(cells) = &mut line {
                cells.retain(|name, value| !RESERVED.contains(&name.as_str()) && !value.is_null());
                cells.insert("_step".to_owned(), point.step.into());
                cells.insert("_runtime".to_owned(), point.seconds.into());
                let now = start as f64 / 1e3 + point.seconds.unwrap_or(0.0);
                cells.insert("_timestamp".to_owned(), now.into());
            }
            writeln!(writer, "{line}")?;
        }
        Ok(())
    })?;
    let mut config: Map<String, Json> = record.options.clone();
    config.insert("seed".to_owned(), record.seed.into());
    config.insert("device".to_owned(), record.device.as_str().into());
    let config = json!({"name": record.name, "id": record.id, "tags": record.tags, "config": config});
    let results: Vec<Json> = rows_of(root, entry, RESULTS, warnings)?.json_rows().collect();
    let summary = json!({
        "state": record.status.as_str(),
        "_runtime": record.seconds(),
        "results": results,
    });
    let mut written = vec![history];
    for (name, value) in [("config.json", config), ("summary.json", summary)] {
        let path = folder.join(name);
        atomic::write(&path, |writer| Ok(writeln!(writer, "{value:#}")?))?;
        written.push(path);
    }
    Ok(written)
}
