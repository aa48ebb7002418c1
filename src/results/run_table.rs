//! The table `runs`: one row a run, from the `run.json` files.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::catalog::{self, Catalog, Entry};
use super::table::Table;
use super::value::{Row, Value};

const GIB: f64 = (1u64 << 30) as f64;

/// One row a run, oldest first. Tags are joined by commas, arguments and options are JSON text, and each
/// option is a column `option_<name>` besides.
pub(super) fn frame(catalog: &Catalog) -> Result<DataFrame> {
    let entries: Vec<&Entry> = catalog.entries.iter().collect();
    let mut table = Table::default();
    for (entry, latest) in entries.iter().zip(catalog::latest(&entries)) {
        table.push(row(entry, latest))?;
    }
    table.to_polars(&[])
}

fn row(entry: &Entry, latest: bool) -> Row {
    let r = &entry.record;
    let fixed: [(&str, Value); 26] = [
        ("run", r.name.as_str().into()),
        ("run_id", r.id.as_str().into()),
        ("latest", latest.into()),
        ("status", r.status.as_str().into()),
        ("start", r.start.as_str().into()),
        ("end", r.end.as_deref().into()),
        ("seconds", r.seconds().into()),
        ("error", r.error.as_deref().into()),
        ("results_rows", r.results_rows.into()),
        ("training_rows", r.training_rows.into()),
        ("benchmarks_rows", r.benchmarks_rows.into()),
        ("device", r.device.as_str().into()),
        ("seed", r.seed.into()),
        ("tags", r.tags.join(",").into()),
        ("script", r.script.as_deref().into()),
        ("arguments", serde_json::json!(r.arguments).to_string().into()),
        ("options", serde_json::json!(r.options).to_string().into()),
        ("lft", r.versions.get("lft").map(String::as_str).into()),
        ("revision", r.git.as_ref().map(|g| g.revision.as_str()).into()),
        ("dirty", r.git.as_ref().map(|g| g.dirty).into()),
        ("hostname", r.host.hostname.as_str().into()),
        ("os", r.host.os.as_str().into()),
        ("cpu", r.host.cpu.as_str().into()),
        ("cores", r.host.cores.into()),
        ("memory_gib", (r.host.memory_bytes as f64 / GIB).into()),
        ("script_text", r.script_text.as_deref().into()),
    ];
    let options = r.options.iter().map(|(name, value)| (format!("option_{name}"), value.into()));
    fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(options).collect()
}
