//! Finding a model: a local folder, or one of the Hugging Face hub by its id.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::checkpoint;

/// The folder of a model: the given one if it exists, else that of a hub id in the standard cache,
/// downloaded on first use.
///
/// `HF_HOME` moves the cache, `HF_ENDPOINT` the hub, and with `HF_HUB_OFFLINE=1` only the cache is looked at.
///
/// # Errors
/// A file instead of a folder, something that is neither a folder nor a hub id, a model that the hub does
/// not have or that has no usable weights, no network.
pub fn resolve(path_or_hub_id: &str) -> Result<PathBuf> {
    let path = Path::new(path_or_hub_id);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    ensure!(
        !path.exists(),
        "{path_or_hub_id} is a file; give the folder that holds config.json and the weights"
    );
    let Some(id) = HubId::parse(path_or_hub_id) else {
        bail!(
            "{path_or_hub_id:?} is neither a folder that exists nor a hub id of the form org/name[@revision]"
        );
    };
    Hub::from_env().fetch(&id)
}

/// A model of the hub, `org/name` or `org/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HubId {
    name: String,
    revision: String,
}

impl HubId {
    fn parse(text: &str) -> Option<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (organisation, model) = name.split_once('/')?;
        let part = |text: &str, also: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || also.contains(c);
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && !text.contains("..")
                && text.chars().all(plain)
        };
        let fits = part(organisation, "") && part(model, "") && part(revision, "/");
        fits.then(|| Self { name: name.to_string(), revision: revision.to_string() })
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, self.revision.clone())
    }
}

/// Where models come from.
struct Hub {
    cache: Cache,
    endpoint: String,
    offline: bool,
}

impl Hub {
    fn from_env() -> Self {
        let offline = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_uppercase();
        Self {
            cache: Cache::from_env(),
            endpoint: std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".to_string()),
            offline: ["1", "ON", "YES", "TRUE"].contains(&offline.as_str()),
        }
    }

    fn fetch(&self, id: &HubId) -> Result<PathBuf> {
        if let Some(folder) = self.cached(id) {
            return Ok(folder);
        }
        let HubId { name, revision } = id;
        let advice = "give the path of a folder with config.json and the weights to use a local model";
        ensure!(
            !self.offline,
            "there is no folder {name}, and the cache {} does not hold the model {name} at {revision} completely; \
             HF_HUB_OFFLINE is set, so it was not downloaded; {advice}",
            self.cache.path().display()
        );
        self.download(id).with_context(|| {
            format!(
                "there is no folder {name}, and the model {name} at {revision} could not be had from {}; {advice}",
                self.endpoint
            )
        })
    }

    /// The folder of a model that the cache holds with all its weights.
    fn cached(&self, id: &HubId) -> Option<PathBuf> {
        let repo = self.cache.repo(id.repo());
        let by_branch =
            repo.get(checkpoint::CONFIG).and_then(|config| config.parent().map(Path::to_path_buf));
        // A revision given as a commit has no reference in the cache, its folder bears its name.
        let folder = by_branch.unwrap_or_else(|| repo.pointer_path(&id.revision));
        let complete = folder.join(checkpoint::CONFIG).is_file() && checkpoint::weight_files(&folder).is_ok();
        complete.then_some(folder)
    }

    fn download(&self, id: &HubId) -> Result<PathBuf> {
        let api =
            ApiBuilder::from_cache(self.cache.clone()).with_endpoint(self.endpoint.clone()).with_retries(3);
        let repo = api.build()?.repo(id.repo());
        let listing = repo.info().context("cannot list the model's files")?;
        let offered: Vec<String> = listing.siblings.into_iter().map(|file| file.rfilename).collect();
        let offers = |name: &str| offered.iter().any(|file| file == name);
        ensure!(offers(checkpoint::CONFIG), "it has no {}", checkpoint::CONFIG);
        let Some(weights) = checkpoint::WEIGHTS.into_iter().find(|name| offers(name)) else {
            bail!("it has no weights in a known format ({})", checkpoint::WEIGHTS.join(", "));
        };
        // Weights come last, so that a cache that holds them all holds everything.
        let config = get(&repo, checkpoint::CONFIG)?;
        for name in [checkpoint::TOKENIZER, checkpoint::GENERATION_CONFIG] {
            if offers(name) {
                get(&repo, name)?;
            }
        }
        let first = get(&repo, weights)?;
        if checkpoint::is_index(weights) {
            for shard in checkpoint::shards(&first)? {
                get(&repo, &shard)?;
            }
        }
        Ok(config.parent().context("the cache has no folder for the model")?.to_path_buf())
    }
}

fn get(repo: &ApiRepo, name: &str) -> Result<PathBuf> {
    repo.get(name).with_context(|| format!("cannot download {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> HubId {
        HubId::parse(text).expect("a hub id")
    }

    /// A cache that holds one model as `huggingface_hub` lays it out, and a hub that nobody answers at.
    fn hub(root: &Path, offline: bool) -> Hub {
        let snapshot = root.join("models--EleutherAI--tiny/snapshots/0123abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(snapshot.join("config.json"), "{}").unwrap();
        std::fs::write(snapshot.join("model.safetensors"), "").unwrap();
        std::fs::create_dir_all(root.join("models--EleutherAI--tiny/refs")).unwrap();
        std::fs::write(root.join("models--EleutherAI--tiny/refs/main"), "0123abc").unwrap();
        // Port 9 of this machine: refused at once where nothing listens.
        Hub { cache: Cache::new(root.to_path_buf()), endpoint: "http://127.0.0.1:9".into(), offline }
    }

    #[test]
    fn tells_hub_ids_from_paths() {
        assert_eq!(id("EleutherAI/pythia-1.4b").revision, "main");
        assert_eq!(id("EleutherAI/pythia-70m@step3000").revision, "step3000");
        assert_eq!(id("a/b@refs/pr/1").revision, "refs/pr/1");
        for path in ["pythia", "/a/b", "./a/b", "../a", "a/b/c", "~/model", "a/", "a/b c", "a/b@", "a/..b/"] {
            assert_eq!(HubId::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_cached_model_needs_no_network() {
        let root = tempfile::tempdir().unwrap();
        for offline in [true, false] {
            let hub = hub(root.path(), offline);
            let expected = root.path().join("models--EleutherAI--tiny/snapshots/0123abc");
            assert_eq!(hub.fetch(&id("EleutherAI/tiny")).unwrap(), expected);
            assert_eq!(hub.fetch(&id("EleutherAI/tiny@0123abc")).unwrap(), expected);
        }
    }

    #[test]
    fn an_incomplete_cache_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let hub = hub(root.path(), true);
        std::fs::remove_file(
            root.path().join("models--EleutherAI--tiny/snapshots/0123abc/model.safetensors"),
        )
        .unwrap();
        let message = format!("{:#}", hub.fetch(&id("EleutherAI/tiny")).unwrap_err());
        assert!(
            message.contains("HF_HUB_OFFLINE is set") && message.contains("EleutherAI/tiny"),
            "{message}"
        );
        assert!(message.contains("path of a folder"), "{message}");
    }

    #[test]
    fn without_network_the_error_says_what_was_tried() {
        let root = tempfile::tempdir().unwrap();
        let message = format!("{:#}", hub(root.path(), false).fetch(&id("EleutherAI/other")).unwrap_err());
        for part in ["no folder EleutherAI/other", "http://127.0.0.1:9", "path of a folder", "cannot list"] {
            assert!(message.contains(part), "{message:?} should contain {part:?}");
        }
    }

    #[test]
    fn refuses_what_is_neither_folder_nor_id() {
        let message = resolve("./no/such/folder").unwrap_err().to_string();
        assert!(message.contains("neither a folder that exists nor a hub id"), "{message}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = resolve(file.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(message.contains("is a file; give the folder"), "{message}");
    }
}
