//! Mean square of a difference.

use candle_core::{DType, Result, Tensor};

use super::activation::elementwise;
use super::graph::record2;
use super::memory::{Buffer, address, device};
use super::module::launch;

/// Blocks of the first stage: a few for each multiprocessor of a large card.
const BLOCKS: u32 = 528;
const BLOCK: (u32, u32, u32) = (512, 1, 1);

/// See [`crate::ops::mean_square`].
pub fn mean_square(a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    let Some(device) = device(&[a, b]) else { return Ok(None) };
    if [a, b].iter().any(|t| t.dtype() != DType::F32) || a.dims() != b.dims() {
        return Ok(None);
    }
    let n = a.elem_count();
    let (partial, out) =
        (Buffer::new(&device, BLOCKS as usize, DType::F32)?, Buffer::new(&device, (), DType::F32)?);
    launch!(
        device,
        POINTWISE,
        "square_error",
        (BLOCKS, 1, 1),
        BLOCK,
        0,
        address(a)?,
        address(b)?,
        partial.address()?,
        n as i64
    );
    launch!(
        device,
        POINTWISE,
        "square_error_sum",
        (1, 1, 1),
        BLOCK,
        0,
        partial.address()?,
        out.address()?,
        BLOCKS as i32,
        1.0 / n as f32
    );
    record2([a, b], "mean_square", out, move |[a, b], _, grad| {
        let device = a.device().as_cuda_device()?;
        let d = Buffer::new(device, a.shape(), DType::F32)?;
        let (grid, block) = elementwise(n, 1);
        launch!(
            device,
            POINTWISE,
            "square_error_backward",
            grid,
            block,
            0,
            address(a)?,
            address(b)?,
            address(grad)?,
            d.address()?,
            n as i64,
            2.0 / n as f32
        );
        let d = d.tensor();
        let other = b.track_op().then(|| d.neg()).transpose()?;
        Ok([Some(d), other])
    })
    .map(Some)
}
