//! Run folders, Parquet tables and SQL over them. The only room that knows Polars.
//!
//! A run is a folder `runs/<id>/` with
//!
//! | file | holds |
//! |---|---|
//! | `run.json` | name, tags, script, options, seed, device, versions, revision, machine, start, end, status ([`RunRecord`]) |
//! | `results.parquet` | the rows that [`Run::log`] took, with leading columns `run` (the name) and `run_id` |
//! | `training.parquet` | the rows that [`Run::log_training`] took, likewise |
//! | `benchmarks.parquet` | the rows that [`Run::log_benchmark`] took, likewise |
//!
//! [`Run`] writes one, [`query`] reads all of them as the tables `results`, `training`, `benchmarks`
//! and `runs`.

mod best;
mod catalog;
mod compact;
mod count;
mod diff;
mod encode;
pub mod environment;
mod explain;
mod export;
mod footers;
mod frame;
mod gathered;
mod list;
mod memo;
mod name;
mod outside;
mod parquet;
mod parts;
mod query;
mod record;
mod remove;
mod render;
mod run;
mod run_table;
mod scan;
mod schema_text;
mod select;
mod table;
mod text;
mod union;
mod value;

pub use catalog::{Catalog, Entry};
pub use compact::{Compacted, compact};
pub use diff::{Diff, diff};
pub use encode::Encoding;
pub use export::{ExportFormat, export};
pub use frame::Frame;
pub use list::{Listing, list};
pub use name::sanitise;
pub use outside::file_function;
pub use query::{Answer, Streamed, query, stream};
pub use record::{RunInfo, RunRecord, SCHEMA, Status};
pub use remove::{Garbage, garbage, remove, remove_leftovers, size};
pub use run::Run;
pub use select::{Filter, Prefer};
pub use text::text_column;
pub use value::{Row, Value};

const RECORD: &str = "run.json";
const RESULTS: &str = "results.parquet";
const TRAINING: &str = "training.parquet";
const BENCHMARKS: &str = "benchmarks.parquet";
/// What a sweep keeps of a point in the point's run folder.
pub(crate) const SWEEP: &str = "sweep.json";

/// The tables of a run with their files.
pub const FILES: [(&str, &str); 3] =
    [("results", RESULTS), ("training", TRAINING), ("benchmarks", BENCHMARKS)];

/// Columns that every table carries; scripts cannot log under these names.
const RESERVED: [&str; 3] = ["run", "run_id", "latest"];
