//! Which runs a report is about.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::report::Request;
use crate::results::{Catalog, Entry, Prefer, Status};

/// The runs that a request means, oldest first; see [`Request`].
///
/// # Errors
/// When there are none.
pub fn choose<'a>(catalog: &'a Catalog, request: &Request, root: &Path) -> Result<Vec<&'a Entry>> {
    let chosen = if request.runs.is_empty() {
        newest_finished(catalog, request.all, root)?
    } else {
        named(catalog, &request.runs, request.all)?
    };
    Ok(if request.all { in_order(catalog, &chosen) } else { with_repetitions(catalog, &chosen) })
}

/// A run, and whether it was asked for by its id, so that it stays alone.
type Chosen<'a> = (&'a Entry, bool);

/// The newest finished run of every name, or all that finished.
fn newest_finished<'a>(catalog: &'a Catalog, all: bool, root: &Path) -> Result<Vec<Chosen<'a>>> {
    let finished: Vec<&Entry> =
        catalog.entries.iter().filter(|e| e.record.status == Status::Finished).collect();
    let newest: HashMap<&str, usize> =
        finished.iter().enumerate().map(|(at, e)| (e.record.name.as_str(), at)).collect();
    let chosen: Vec<Chosen> = (0..finished.len())
        .filter(|at| all || newest[finished[*at].record.name.as_str()] == *at)
        .map(|at| (finished[at], false))
        .collect();
    if chosen.is_empty() {
        bail!("no finished run in {}: name a run to report on it as it stands", root.display());
    }
    Ok(chosen)
}

/// The runs that the names, patterns or ids mean.
fn named<'a>(catalog: &'a Catalog, wanted: &[String], all: bool) -> Result<Vec<Chosen<'a>>> {
    let mut chosen = vec![];
    for name in wanted {
        for name in names(catalog, name)? {
            if all {
                let same =
                    |entry: &&Entry| entry.record.name == name && entry.record.status == Status::Finished;
                chosen.extend(catalog.entries.iter().filter(same).map(|entry| (entry, false)));
            }
            let entry = catalog.find(name, Prefer::Finished)?;
            chosen.push((entry, entry.record.name != name));
        }
    }
    Ok(chosen)
}

/// The names that a pattern with `*` fits; the name itself where it is none.
fn names<'a>(catalog: &'a Catalog, wanted: &'a str) -> Result<BTreeSet<&'a str>> {
    if !wanted.contains('*') || catalog.entries.iter().any(|entry| entry.record.name == wanted) {
        return Ok(BTreeSet::from([wanted]));
    }
    // Of the characters that a pattern knows, only `*` is one here: names may hold the others.
    let escaped: Vec<String> = wanted.split('*').map(glob::Pattern::escape).collect();
    let pattern = glob::Pattern::new(&escaped.join("*")).with_context(|| format!("pattern `{wanted}`"))?;
    let names = catalog.entries.iter().map(|entry| entry.record.name.as_str());
    let fitting: BTreeSet<&str> = names.filter(|name| pattern.matches(name)).collect();
    if fitting.is_empty() {
        bail!("no run fits the pattern `{wanted}`; `lft runs` lists all");
    }
    Ok(fitting)
}

/// The chosen runs and their repetitions: the newest finished run of every other seed with the same name, script and
/// options. A run that was asked for by its id stays alone. Oldest first.
fn with_repetitions<'a>(catalog: &'a Catalog, chosen: &[Chosen<'a>]) -> Vec<&'a Entry> {
    let by_id: HashSet<&str> =
        chosen.iter().filter(|(_, by_id)| *by_id).map(|(entry, _)| entry.record.id.as_str()).collect();
    let mut seeds: HashMap<String, BTreeSet<Option<u64>>> = HashMap::new();
    for (entry, _) in chosen.iter().filter(|(entry, _)| !by_id.contains(entry.record.id.as_str())) {
        seeds.entry(settings(entry)).or_default().insert(entry.record.seed);
    }
    let mut chosen = chosen.to_vec();
    for entry in catalog.entries.iter().rev().filter(|entry| entry.record.status == Status::Finished) {
        let Some(known) = seeds.get_mut(&settings(entry)) else { continue };
        if entry.record.seed.is_some() && known.insert(entry.record.seed) {
            chosen.push((entry, false));
        }
    }
    in_order(catalog, &chosen)
}

/// Each of these runs once, oldest first.
fn in_order<'a>(catalog: &'a Catalog, chosen: &[Chosen]) -> Vec<&'a Entry> {
    let folders: HashSet<&Path> = chosen.iter().map(|(entry, _)| entry.folder.as_path()).collect();
    catalog.entries.iter().filter(|entry| folders.contains(entry.folder.as_path())).collect()
}

/// All that repetitions have in common. Where the report goes and the seed itself make no difference.
fn settings(entry: &Entry) -> String {
    let record = &entry.record;
    let decides = |(name, _): &(&String, &serde_json::Value)| !["seed", "report"].contains(&name.as_str());
    let options: Vec<_> = record.options.iter().filter(decides).collect();
    serde_json::json!([record.name, record.script_text, options]).to_string()
}
