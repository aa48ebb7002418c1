//! Low-rank updates of a layer's maps at one time, made before the products they take part in.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, result::memcpy_dtod_async};
use candle_core::{CudaDevice, DType, Result, Tensor};

use super::gemm::{Factor, Product};
use super::graph::record3;
use super::maps::{Maps, Part};
use super::memory::{Buffer, address, device};
use super::module::launch;

/// The factors B (O, r) and then A (r, I) of a layer's four maps, joined to one f32 vector.
#[derive(Clone)]
pub struct Factors {
    flat: Tensor,
    rank: usize,
    ups: Ups,
    downs: [usize; 4],
}

/// Where the factors B begin and how many rows they have, laid out as in low_rank.cu.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Ups {
    start: [i64; 4],
    rows: [i32; 4],
}

// SAFETY: plain numbers in the kernel's layout.
unsafe impl DeviceRepr for Ups {}

impl Factors {
    /// Joins the factors of four maps, in the order of [`Maps`]; gradients reach them as if they were used directly.
    ///
    /// # Shapes
    /// `up` (O, r) and `down` (r, I) of each map.
    pub fn new(up: &[Tensor], down: &[Tensor]) -> Result<Self> {
        let (mut ups, mut downs, mut length) = (Ups::default(), [0; 4], 0);
        for (i, tensor) in up.iter().enumerate().take(4) {
            (ups.start[i], ups.rows[i]) = (length as i64, tensor.dim(0)? as i32);
            length += tensor.elem_count();
        }
        for (start, tensor) in downs.iter_mut().zip(down) {
            *start = length;
            length += tensor.elem_count();
        }
        let rank = down.first().map_or(Ok(0), |tensor| tensor.dim(0))?;
        let flat = up.iter().chain(down).map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?;
        Ok(Self { flat: Tensor::cat(&flat, 0)?, rank, ups, downs })
    }

    /// `to = from⊙s`, and into `sums` the sums over rows of `from⊙B`, where wanted; vectors laid out as the factors.
    fn scale(
        &self,
        device: &CudaDevice,
        (from, weights): (u64, u64),
        scales: &Tensor,
        (to, sums): (u64, u64),
    ) -> Result<()> {
        launch!(
            device,
            LOW_RANK,
            "low_rank_scale",
            (self.rank.div_ceil(32) as u32, 4, 1),
            (32, 32, 1),
            0,
            from,
            weights,
            address(scales)?,
            to,
            sums,
            self.ups,
            self.rank as i32
        );
        Ok(())
    }

    /// Memory for the factors B alone.
    fn ups(&self, device: &CudaDevice) -> Result<Buffer> {
        Buffer::new(device, self.downs[0], DType::F32)
    }

    /// Addresses of the i-th B and A in a vector at `flat` that is laid out as the factors.
    fn up(&self, i: usize, flat: u64) -> u64 {
        flat + 4 * self.ups.start[i] as u64
    }

    fn down(&self, i: usize, flat: u64) -> u64 {
        flat + 4 * self.downs[i] as u64
    }
}

impl Maps {
    /// The same with `W + B·diag(s)·A` in place of each weight W. `None` where the operands lie elsewhere.
    ///
    /// # Shapes
    /// `scales` (1, 4·r).
    pub fn updated(&self, factors: &Factors, scales: &Tensor) -> Result<Option<Self>> {
        let operands = [&self.flat, &factors.flat, scales];
        let Some(device) = device(&operands) else { return Ok(None) };
        if operands.iter().any(|t| t.dtype() != DType::F32) || scales.elem_count() != 4 * factors.rank {
            return Ok(None);
        }
        let out = Buffer::new(&device, self.flat.shape(), DType::F32)?;
        let bytes = size_of::<f32>() * self.flat.elem_count();
        let stream = device.cuda_stream();
        // SAFETY: both vectors have that many bytes, and live in the order of this one stream.
        unsafe { memcpy_dtod_async(out.address()?, address(&self.flat)?, bytes, stream.cu_stream()) }.w()?;
        let scaled = factors.ups(&device)?;
        let flat = address(&factors.flat)?;
        factors.scale(&device, (flat, 0), scales, (scaled.address()?, 0))?;
        for (i, part) in self.parts.iter().enumerate() {
            let weight = out.address()? + 4 * part.weight as u64;
            let (up, down) = (factors.up(i, scaled.address()?), factors.down(i, flat));
            product(
                &device,
                (up, factors.rank, false),
                (down, part.inputs, false),
                weight,
                Some(weight),
                [part.outputs, factors.rank, part.inputs],
            )?;
        }
        let (kept, parts, scaled) = (factors.clone(), self.parts, scaled.tensor());
        let flat = record3(operands, "low_rank", out, move |[_, flat, scales], _, grad| {
            let (d_flat, d_scales) = kept.backward(&parts, flat, scales, &scaled, grad)?;
            Ok([Some(grad.clone()), Some(d_flat), Some(d_scales)])
        })?;
        let rounded = flat.detach().to_dtype(self.rounded.dtype())?;
        Ok(Some(Self { flat, rounded, ..self.clone() }))
    }
}

impl Factors {
    /// With G the slope of `W + B·diag(s)·A` and `M = G·Aᵀ`: `dB = M·diag(s)`, `ds = Σ over rows of B⊙M` and
    /// `dA = (B·diag(s))ᵀ·G`.
    fn backward(
        &self,
        parts: &[Part; 4],
        flat: &Tensor,
        scales: &Tensor,
        scaled: &Tensor,
        grad: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let device = flat.device().as_cuda_device()?;
        let (d_flat, d_scales) = (
            Buffer::new(device, flat.shape(), DType::F32)?,
            Buffer::new(device, scales.shape(), DType::F32)?,
        );
        let (m, rank) = (self.ups(device)?, self.rank);
        for (i, part) in parts.iter().enumerate() {
            let slope = address(grad)? + 4 * part.weight as u64;
            let Part { outputs, inputs, .. } = *part;
            let down = self.down(i, address(flat)?);
            let to = self.up(i, m.address()?);
            product(device, (slope, inputs, false), (down, inputs, true), to, None, [outputs, inputs, rank])?;
            let up = self.up(i, address(scaled)?);
            let to = self.down(i, d_flat.address()?);
            product(device, (up, rank, true), (slope, inputs, false), to, None, [rank, outputs, inputs])?;
        }
        let (from, to) = ((m.address()?, address(flat)?), (d_flat.address()?, d_scales.address()?));
        self.scale(device, from, scales, to)?;
        Ok((d_flat.tensor(), d_scales.tensor()))
    }
}

/// `out (m, n) = a (m, k) · b (k, n) + added` in f32; a factor is its address, the width of its rows in memory, and whether
/// its transpose is meant.
fn product(
    device: &CudaDevice,
    a: (u64, usize, bool),
    b: (u64, usize, bool),
    out: u64,
    added: Option<u64>,
    [m, k, n]: [usize; 3],
) -> Result<()> {
    let factor = |(address, width, transposed)| Factor { address, width, transposed };
    Product {
        size: (m, k, n),
        a: factor(a),
        b: factor(b),
        dtype: DType::F32,
        bias: None,
        out,
        out_dtype: DType::F32,
        added,
    }
    .run(device)
}
