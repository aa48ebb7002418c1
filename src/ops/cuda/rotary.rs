//! Turning queries and keys in place.

use candle_core::{DType, Result, Tensor, bail};

use super::activation::elementwise;
use super::memory::{address, name};
use super::module::launch;
use crate::ops::Rotary;

/// Turns the queries and keys of a packed projection (B, T, H·3·C) in memory, by `direction` 1 forth and −1 back.
/// The tensor must be of the caller's own making: whoever else holds it sees it change.
pub(super) fn turn(qkv: &Tensor, rotary: &Rotary, heads: usize, direction: f32) -> Result<()> {
    let ((batch, tokens, width), half) = (qkv.dims3()?, rotary.rotated() / 2);
    let (channels, pairs) = (width / (3 * heads), batch * tokens * heads * 2 * half);
    if pairs == 0 {
        return Ok(());
    }
    let Some(kind) = name(qkv.dtype()) else { bail!("no rotary kernel for {:?}", qkv.dtype()) };
    let [cos, sin] = rotary.tables();
    if cos.dtype() != DType::F32 {
        bail!("rotary tables must be f32, not {:?}", cos.dtype());
    }
    let addresses = [address(qkv)?, address(cos)?, address(sin)?];
    let fits = |v: &usize| half % v == 0 && channels % v == 0 && addresses.iter().all(|a| a % 16 == 0);
    let v = [8, 4].into_iter().find(fits).unwrap_or(1);
    let Ok(threads) = u32::try_from(pairs / v) else {
        bail!("rotary: {pairs} pairs are too many for one launch")
    };
    let (device, (grid, block)) = (qkv.device().as_cuda_device()?, elementwise(pairs / v, 1));
    launch!(
        device,
        POINTWISE,
        format!("rotary_{kind}_v{v}"),
        grid,
        block,
        0,
        addresses[0],
        addresses[1],
        addresses[2],
        threads,
        tokens as i32,
        0i32,
        heads as i32,
        channels as i32,
        half as i32,
        direction
    );
    Ok(())
}
