//! Names of devices and element types.

use anyhow::{Context, bail};
use candle_core::{DType, Device, DeviceLocation};

use crate::nearest::nearest;

/// LuaCATS type of an element type's name.
pub const DTYPE: &str = "\"f32\"|\"f64\"|\"f16\"|\"bf16\"|\"u8\"|\"u32\"|\"i64\"";

/// The device named `cpu`, `cuda`, `cuda:1`, `metal` or `metal:1`.
///
/// # Errors
/// Unknown names, and devices that this build or machine does not have.
pub fn parse(name: &str) -> anyhow::Result<Device> {
    let (kind, number) = match name.split_once(':') {
        Some((kind, number)) => (
            kind,
            number.parse::<usize>().ok().with_context(|| format!("'{name}': expected a number after ':'"))?,
        ),
        None => (name, 0),
    };
    match kind {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Device::new_cuda(number).with_context(|| format!("device '{name}' is not available")),
        "metal" => Device::new_metal(number).with_context(|| format!("device '{name}' is not available")),
        _ => match nearest(kind, ["cpu", "cuda", "metal"]) {
            Some(near) => bail!("unknown device '{name}' (did you mean '{near}'?)"),
            None => bail!("unknown device '{name}'; known are cpu, cuda, cuda:N, metal"),
        },
    }
}

/// The name of a device as scripts write it.
pub fn name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".into(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// The element type named `f32`, `bf16` and so on.
///
/// # Errors
/// Unknown names.
pub fn dtype(name: &str) -> anyhow::Result<DType> {
    let known = ["f32", "f64", "f16", "bf16", "u8", "u32", "i64"];
    match name.parse::<DType>() {
        Ok(dtype) if known.contains(&name) => Ok(dtype),
        _ => match nearest(name, known) {
            Some(near) => bail!("unknown dtype '{name}' (did you mean '{near}'?)"),
            None => bail!("unknown dtype '{name}'; known are {}", known.join(", ")),
        },
    }
}
