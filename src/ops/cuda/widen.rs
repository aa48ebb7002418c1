//! From bf16 to f32.

use candle_core::{DType, Result, Tensor};

use super::activation::elementwise;
use super::memory::{Buffer, address, device, sixteen_bytes};
use super::module::launch;

/// See [`crate::ops::widen`]; for bf16 without history.
pub fn widen(x: &Tensor) -> Result<Option<Tensor>> {
    let Some(device) = device(&[x]).filter(|_| x.dtype() == DType::BF16 && !x.track_op()) else {
        return Ok(None);
    };
    let (n, y) = (x.elem_count(), Buffer::new(&device, x.shape(), DType::F32)?);
    let v = sixteen_bytes(x.dtype(), n, &[address(x)?, y.address()?]);
    let (grid, block) = elementwise(n, v);
    launch!(device, POINTWISE, format!("widen_v{v}"), grid, block, 0, address(x)?, y.address()?, n as i64);
    Ok(Some(y.tensor()))
}
