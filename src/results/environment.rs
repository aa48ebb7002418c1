//! What a run was made with: versions, source revision, machine and process.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use sysinfo::{
    CpuRefreshKind, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate,
    RefreshKind, System,
};

/// The lock file this binary was built from: the one record of dependency versions that cannot drift.
const LOCK: &str = include_str!("../../Cargo.lock");

/// Revision of the git work tree that the run was started in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Git {
    /// Full commit hash.
    pub revision: String,
    /// Whether tracked files differed from that commit.
    pub dirty: bool,
}

/// The machine a run was made on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    pub hostname: String,
    pub os: String,
    /// Processor model as the system names it.
    pub cpu: String,
    /// Logical processors.
    pub cores: usize,
    /// Main memory in bytes.
    pub memory_bytes: u64,
}

/// The process that writes a run; tells a run in progress from one whose process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Start of the process in seconds since 1970, since process ids are used again.
    pub started: u64,
}

/// Versions of `lft` and of the libraries that decide its numbers and files.
pub fn versions() -> BTreeMap<String, String> {
    let mut versions = BTreeMap::from([("lft".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    for package in ["candle-core", "mlua", "polars", "tokenizers"] {
        if let Some(version) = locked_version(LOCK, package) {
            versions.insert(package.to_owned(), version.to_owned());
        }
    }
    versions
}

fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// The commit of the working folder; `None` outside a git work tree or without git.
pub fn git() -> Option<Git> {
    let revision = git_output(&["rev-parse", "HEAD"])?;
    let changes = git_output(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(Git { revision, dirty: !changes.is_empty() })
}

fn git_output(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Describes this machine.
pub fn host() -> Host {
    let system = System::new_with_specifics(
        RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram()),
    );
    Host {
        hostname: System::host_name().unwrap_or_default(),
        os: System::long_os_version().unwrap_or_else(|| std::env::consts::OS.to_owned()),
        cpu: system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
        cores: system.cpus().len(),
        memory_bytes: system.total_memory(),
    }
}

/// This process.
pub fn process() -> Process {
    let pid = std::process::id();
    Process { pid, started: start_of(pid).unwrap_or_default() }
}

/// Whether that process still runs on this machine.
pub fn is_alive(process: Process) -> bool {
    start_of(process.pid) == Some(process.started)
}

fn start_of(pid: u32) -> Option<u64> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new();
    let what = ProcessRefreshKind::nothing();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    // A killed process that nobody has waited for yet is still listed.
    let gone = |p: &&sysinfo::Process| matches!(p.status(), ProcessStatus::Zombie | ProcessStatus::Dead);
    system.process(pid).filter(|p| !gone(p)).map(|p| p.start_time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_name_what_decides_the_numbers() {
        let versions = versions();
        assert_eq!(versions["lft"], env!("CARGO_PKG_VERSION"));
        assert_eq!(versions["polars"], polars::VERSION);
        assert!(versions["candle-core"].starts_with("0."));
        assert_eq!(locked_version(LOCK, "no-such-package"), None);
    }

    #[test]
    fn this_process_is_alive_and_another_start_is_another_process() {
        let own = process();
        assert!(is_alive(own));
        assert!(!is_alive(Process { started: own.started + 1, ..own }));
    }

    #[cfg(unix)]
    #[test]
    fn a_killed_process_is_gone_even_before_it_is_waited_for() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process { pid: child.id(), started: start_of(child.id()).unwrap() };
        assert!(is_alive(process));
        child.kill().unwrap();
        // The signal takes effect in its own time.
        let moment = std::time::Duration::from_millis(10);
        let gone = (0..1000).any(|_| {
            std::thread::sleep(moment);
            !is_alive(process)
        });
        assert!(gone);
        child.wait().unwrap();
    }

    #[test]
    fn this_machine_is_described() {
        let host = host();
        assert!(host.cores >= 1);
        assert!(host.memory_bytes > 1 << 20);
    }
}
