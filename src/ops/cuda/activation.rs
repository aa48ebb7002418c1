//! Activations.

use candle_core::{Result, Tensor, bail};

use super::graph::record1;
use super::memory::{Buffer, address, device, name, vector};
use super::module::launch;
use crate::ops::Activation;

/// Threads of a block.
const THREADS: u32 = 256;

/// The grid of blocks over n elements, `vector` of them a thread.
pub(super) fn elementwise(n: usize, vector: usize) -> ((u32, u32, u32), (u32, u32, u32)) {
    ((n.div_ceil(THREADS as usize * vector) as u32, 1, 1), (THREADS, 1, 1))
}

/// The kernel's number for it.
fn number(activation: Activation) -> i32 {
    match activation {
        Activation::Gelu => 0,
        Activation::GeluNew | Activation::GeluFast => 1,
        Activation::Relu => 2,
        Activation::Silu => 3,
    }
}

/// Writes the activation of `x` into `y`, a tensor of the caller's own making and of the same size, or `x` itself.
pub(super) fn activate_into(x: &Tensor, y: &Tensor, activation: Activation) -> Result<()> {
    let Some(kind) = name(x.dtype()) else { bail!("no activation kernel for {:?}", x.dtype()) };
    let (device, n, from, to) = (x.device().as_cuda_device()?, x.elem_count(), address(x)?, address(y)?);
    let v = vector(n, &[from, to]);
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

/// See [`Activation::apply`].
pub fn activation(x: &Tensor, activation: Activation) -> Result<Option<Tensor>> {
    let (Some(device), Some(kind)) = (device(&[x]), name(x.dtype())) else { return Ok(None) };
    let (n, number) = (x.elem_count(), number(activation));
    let y = Buffer::new(&device, x.shape(), x.dtype())?;
    let v = vector(n, &[address(x)?, y.address()?]);
    let (grid, block) = elementwise(n, v);
    launch!(
        device,
        POINTWISE,
        format!("activation_{kind}_v{v}"),
        grid,
        block,
        0,
        address(x)?,
        y.address()?,
        n as i64,
        number
    );
    record1([x], "activation", y, move |[x], _, grad| {
        let device = x.device().as_cuda_device()?;
        let dx = Buffer::new(device, x.shape(), x.dtype())?;
        let v = vector(n, &[address(x)?, address(grad)?, dx.address()?]);
        let (grid, block) = elementwise(n, v);
        launch!(
            device,
            POINTWISE,
            format!("activation_backward_{kind}_v{v}"),
            grid,
            block,
            0,
            address(x)?,
            address(grad)?,
            dx.address()?,
            n as i64,
            number
        );
        Ok([Some(dx.tensor())])
    })
    .map(Some)
}
