//! The gated sum of a layer's two branches.

use candle_core::{DType, Result, Tensor};

use super::activation::elementwise;
use super::graph::record3;
use super::memory::{Buffer, address, device, vector};
use super::module::launch;
use super::reduce::Chunks;

/// See [`crate::ops::gated_sum`]; the result has the dtype of the gates, which may be f32 over branches in bf16.
pub fn gated_sum(attention: &Tensor, mlp: &Tensor, gates: &Tensor) -> Result<Option<Tensor>> {
    let Some(device) = device(&[attention, mlp, gates]) else { return Ok(None) };
    let kind = match (attention.dtype(), gates.dtype()) {
        (DType::F32, DType::F32) => "f32",
        (DType::BF16, DType::BF16) => "bf16",
        (DType::BF16, DType::F32) => "mixed",
        _ => return Ok(None),
    };
    if mlp.dtype() != attention.dtype() {
        return Ok(None);
    }
    let ((groups, _, width), n) = (gates.dims3()?, attention.elem_count());
    let y = Buffer::new(&device, attention.shape(), gates.dtype())?;
    let v = vector(width, &[address(attention)?, address(mlp)?, address(gates)?, y.address()?]);
    let (grid, block) = elementwise(n, v);
    launch!(
        device,
        POINTWISE,
        format!("gated_sum_{kind}_v{v}"),
        grid,
        block,
        0,
        address(attention)?,
        address(mlp)?,
        address(gates)?,
        y.address()?,
        n as i64,
        width as i32,
        (n / groups) as i64
    );
    record3([attention, mlp, gates], "gated_sum", y, move |[a, m, gates], _, grad| {
        let device = a.device().as_cuda_device()?;
        let (da, dm) =
            (Buffer::new(device, a.shape(), a.dtype())?, Buffer::new(device, m.shape(), m.dtype())?);
        let addresses =
            [address(a)?, address(m)?, address(gates)?, address(grad)?, da.address()?, dm.address()?];
        let v = vector(width, &addresses);
        let chunks = Chunks::new(n / width, width, groups, v);
        let partial = chunks.partial(device, 2 * width)?;
        let [a_at, m_at, gates_at, grad_at, da_at, dm_at] = addresses;
        launch!(
            device,
            POINTWISE,
            format!("gated_sum_backward_{kind}_v{v}"),
            chunks.grid(),
            Chunks::BLOCK,
            0,
            a_at,
            m_at,
            gates_at,
            grad_at,
            da_at,
            dm_at,
            partial.address()?,
            width as i32,
            chunks.group_rows as i32,
            chunks.rows as i32,
            chunks.count as i32
        );
        let d_gates = chunks.fold(device, &partial, 2 * width, gates.shape(), gates.dtype())?;
        Ok([Some(da.tensor()), Some(dm.tensor()), Some(d_gates)])
    })
    .map(Some)
}
