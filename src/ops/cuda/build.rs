//! Compiles the CUDA kernels beside this file, and nothing unless the feature `cuda` is on.
//!
//! `NVCC` names the compiler (else `$CUDA_HOME/bin/nvcc`, else `nvcc` on the path), `CUDA_COMPUTE_CAP` the card's
//! compute capability (else what `nvidia-smi` says, else 80).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

const SOURCES: &str = "src/ops/cuda";

fn main() {
    println!("cargo::rerun-if-changed={SOURCES}/build.rs");
    println!("cargo::rustc-check-cfg=cfg(lft_hopper)");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP", "NVCC_CCBIN"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let sources: Vec<PathBuf> = fs::read_dir(SOURCES)
        .expect("the folder of CUDA kernels can be read")
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "cu" || e == "cuh"))
        .collect();
    for source in &sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    let (nvcc, mut capability) = (nvcc(), capability());
    if capability == "90" {
        // Hopper's matrix instructions exist for exactly this architecture.
        capability = "90a".into();
    }
    if capability == "90a" {
        println!("cargo::rustc-cfg=lft_hopper");
    }
    let kernels: Vec<&PathBuf> =
        sources.iter().filter(|path| path.extension().is_some_and(|e| e == "cu")).collect();
    thread::scope(|scope| {
        for kernel in kernels {
            scope.spawn(|| compile(&nvcc, &capability, kernel));
        }
    });
}

fn nvcc() -> PathBuf {
    let named = env::var_os("NVCC").map(PathBuf::from);
    let installed = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    named.or(installed).unwrap_or_else(|| "nvcc".into())
}

fn capability() -> String {
    let asked = || {
        let out = Command::new("nvidia-smi")
            .args(["--query-gpu=compute_cap", "--format=csv,noheader"])
            .output()
            .ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        Some(text.lines().next()?.trim().replace('.', ""))
    };
    let named = env::var("CUDA_COMPUTE_CAP").ok();
    named.or_else(asked).filter(|c| !c.is_empty()).unwrap_or_else(|| "80".into())
}

/// Machine code for this card, and portable code for newer ones, in one file.
fn compile(nvcc: &Path, capability: &str, kernel: &Path) {
    let stem = kernel.file_stem().expect("a source has a name");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
        .join(stem)
        .with_extension("fatbin");
    let mut command = Command::new(nvcc);
    command
        .args(["--fatbin", "-O3", "-std=c++17", "--expt-relaxed-constexpr"])
        .arg(format!("-gencode=arch=compute_{capability},code=[sm_{capability},compute_{capability}]"));
    if let Some(host) = env::var_os("NVCC_CCBIN") {
        command.args(["-allow-unsupported-compiler", "-ccbin"]).arg(host);
    }
    let status = command.arg("-o").arg(&out).arg(kernel).status().unwrap_or_else(|why| {
        panic!(
            "cannot run the CUDA compiler {}: {why}. Install a CUDA toolkit and set CUDA_HOME, or follow docs/cuda.md",
            nvcc.display()
        )
    });
    assert!(status.success(), "{} could not compile {}", nvcc.display(), kernel.display());
}
