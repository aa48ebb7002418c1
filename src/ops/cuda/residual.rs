//! The residual stream's update.

use candle_core::{Result, Tensor};

use super::activation::elementwise;
use super::graph::record3;
use super::memory::{Buffer, address, device, name, sixteen_bytes};
use super::module::launch;

/// See [`crate::ops::residual`].
pub fn residual(x: &Tensor, a: &Tensor, m: &Tensor) -> Result<Option<Tensor>> {
    let (Some(device), Some(kind)) = (device(&[x, a, m]), name(x.dtype())) else { return Ok(None) };
    if [a, m].iter().any(|t| t.dtype() != x.dtype() || t.dims() != x.dims()) {
        return Ok(None);
    }
    let n = x.elem_count();
    let y = Buffer::new(&device, x.shape(), x.dtype())?;
    let v = sixteen_bytes(x.dtype(), n, &[address(x)?, address(a)?, address(m)?, y.address()?]);
    let (grid, block) = elementwise(n, v);
    launch!(
        device,
        POINTWISE,
        format!("residual_{kind}_v{v}"),
        grid,
        block,
        0,
        address(x)?,
        address(a)?,
        address(m)?,
        y.address()?,
        n as i64
    );
    record3([x, a, m], "residual", y, |_, _, grad| Ok([(); 3].map(|()| Some(grad.clone())))).map(Some)
}
