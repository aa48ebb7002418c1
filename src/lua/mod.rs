//! Room `lua`.
use std::path::{Path, PathBuf};
pub struct HostOptions {
    pub device: candle_core::Device,
    pub seed: u64,
    pub quiet: bool,
    pub runs_dir: PathBuf,
    pub args: Vec<String>,
}
pub fn run_script(path: &Path, _options: &HostOptions) -> anyhow::Result<()> {
    anyhow::bail!("cannot run {}", path.display())
}
pub fn repl(_options: &HostOptions) -> anyhow::Result<()> {
    anyhow::bail!("no repl")
}
