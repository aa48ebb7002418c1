//! Names of devices and element types.

use anyhow::bail;
use candle_core::{DType, Device};

use crate::device::DeviceChoice;
use crate::nearest::nearest;

/// LuaCATS type of an element type's name.
pub const DTYPE: &str = "\"f32\"|\"f64\"|\"f16\"|\"bf16\"|\"u8\"|\"u32\"|\"i64\"";

/// The device named `cpu`, `cuda`, `cuda:1` and so on.
///
/// # Errors
/// Unknown names, and devices that this build or machine does not have.
pub fn parse(name: &str) -> anyhow::Result<Device> {
    let choice: DeviceChoice = name.parse().map_err(anyhow::Error::msg)?;
    choice.open(|_| ())
}

/// The name of a device as scripts write it.
pub fn name(device: &Device) -> String {
    DeviceChoice::of(device).to_string()
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
