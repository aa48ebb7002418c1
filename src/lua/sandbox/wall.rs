//! The second wall, held by the kernel: Landlock, which Linux has since 5.13.
//!
//! It covers what is not made for scripts as well, such as libraries that open files by themselves. Once raised it
//! stands for the calling thread and every thread that this one starts, and nothing takes it down.

use std::path::PathBuf;

/// What the program itself still reads: libraries, the machine's description, time zones.
#[cfg(target_os = "linux")]
const SYSTEM: [&str; 7] = ["/usr", "/lib", "/lib64", "/opt", "/proc", "/sys", "/etc/localtime"];

/// Closes every file outside the given folders, starting programs, and connections over TCP, as far as the kernel
/// can. Says whether it could at all.
///
/// # Errors
/// When the kernel refuses what it said it could do.
#[cfg(target_os = "linux")]
pub fn raise(folders: &[PathBuf]) -> anyhow::Result<bool> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
        path_beneath_rules,
    };
    let abi = ABI::V6;
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let use_devices = look | AccessFs::WriteFile | AccessFs::IoctlDev;
    let wall = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, look))?
        .add_rules(path_beneath_rules(libraries(), look))?
        .add_rules(path_beneath_rules(["/dev"], use_devices))?
        .add_rules(path_beneath_rules(folders, AccessFs::from_all(abi) & !AccessFs::Execute))?
        .restrict_self()?;
    Ok(wall.ruleset != RulesetStatus::NotEnforced)
}

/// Where the loader was told to look for the libraries of graphics cards, which are opened when first used.
#[cfg(target_os = "linux")]
fn libraries() -> Vec<PathBuf> {
    std::env::var_os("LD_LIBRARY_PATH").map_or(Vec::new(), |path| std::env::split_paths(&path).collect())
}

/// There is no such wall on this system.
#[cfg(not(target_os = "linux"))]
pub fn raise(_: &[PathBuf]) -> anyhow::Result<bool> {
    Ok(false)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_kernel_keeps_files_programs_and_the_network_closed() {
        let inside = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "42").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behind_the_wall = || {
            if !raise(&[inside.path().to_owned()]).unwrap() {
                println!("skipped: this kernel has no Landlock");
                return;
            }
            fs::write(inside.path().join("a"), "1").unwrap();
            assert_eq!(fs::read_to_string(inside.path().join("a")).unwrap(), "1");
            assert!(fs::read_to_string(outside.path().join("secret")).is_err());
            assert!(fs::write(outside.path().join("new"), "").is_err());
            assert!(fs::remove_file(outside.path().join("secret")).is_err());
            assert!(fs::rename(inside.path().join("a"), outside.path().join("a")).is_err());
            assert!(Command::new("true").status().is_err());
            assert!(std::net::TcpStream::connect(address).is_err());
            assert!(fs::read_to_string("/proc/self/status").is_ok());
        };
        // The wall stands around the thread that raised it, and goes with it.
        std::thread::scope(|scope| scope.spawn(behind_the_wall).join()).unwrap();
        assert!(fs::read_to_string(outside.path().join("secret")).is_ok());
    }
}
