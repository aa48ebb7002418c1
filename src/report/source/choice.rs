//! Which runs a report is about.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::nearest::nearest;
use crate::report::Request;
use crate::results::{Catalog, Entry, Status};

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
    Ok(if request.all { chosen } else { with_repetitions(catalog, chosen, &request.runs) })
}

/// The newest finished run of every name, or all that finished.
fn newest_finished<'a>(catalog: &'a Catalog, all: bool, root: &Path) -> Result<Vec<&'a Entry>> {
    let finished: Vec<&Entry> =
        catalog.entries.iter().filter(|e| e.record.status == Status::Finished).collect();
    let newest: HashMap<&str, usize> =
        finished.iter().enumerate().map(|(at, e)| (e.record.name.as_str(), at)).collect();
    let chosen: Vec<&Entry> = (0..finished.len())
        .filter(|at| all || newest[finished[*at].record.name.as_str()] == *at)
        .map(|at| finished[at])
        .collect();
    if chosen.is_empty() {
        bail!("no finished run in {}: name a run to report on it as it stands", root.display());
    }
    Ok(chosen)
}

/// The runs that the names, patterns or ids mean, each once, oldest first.
fn named<'a>(catalog: &'a Catalog, wanted: &[String], all: bool) -> Result<Vec<&'a Entry>> {
    let mut positions = BTreeSet::new();
    for name in wanted {
        let names = names(catalog, name)?;
        for name in names {
            if all {
                let same =
                    |entry: &Entry| entry.record.name == name && entry.record.status == Status::Finished;
                positions.extend((0..catalog.entries.len()).filter(|at| same(&catalog.entries[*at])));
            }
            positions.insert(position(catalog, name).with_context(|| unknown(catalog, name))?);
        }
    }
    Ok(positions.into_iter().map(|at| &catalog.entries[at]).collect())
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
fn with_repetitions<'a>(catalog: &'a Catalog, chosen: Vec<&'a Entry>, ids: &[String]) -> Vec<&'a Entry> {
    let mut seeds: HashMap<String, BTreeSet<Option<u64>>> = HashMap::new();
    for entry in chosen.iter().filter(|entry| !ids.contains(&entry.record.id)) {
        seeds.entry(settings(entry)).or_default().insert(entry.record.seed);
    }
    let mut repetitions: Vec<&Entry> = Vec::new();
    for entry in catalog.entries.iter().rev().filter(|entry| entry.record.status == Status::Finished) {
        let Some(known) = seeds.get_mut(&settings(entry)) else { continue };
        if entry.record.seed.is_some() && known.insert(entry.record.seed) {
            repetitions.push(entry);
        }
    }
    let kept =
        |entry: &&Entry| chosen.iter().chain(&repetitions).any(|other| other.record.id == entry.record.id);
    catalog.entries.iter().filter(kept).collect()
}

/// All that repetitions have in common. Where the report goes and the seed itself make no difference.
fn settings(entry: &Entry) -> String {
    let record = &entry.record;
    let decides = |(name, _): &(&String, &serde_json::Value)| !["seed", "report"].contains(&name.as_str());
    let options: Vec<_> = record.options.iter().filter(decides).collect();
    serde_json::json!([record.name, record.script_text, options]).to_string()
}

/// A run by its id, else the newest finished run of that name, else the newest of that name.
fn position(catalog: &Catalog, name: &str) -> Option<usize> {
    let last = |is: &dyn Fn(&Entry) -> bool| catalog.entries.iter().rposition(is);
    last(&|entry| entry.record.id == name)
        .or_else(|| last(&|entry| entry.record.name == name && entry.record.status == Status::Finished))
        .or_else(|| last(&|entry| entry.record.name == name))
}

fn unknown(catalog: &Catalog, name: &str) -> String {
    let known =
        catalog.entries.iter().flat_map(|entry| [entry.record.name.as_str(), entry.record.id.as_str()]);
    match nearest(name, known) {
        Some(near) => format!("no run is called `{name}` (did you mean `{near}`?)"),
        None if catalog.entries.is_empty() => format!("no run is called `{name}`; there are none"),
        None => format!("no run is called `{name}`; `lft runs` lists all"),
    }
}
