//! What the CPU kernels share: access to tensor memory, sums and matrix products.

use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};
use gemm::Parallelism;

/// Work of one parallel task, in elements: large enough to hide the cost of handing it out.
pub(crate) const GRAIN: usize = 16 * 1024;

/// True if all operands are contiguous, non-empty f32 tensors on the CPU, so that a fused kernel applies.
pub(crate) fn applies(operands: &[&Tensor]) -> bool {
    let fits = |x: &&Tensor| {
        x.dtype() == DType::F32
            && matches!(x.device(), Device::Cpu)
            && x.is_contiguous()
            && x.elem_count() > 0
    };
    operands.iter().all(fits)
}

/// The elements of a contiguous f32 CPU tensor.
pub(crate) fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else { bail!("a fused kernel was given a tensor that is not f32") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("a fused kernel was given a tensor that is not contiguous"),
    }
}

/// Calls `body` with the elements of each tensor.
pub(crate) fn with_elements<const N: usize, R>(
    tensors: [&Tensor; N],
    body: impl FnOnce([&[f32]; N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices = [&[] as &[f32]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else {
            bail!("a CPU kernel was given a tensor of another device")
        };
        *slice = elements(storage, layout)?;
    }
    body(slices)
}

/// A read-only matrix by its memory: element (i, j) lies at `data[i·rows + j·cols]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `width` consecutive elements.
    pub fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, row_stride: width, col_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        Self { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn reach(&self, rows: usize, cols: usize) -> usize {
        if rows == 0 || cols == 0 {
            0
        } else {
            (rows - 1) * self.row_stride + (cols - 1) * self.col_stride + 1
        }
    }
}

/// `out = keep·out + scale·a·b` with `a` (m, k), `b` (k, n) and `out` (m, n) in rows `out_stride` apart.
pub(crate) fn matmul(
    (m, k, n): (usize, usize, usize),
    (keep, scale): (f32, f32),
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    out_stride: usize,
    parallelism: Parallelism,
) {
    if m == 0 || n == 0 {
        return;
    }
    check((m, k, n), &a, &b, out, out_stride);
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if super::amx::applies((m, k, n), &a, &b) {
        let parallel = !matches!(parallelism, Parallelism::None);
        // SAFETY: the sizes were checked, and the unit is there.
        unsafe { super::amx::matmul((m, k, n), (keep, scale), a, b, out.as_mut_ptr(), out_stride, parallel) };
        return;
    }
    vector_matmul((m, k, n), (keep, scale), a, b, out, out_stride, parallelism);
}

fn check((m, k, n): (usize, usize, usize), a: &Matrix<'_>, b: &Matrix<'_>, out: &[f32], out_stride: usize) {
    assert!(a.data.len() >= a.reach(m, k), "matmul: left operand too short");
    assert!(b.data.len() >= b.reach(k, n), "matmul: right operand too short");
    assert!(out.len() >= (m - 1) * out_stride + n && out_stride >= n, "matmul: result too short");
}

/// [`matmul`] by vector instructions.
pub(crate) fn vector_matmul(
    (m, k, n): (usize, usize, usize),
    (keep, scale): (f32, f32),
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    out_stride: usize,
    parallelism: Parallelism,
) {
    check((m, k, n), &a, &b, out, out_stride);
    // SAFETY: the checks above keep every access inside the three slices, and `out` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            keep != 0.0,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            keep,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// All threads of the current pool.
pub(crate) fn all_threads() -> Parallelism {
    Parallelism::Rayon(rayon::current_num_threads())
}

/// `Σ f(x₀[i], x₁[i], …)` over slices of one length, in sixteen lanes that become one or two vector registers.
#[inline(always)]
pub(crate) fn lane_sum<const N: usize>(slices: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let parts = slices.map(|s| s.as_chunks::<16>());
    let blocks = parts.iter().map(|(blocks, _)| blocks.len()).min().unwrap_or(0);
    for i in 0..blocks {
        let block = parts.map(|(blocks, _)| &blocks[i]);
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane += f(block.map(|b| b[j]));
        }
    }
    let rest = parts.iter().map(|(_, rest)| rest.len()).min().unwrap_or(0);
    (0..rest).map(|i| f(parts.map(|(_, rest)| rest[i]))).sum::<f32>() + lanes.iter().sum::<f32>()
}

/// Largest element, in sixteen lanes as [`lane_sum`].
#[inline(always)]
pub(crate) fn lane_max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (blocks, rest) = x.as_chunks::<16>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(m, &x)| *m = m.max(x));
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &x| m.max(x))
}

/// Adds the rows of the partial sums in order, so that the result does not depend on thread timing.
pub(crate) fn fold_rows(partial: &[f32], width: usize) -> Vec<f32> {
    let mut total = vec![0f32; width];
    for row in partial.chunks_exact(width) {
        total.iter_mut().zip(row).for_each(|(t, x)| *t += x);
    }
    total
}
