//! Activations.

use candle_core::{Result, Tensor, bail};

use super::graph::record1;
use super::memory::{Buffer, address, device, name, sixteen_bytes};
use super::module::launch;
use super::reduce::Chunks;
use crate::ops::Activation;

/// Threads of a block.
const THREADS: u32 = 256;

/// The grid of blocks over n elements, `vector` of them a thread.
pub(super) fn elementwise(n: usize, vector: usize) -> ((u32, u32, u32), (u32, u32, u32)) {
    ((n.div_ceil(THREADS as usize * vector) as u32, 1, 1), (THREADS, 1, 1))
}

/// Its number in `activate.cuh`.
pub(super) fn number(activation: Activation) -> i32 {
    match activation {
        Activation::Gelu => 0,
        Activation::GeluNew | Activation::GeluFast => 1,
        Activation::Relu => 2,
        Activation::Silu => 3,
    }
}

/// Writes the activation of `x` to a device address with room for as much; it may be that of `x` itself.
pub(super) fn activate_into(x: &Tensor, to: u64, activation: Activation) -> Result<()> {
    let Some(kind) = name(x.dtype()) else { bail!("no activation kernel for {:?}", x.dtype()) };
    let (device, n, from) = (x.device().as_cuda_device()?, x.elem_count(), address(x)?);
    let v = sixteen_bytes(x.dtype(), n, &[from, to]);
    let (grid, block) = elementwise(n, v);
    launch!(
        device,
        POINTWISE,
        format!("activation_{kind}_v{v}"),
        grid,
        block,
        0,
        from,
        to,
        n as i64,
        number(activation)
    );
    Ok(())
}

/// Writes the slope of `x` into `dx`, given that of its activation; `dx` is a tensor of the caller's own making, and may be
/// `grad` itself.
pub(super) fn slope_into(x: &Tensor, grad: &Tensor, dx: &Tensor, activation: Activation) -> Result<()> {
    let Some(kind) = name(x.dtype()) else { bail!("no activation kernel for {:?}", x.dtype()) };
    let (device, n, dtype) = (x.device().as_cuda_device()?, x.elem_count(), x.dtype());
    let [x, grad, dx] = [address(x)?, address(grad)?, address(dx)?];
    let v = sixteen_bytes(dtype, n, &[x, grad, dx]);
    let (grid, block) = elementwise(n, v);
    launch!(
        device,
        POINTWISE,
        format!("activation_backward_{kind}_v{v}"),
        grid,
        block,
        0,
        x,
        grad,
        dx,
        n as i64,
        number(activation)
    );
    Ok(())
}

/// Writes gelu(u) of `hidden` u (N, I) to `active`, and turns `slope`, that of gelu(u), into that of u in its place. The sum of
/// it over all rows goes to `sums`, in f32, on top of what lies there where that says so.
pub(super) fn gelu_backward(
    hidden: &Tensor,
    slope: &Tensor,
    active: &Tensor,
    sums: Option<(u64, bool)>,
) -> Result<()> {
    let Some(kind) = name(hidden.dtype()) else { bail!("no GELU kernel for {:?}", hidden.dtype()) };
    let (device, (rows, inner)) = (hidden.device().as_cuda_device()?, hidden.dims2()?);
    let chunks = Chunks::new(rows, inner, 1, 4);
    let partial = chunks.partial(device, inner)?;
    launch!(
        device,
        FIELD,
        format!("field_gelu_backward_{kind}"),
        chunks.grid(),
        Chunks::BLOCK,
        0,
        address(hidden)?,
        address(slope)?,
        address(active)?,
        address(slope)?,
        partial.address()?,
        inner as i32,
        chunks.group_rows as i32,
        chunks.rows as i32,
        chunks.count as i32
    );
    sums.map_or(Ok(()), |to| chunks.fold_all(device, &partial, (0, inner, inner), to))
}

/// See [`Activation::apply`].
pub fn activation(x: &Tensor, activation: Activation) -> Result<Option<Tensor>> {
    let (Some(device), Some(_)) = (device(&[x]), name(x.dtype())) else { return Ok(None) };
    let y = Buffer::new(&device, x.shape(), x.dtype())?;
    activate_into(x, y.address()?, activation)?;
    record1([x], "activation", y, move |[x], _, grad| {
        let dx = Buffer::new(x.device().as_cuda_device()?, x.shape(), x.dtype())?.tensor();
        slope_into(x, grad, &dx, activation)?;
        Ok([Some(dx)])
    })
    .map(Some)
}
