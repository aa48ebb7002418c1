//! Attention while a text is generated: heads taken apart, and one new token over all that were seen.

use candle_core::{Result, Storage, Tensor, bail};

use super::activation::elementwise;
use super::memory::{Buffer, address, device, name, storage_address};
use super::module::launch;
use crate::ops::Rotary;

const THREADS: usize = 256;
/// Shared memory of a block, which bounds the tokens seen.
const SHARED_BYTES: usize = 200 * 1024;

/// See [`crate::ops::attention::split`]; records no backward, so it declines where one is needed.
pub fn split(
    qkv: &Tensor,
    rotary: &Rotary,
    heads: usize,
    start: usize,
) -> Result<Option<(Tensor, Tensor, Tensor)>> {
    let [cos, sin] = rotary.tables();
    let (Some(device), Some(kind)) = (device(&[qkv]), name(qkv.dtype())) else { return Ok(None) };
    let (batch, tokens, width) = qkv.dims3()?;
    if qkv.track_op() || start + tokens > rotary.positions() || !cos.device().is_cuda() {
        return Ok(None);
    }
    let (channels, half) = (width / (3 * heads), rotary.rotated() / 2);
    let part = || Buffer::new(&device, (batch, heads, tokens, channels), qkv.dtype());
    let (q, k, v) = (part()?, part()?, part()?);
    let n = batch * tokens * heads * channels;
    let (grid, block) = elementwise(n, 1);
    let [cos, sin] = if half == 0 { [0, 0] } else { [address(cos)?, address(sin)?] };
    launch!(
        device,
        POINTWISE,
        format!("split_heads_{kind}"),
        grid,
        block,
        0,
        address(qkv)?,
        cos,
        sin,
        q.address()?,
        k.address()?,
        v.address()?,
        n as i64,
        tokens as i32,
        start as i32,
        heads as i32,
        channels as i32,
        half as i32
    );
    Ok(Some((q.tensor(), k.tensor(), v.tensor())))
}

/// See [`crate::ops::attention::attend`], for one query a head and without backward.
pub fn attend_one(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Option<Tensor>> {
    let (Some(device), Some(kind)) = (device(&[q]), name(q.dtype())) else { return Ok(None) };
    let (batch, heads, tokens, channels) = q.dims4()?;
    let seen = k.dim(2)?;
    let fits =
        |x: &Tensor| x.dtype() == q.dtype() && x.device().is_cuda() && x.stride()[2..] == [channels, 1];
    let shared = 4 * (THREADS + seen);
    let tracked = [q, k, v].iter().any(|x| x.track_op());
    if tokens != 1 || tracked || channels > THREADS || shared > SHARED_BYTES || !fits(k) || !fits(v) {
        return Ok(None);
    }
    let out = Buffer::new(&device, (batch, 1, heads * channels), q.dtype())?;
    let scale = std::f32::consts::LOG2_E / (channels as f32).sqrt();
    let stride = |x: &Tensor, dim: usize| x.stride()[dim] as i64;
    // The kernel's name is asked for with the most shared memory that it may ever need.
    super::module::function(
        &device.cuda_stream(),
        super::module::ATTENTION_ONE,
        &format!("attention_one_{kind}"),
        SHARED_BYTES as u32,
    )?;
    launch!(
        device,
        ATTENTION_ONE,
        format!("attention_one_{kind}"),
        ((batch * heads) as u32, 1, 1),
        (THREADS as u32, 1, 1),
        shared as u32,
        address(q)?,
        start(k)?,
        start(v)?,
        out.address()?,
        seen as i32,
        heads as i32,
        channels as i32,
        stride(k, 0),
        stride(k, 1),
        stride(v, 0),
        stride(v, 1),
        scale
    );
    Ok(Some(out.tensor()))
}

/// Device address of the first element of a view.
fn start(x: &Tensor) -> Result<u64> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => storage_address(storage, layout.start_offset()),
        _ => bail!("a CUDA kernel was given a tensor of another device"),
    }
}
