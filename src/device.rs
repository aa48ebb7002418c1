//! Which device tensors live on, by the names of `--device` and of the option `device`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use candle_core::{Device, DeviceLocation};

use crate::nearest::nearest;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA if this build and machine have it, else Metal, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
    /// The Metal device of that number.
    Metal(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = match text.split_once(':') {
            None => (text, Some(0)),
            Some((kind, number)) => (kind, number.parse().ok()),
        };
        match (kind, number) {
            ("auto", Some(0)) if kind == text => Ok(Self::Auto),
            ("cpu", Some(0)) if kind == text => Ok(Self::Cpu),
            ("cuda", Some(number)) => Ok(Self::Cuda(number)),
            ("metal", Some(number)) => Ok(Self::Metal(number)),
            _ => {
                let near = nearest(kind, ["auto", "cpu", "cuda", "metal"]).filter(|near| *near != kind);
                let hint = near.map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
                Err(format!("unknown device `{text}`{hint}: one of auto, cpu, cuda, cuda:N, metal, metal:N"))
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal(0) => f.write_str("metal"),
            Self::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

impl DeviceChoice {
    /// The choice that leads to this device.
    pub fn of(device: &Device) -> Self {
        match device.location() {
            DeviceLocation::Cpu => Self::Cpu,
            DeviceLocation::Cuda { gpu_id } => Self::Cuda(gpu_id),
            DeviceLocation::Metal { gpu_id } => Self::Metal(gpu_id),
        }
    }

    /// Opens the device. When `Auto` falls back to the CPU, `note` is called once with a line that says so.
    ///
    /// # Errors
    /// When a device that was asked for by name is not to be had; the error says what to do.
    pub fn open(self, note: impl FnOnce(&str)) -> Result<Device> {
        let opened = match self {
            Self::Auto => return Ok(automatic(note)),
            Self::Cpu => return Ok(Device::Cpu),
            Self::Cuda(number) => cuda(number),
            Self::Metal(number) => metal(number),
        };
        opened.map_err(|why| anyhow!("device `{self}` cannot be used: {why}"))
    }
}

fn automatic(note: impl FnOnce(&str)) -> Device {
    let cuda = match cuda(0) {
        Ok(device) => return device,
        Err(why) => why,
    };
    let metal = match metal(0) {
        Ok(device) => return device,
        Err(why) => why,
    };
    match (cfg!(feature = "cuda"), cfg!(feature = "metal")) {
        (true, _) => note(&format!("device: cpu, since CUDA cannot be used ({cuda})")),
        (_, true) => note(&format!("device: cpu, since Metal cannot be used ({metal})")),
        _ => note("device: cpu (this build has neither CUDA nor Metal)"),
    }
    Device::Cpu
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<Device, String> {
    crate::ops::cuda::open(number).map_err(|error| missing_for_cuda(&one_line(error)))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device, String> {
    Err(not_built("cuda"))
}

/// What the user can do about an error of CUDA's libraries.
#[cfg(feature = "cuda")]
fn missing_for_cuda(error: &str) -> String {
    let missing = if error.contains("NO_DEVICE") {
        "no NVIDIA card, or no driver for one, was found"
    } else if error.contains("CUBLAS") || error.contains("CURAND") {
        "libcublas.so.13, libcublasLt.so.13 and libcurand.so.10 must be on the loader path, see LD_LIBRARY_PATH"
    } else if error.contains("INVALID_DEVICE") {
        "there is no card of that number"
    } else {
        error
    };
    missing.to_owned()
}

fn metal(number: usize) -> Result<Device, String> {
    if cfg!(feature = "metal") {
        Device::new_metal(number).map_err(one_line)
    } else {
        Err(not_built("metal"))
    }
}

fn not_built(feature: &str) -> String {
    format!("this lft was built without it; build with `cargo build --release --features {feature}`")
}

fn one_line(error: candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:3", DeviceChoice::Cuda(3)),
            ("metal", DeviceChoice::Metal(0)),
            ("metal:1", DeviceChoice::Metal(1)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!(DeviceChoice::of(&Device::Cpu), DeviceChoice::Cpu);
        for text in ["gpu", "cuda:", "cuda:x", "cpu:0", "CPU", ""] {
            assert!(text.parse::<DeviceChoice>().unwrap_err().contains("one of auto, cpu"), "{text}");
        }
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn a_plain_build_falls_back_and_says_so_but_never_silently_replaces_a_named_device() {
        let mut notes = vec![];
        assert!(DeviceChoice::Auto.open(|line| notes.push(line.to_owned())).unwrap().is_cpu());
        assert_eq!(notes, ["device: cpu (this build has neither CUDA nor Metal)"]);

        assert!(DeviceChoice::Cpu.open(|_| panic!("nothing to note")).unwrap().is_cpu());
        let error = DeviceChoice::Cuda(1).open(|_| ()).unwrap_err().to_string();
        assert!(error.contains("`cuda:1`") && error.contains("--features cuda"), "{error}");
        assert!(DeviceChoice::Metal(0).open(|_| ()).is_err());
    }
}
