//! Which runs are meant: by id, by name, or by what they are.

use anyhow::{Result, bail};

use super::catalog::{Catalog, Entry};
use super::record::Status;
use crate::nearest::nearest;

/// What runs must be to be kept; an empty filter keeps all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Part of the name, upper and lower case alike.
    pub name: Option<String>,
    /// Tags that the run must all have.
    pub tags: Vec<String>,
    /// Statuses of which the run must have one; empty for any.
    pub statuses: Vec<Status>,
}

impl Filter {
    /// Whether every run is kept.
    pub fn is_empty(&self) -> bool {
        self.name.is_none() && self.tags.is_empty() && self.statuses.is_empty()
    }

    pub fn keeps(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        let named =
            self.name.as_ref().is_none_or(|part| record.name.to_lowercase().contains(&part.to_lowercase()));
        let tagged = self.tags.iter().all(|tag| record.tags.contains(tag));
        named && tagged && (self.statuses.is_empty() || self.statuses.contains(&record.status))
    }
}

/// Which of several runs of one name is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The newest that is finished, else the newest: where results are looked at.
    Finished,
    /// The newest, however it stands: where a run is watched.
    Newest,
}

impl Catalog {
    /// The run that a user means: the one with this id, else the one of this name that is to be preferred, else the
    /// only one whose id begins like this.
    ///
    /// # Errors
    /// When there is no such run, with the nearest known name, or when several ids begin like this.
    pub fn find(&self, wanted: &str, prefer: Prefer) -> Result<&Entry> {
        let newest = |is: &dyn Fn(&Entry) -> bool| self.entries.iter().rev().find(|entry| is(entry));
        let preferred = |entry: &Entry| prefer == Prefer::Newest || entry.record.status == Status::Finished;
        let found = newest(&|entry| entry.record.id == wanted)
            .or_else(|| newest(&|entry| entry.record.name == wanted && preferred(entry)))
            .or_else(|| newest(&|entry| entry.record.name == wanted));
        if let Some(entry) = found {
            return Ok(entry);
        }
        let begun: Vec<&Entry> =
            self.entries.iter().filter(|e| !wanted.is_empty() && e.record.id.starts_with(wanted)).collect();
        match begun[..] {
            [entry] => Ok(entry),
            [] => bail!(self.unknown(wanted)),
            _ => bail!("{} runs have an id that begins with `{wanted}`: write more of it", begun.len()),
        }
    }

    /// Every run with this id, or else with exactly this name, oldest first.
    ///
    /// # Errors
    /// When there is none, with the nearest known name.
    pub fn all_of(&self, wanted: &str) -> Result<Vec<&Entry>> {
        for part in [|e: &Entry| e.record.id.clone(), |e: &Entry| e.record.name.clone()] {
            let found: Vec<&Entry> = self.entries.iter().filter(|entry| part(entry) == wanted).collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        bail!(self.unknown(wanted))
    }

    fn unknown(&self, wanted: &str) -> String {
        let known = self.entries.iter().flat_map(|e| [e.record.name.as_str(), e.record.id.as_str()]);
        match nearest(wanted, known) {
            Some(near) => format!("no run is called `{wanted}` (did you mean `{near}`?)"),
            None if self.entries.is_empty() => format!("no run is called `{wanted}`; there are none"),
            None => format!("no run is called `{wanted}`; `lft runs` lists all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Run, RunInfo};

    fn catalog(names: &[(&str, Status)]) -> (tempfile::TempDir, Catalog) {
        let root = tempfile::tempdir().unwrap();
        for (name, status) in names {
            let tags = vec![format!("tag-{name}"), "all".to_owned()];
            let info = RunInfo { name: (*name).to_owned(), tags, ..RunInfo::default() };
            Run::create(root.path(), info).unwrap().finish(*status).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let catalog = Catalog::read(root.path()).unwrap();
        (root, catalog)
    }

    #[test]
    fn a_run_is_found_by_id_by_name_and_by_the_beginning_of_its_id() {
        let (_root, catalog) =
            catalog(&[("a", Status::Finished), ("a", Status::Failed), ("bee", Status::Failed)]);
        let id = |at: usize| catalog.entries[at].record.id.clone();
        let found = |wanted: &str, prefer| catalog.find(wanted, prefer).map(|entry| entry.record.id.clone());
        assert_eq!(found(&id(1), Prefer::Finished).unwrap(), id(1));
        assert_eq!(found("a", Prefer::Finished).unwrap(), id(0));
        assert_eq!(found("a", Prefer::Newest).unwrap(), id(1));
        assert_eq!(found("be", Prefer::Finished).unwrap(), id(2));
        let error = |wanted| found(wanted, Prefer::Newest).unwrap_err().to_string();
        assert_eq!(error("beee"), "no run is called `beee` (did you mean `bee`?)");
        assert!(error("a-").starts_with("2 runs have an id that begins with `a-`"));
        assert!(error("").starts_with("no run is called ``"));
        assert_eq!(catalog.all_of("a").unwrap().len(), 2);
        assert_eq!(catalog.all_of(&id(0)).unwrap().len(), 1);
        assert!(catalog.all_of("be").is_err(), "removal takes no beginnings");
    }

    #[test]
    fn filters_keep_what_fits_all_of_them() {
        let (_root, catalog) = catalog(&[("Alpha", Status::Finished), ("beta", Status::Failed)]);
        let kept = |filter: Filter| -> Vec<&str> {
            catalog.entries.iter().filter(|e| filter.keeps(e)).map(|e| e.record.name.as_str()).collect()
        };
        let name = |part: &str| Filter { name: Some(part.to_owned()), ..Filter::default() };
        assert_eq!(kept(Filter::default()), ["Alpha", "beta"]);
        assert_eq!(kept(name("ALP")), ["Alpha"]);
        assert_eq!(kept(Filter { statuses: vec![Status::Failed], ..Filter::default() }), ["beta"]);
        let tags = |tags: &[&str]| tags.iter().map(|t| (*t).to_owned()).collect();
        assert_eq!(kept(Filter { tags: tags(&["all", "tag-beta"]), ..Filter::default() }), ["beta"]);
        assert_eq!(kept(Filter { tags: tags(&["tag-bet"]), ..Filter::default() }), [""; 0]);
        assert_eq!(kept(Filter { statuses: vec![Status::Failed], ..name("alp") }), [""; 0]);
    }
}
