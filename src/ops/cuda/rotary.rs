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
    let pairs = batch * tokens * heads * 2 * half;
    if pairs == 0 {
        return Ok(());
    }
    let Some(kind) = name(qkv.dtype()) else { bail!("no rotary kernel for {:?}", qkv.dtype()) };
    let [cos, sin] = rotary.tables();
    if cos.dtype() != DType::F32 {
        bail!("rotary tables must be f32, not {:?}", cos.dtype());
    }
    let (device, (grid, block)) = (qkv.device().as_cuda_device()?, elementwise(pairs, 1));
    launch!(
        device,
        POINTWISE,
        format!("rotary_{kind}"),
        grid,
        block,
        0,
        address(qkv)?,
        address(cos)?,
        address(sin)?,
        pairs as i64,
        tokens as i32,
        0i32,
        heads as i32,
        (width / (3 * heads)) as i32,
        half as i32,
        direction
    );
    Ok(())
}
