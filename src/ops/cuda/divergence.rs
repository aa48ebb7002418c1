//! Cross-entropy and Kullback–Leibler divergence.

use candle_core::{DType, Result, Tensor, bail};

use super::graph::record2;
use super::memory::{Buffer, address, device, name, vector};
use super::module::launch;

const BLOCK: (u32, u32, u32) = (512, 1, 1);

/// See [`crate::ops::kl_divergence`]; the result is f32.
pub fn kl_divergence(p: &Tensor, q: &Tensor) -> Result<Option<Tensor>> {
    let (Some(device), Some(kind)) = (device(&[p, q]), name(p.dtype())) else { return Ok(None) };
    if p.dtype() != q.dtype() {
        return Ok(None);
    }
    let (rows, width) = p.dims2()?;
    let (grid, kl) = ((rows as u32, 1, 1), Buffer::new(&device, rows, DType::F32)?);
    launch!(
        device,
        DIVERGENCE,
        format!("divergence_{kind}"),
        grid,
        BLOCK,
        0,
        address(p)?,
        address(q)?,
        kl.address()?,
        width as i32
    );
    record2([p, q], "kl_divergence", kl, move |[p, q], _, grad| {
        let device = p.device().as_cuda_device()?;
        let wanted = |x: &Tensor| x.track_op().then(|| Buffer::new(device, x.shape(), x.dtype())).transpose();
        let (dp, dq) = (wanted(p)?, wanted(q)?);
        let place = |d: &Option<Buffer>| d.as_ref().map_or(Ok(0), Buffer::address);
        launch!(
            device,
            DIVERGENCE,
            format!("divergence_backward_{kind}"),
            grid,
            BLOCK,
            0,
            address(p)?,
            address(q)?,
            address(grad)?,
            place(&dp)?,
            place(&dq)?,
            width as i32
        );
        Ok([dp.map(Buffer::tensor), dq.map(Buffer::tensor)])
    })
    .map(Some)
}

/// See [`crate::ops::cross_entropy`]; the result is f32.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Option<Tensor>> {
    let (Some(device), Some(kind)) = (device(&[logits, targets]), name(logits.dtype())) else {
        return Ok(None);
    };
    if targets.dtype() != DType::U32 {
        return Ok(None);
    }
    let (rows, width) = logits.dims2()?;
    let (grid, loss) = ((rows as u32, 1, 1), Buffer::new(&device, rows, DType::F32)?);
    launch!(
        device,
        DIVERGENCE,
        format!("cross_entropy_{kind}"),
        grid,
        BLOCK,
        0,
        address(logits)?,
        address(targets)?,
        loss.address()?,
        width as i32
    );
    record2([logits, targets], "cross_entropy", loss, move |[logits, targets], _, grad| {
        let device = logits.device().as_cuda_device()?;
        let d = Buffer::new(device, logits.shape(), logits.dtype())?;
        launch!(
            device,
            DIVERGENCE,
            format!("cross_entropy_backward_{kind}"),
            grid,
            BLOCK,
            0,
            address(logits)?,
            address(targets)?,
            address(grad)?,
            d.address()?,
            width as i32
        );
        Ok([Some(d.tensor()), None])
    })
    .map(Some)
}

/// The cross-entropy of each row of `logits` (N, V) in nats, as f32 (N); the logits are replaced by their slopes times
/// `scale`. The tensor must be of the caller's own making: whoever else holds it sees it change.
pub(super) fn cross_entropy_slopes(logits: &Tensor, targets: &Tensor, scale: f64) -> Result<Tensor> {
    let (Some(device), Some(kind)) = (device(&[logits, targets]), name(logits.dtype())) else {
        bail!("cross-entropy in place needs contiguous f32 or bf16 logits on a CUDA card");
    };
    let (rows, width) = logits.dims2()?;
    let loss = Buffer::new(&device, rows, DType::F32)?;
    let v = vector(width, &[address(logits)?]);
    launch!(
        device,
        DIVERGENCE,
        format!("cross_entropy_slopes_{kind}_v{v}"),
        (rows as u32, 1, 1),
        BLOCK,
        0,
        address(logits)?,
        address(targets)?,
        loss.address()?,
        scale as f32,
        width as i32
    );
    Ok(loss.tensor())
}
