//! `--device`: which device tensors live on.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use candle_core::Device;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA if this build and machine have it, else Metal, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("unknown device `{text}`: one of auto, cpu, cuda, cuda:N, metal");
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                number.parse().map(Self::Cuda).map_err(|_| unknown())
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
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device. When `Auto` falls back to the CPU, `note` is called once with a line that says so.
    ///
    /// # Errors
    /// When a device that was asked for by name is not to be had; the error says what to do.
    pub fn open(self, note: impl FnOnce(&str)) -> Result<Device> {
        match self {
            Self::Auto => Ok(automatic(note)),
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => cuda(number).map_err(|why| unavailable(self, "cuda", &why)),
            Self::Metal => metal().map_err(|why| unavailable(self, "metal", &why)),
        }
    }
}

fn automatic(note: impl FnOnce(&str)) -> Device {
    let cuda = match cuda(0) {
        Ok(device) => return device,
        Err(why) => why,
    };
    let metal = match metal() {
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

fn cuda(number: usize) -> Result<Device, String> {
    if cfg!(feature = "cuda") { Device::new_cuda(number).map_err(one_line) } else { Err(not_built("cuda")) }
}

fn metal() -> Result<Device, String> {
    if cfg!(feature = "metal") { Device::new_metal(0).map_err(one_line) } else { Err(not_built("metal")) }
}

fn not_built(feature: &str) -> String {
    format!("this lft was built without it: build with `cargo build --release --features {feature}`")
}

fn one_line(error: candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or("no reason given").to_owned()
}

fn unavailable(choice: DeviceChoice, name: &str, why: &str) -> anyhow::Error {
    anyhow!("device `{choice}` cannot be used: {why}; or leave {name} out with `--device cpu`")
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
            ("metal", DeviceChoice::Metal),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["gpu", "cuda:", "cuda:x", "CPU", ""] {
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
        assert!(DeviceChoice::Metal.open(|_| ()).is_err());
    }
}
