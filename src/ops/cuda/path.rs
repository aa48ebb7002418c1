//! The straight path of flow matching.

use candle_core::{DType, Result, Tensor};

use super::activation::elementwise;
use super::memory::{Buffer, address, device, vector};
use super::module::launch;

/// See [`crate::ops::straight_path`]; for f32 without history.
pub fn straight_path(x0: &Tensor, x1: &Tensor, t: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
    let operands = [x0, x1, t];
    let Some(device) = device(&operands) else { return Ok(None) };
    let (n, examples) = (x0.elem_count(), t.elem_count());
    let fits = x0.dims() == x1.dims() && t.rank() == 1 && x0.dims().first() == Some(&examples);
    if !fits || operands.iter().any(|x| x.track_op() || x.dtype() != DType::F32) {
        return Ok(None);
    }
    let (x_t, displacement) =
        (Buffer::new(&device, x0.shape(), DType::F32)?, Buffer::new(&device, x0.shape(), DType::F32)?);
    let addresses = [address(x0)?, address(x1)?, x_t.address()?, displacement.address()?];
    let v = vector(n / examples, &addresses);
    let (grid, block) = elementwise(n, v);
    launch!(
        device,
        POINTWISE,
        format!("straight_path_v{v}"),
        grid,
        block,
        0,
        addresses[0],
        addresses[1],
        address(t)?,
        addresses[2],
        addresses[3],
        n as i64,
        (n / examples) as i64
    );
    Ok(Some((x_t.tensor(), displacement.tensor())))
}
