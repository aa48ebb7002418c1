//! What the CPU kernels share: access to tensor memory, sums and matrix products.

use std::cell::Cell;
use std::mem::MaybeUninit;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use gemm::Parallelism;
use rayon::prelude::*;

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
        *slice = stored(storage, layout)?;
    }
    body(slices)
}

/// The same for any number of tensors.
pub(crate) fn with_all<R>(tensors: &[Tensor], body: impl FnOnce(&[&[f32]]) -> Result<R>) -> Result<R> {
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let slices =
        guards.iter().map(|(storage, layout)| stored(storage, layout)).collect::<Result<Vec<_>>>()?;
    body(&slices)
}

/// Calls `body` with the elements of a contiguous f32 CPU tensor, to be changed in place.
pub(crate) fn with_elements_mut<R>(tensor: &Tensor, body: impl FnOnce(&mut [f32]) -> Result<R>) -> Result<R> {
    let call = Change { body: Cell::new(Some(body)), result: Cell::new(None) };
    tensor.inplace_op1(&call)?;
    call.result.into_inner().unwrap_or_else(|| bail!("an in-place kernel did not run"))
}

/// candle gives mutable memory to operations alone; this one hands it on, once.
struct Change<F, R> {
    body: Cell<Option<F>>,
    result: Cell<Option<Result<R>>>,
}

impl<F: FnOnce(&mut [f32]) -> Result<R>, R> InplaceOp1 for Change<F, R> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("an in-place kernel was given a tensor that is not contiguous f32")
        };
        self.result.set(self.body.take().map(|body| body(&mut data[start..end])));
        Ok(())
    }
}

fn stored<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => elements(storage, layout),
        _ => bail!("a CPU kernel was given a tensor of another device"),
    }
}

/// A place in memory that several tasks write disjoint parts of.
pub(crate) struct Shared<T>(pub *mut T);

// SAFETY: the tasks that share it write disjoint parts.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `offset` lies inside the memory.
    pub unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// A vector of `len` elements, made by `write`.
///
/// # Safety
/// `write` writes every element of what it is given.
pub(crate) unsafe fn written(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    write(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the caller's promise.
    unsafe { out.set_len(len) };
    out
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

/// The right operand of a product, and what is added to each row of the result.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    pub matrix: Matrix<'a>,
    /// The same matrix split for the tile unit, where it was.
    pub split: Option<&'a Split>,
    /// One for each column.
    pub bias: Option<&'a [f32]>,
}

impl<'a> From<Matrix<'a>> for Right<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self { matrix, split: None, bias: None }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use super::amx::Split;

/// There is no tile unit.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) enum Split {}

/// Splits `b` (k, n) for the tile unit, where that pays for many products with it.
pub(crate) fn split(_size: (usize, usize), _b: Matrix<'_>) -> Option<Split> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return super::amx::split(_size, _b);
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    None
}

/// `out = keep·out + scale·a·b` with `a` (m, k), `b` (k, n) and `out` (m, n) in rows `out_stride` apart.
pub(crate) fn matmul(
    size: Size,
    factors: (f32, f32),
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    out_stride: usize,
    parallelism: Parallelism,
) {
    product_into(size, factors, a, b.into(), out, out_stride, parallelism);
}

/// [`matmul`] with a bias that is added, and a right operand that may be split already.
pub(crate) fn product_into(
    size: Size,
    factors: (f32, f32),
    a: Matrix<'_>,
    b: Right<'_>,
    out: &mut [f32],
    out_stride: usize,
    parallelism: Parallelism,
) {
    check_operands(size, &a, &b);
    check_result(size, out, out_stride);
    // SAFETY: the three have the sizes given.
    unsafe { multiply(size, factors, a, b, out.as_mut_ptr(), out_stride, parallelism) }
}

/// `a·b` with `a` (m, k) and `b` (k, n), and the bias where there is one.
pub(crate) fn product<'a>(
    size: Size,
    a: Matrix<'_>,
    b: impl Into<Right<'a>>,
    parallelism: Parallelism,
) -> Vec<f32> {
    let ((m, k, n), b) = (size, b.into());
    if k == 0 {
        return b.bias.map_or_else(|| vec![0.0; m * n], |bias| bias.repeat(m));
    }
    check_operands(size, &a, &b);
    // Memory that is written whole need not be zeroed before.
    let mut out = Vec::with_capacity(m * n);
    // SAFETY: the operands have the sizes given, and `out` room for m rows of n; the product writes every element, since
    // it keeps nothing of what was there.
    unsafe {
        multiply(size, (0.0, 1.0), a, b, out.as_mut_ptr(), n, parallelism);
        out.set_len(m * n);
    }
    out
}

/// [`matmul`] by vector instructions.
pub(crate) fn vector_matmul(
    size: Size,
    factors: (f32, f32),
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    out_stride: usize,
    parallelism: Parallelism,
) {
    check_operands(size, &a, &b.into());
    check_result(size, out, out_stride);
    // SAFETY: the three have the sizes given.
    unsafe { vector_multiply(size, factors, a, b, out.as_mut_ptr(), out_stride, parallelism) }
}

/// (m, k, n) of a product (m, k) by (k, n).
pub(crate) type Size = (usize, usize, usize);

fn check_operands((m, k, n): Size, a: &Matrix<'_>, b: &Right<'_>) {
    assert!(a.data.len() >= a.reach(m, k), "matmul: left operand too short");
    assert!(b.matrix.data.len() >= b.matrix.reach(k, n), "matmul: right operand too short");
    assert!(b.bias.is_none_or(|bias| bias.len() == n), "matmul: a bias for every column");
}

fn check_result((m, _, n): Size, out: &[f32], out_stride: usize) {
    let fits = m == 0 || n == 0 || out.len() >= (m - 1) * out_stride + n;
    assert!(fits && out_stride >= n, "matmul: result too short");
}

/// [`product_into`] without checks.
///
/// # Safety
/// `a`, `b` and `out` reach over the sizes given; `out` need not be initialised where `keep` is 0.
pub(crate) unsafe fn multiply(
    (m, k, n): Size,
    (keep, scale): (f32, f32),
    a: Matrix<'_>,
    b: Right<'_>,
    out: *mut f32,
    out_stride: usize,
    parallelism: Parallelism,
) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if !is_narrow((m, k, n), &b.matrix) && super::amx::applies((m, k, n), &a, &b) {
        let parallel = !matches!(parallelism, Parallelism::None);
        // SAFETY: the caller's promise, and the unit is there.
        unsafe { super::amx::matmul((m, k, n), (keep, scale), a, b, (out, out_stride), parallel) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let keep = match b.bias {
            Some(bias) => {
                let (parallel, place) = (!matches!(parallelism, Parallelism::None), Shared(out));
                let row = |row: usize| begin(place.at(row * out_stride), keep, bias);
                if parallel {
                    (0..m).into_par_iter().for_each(row)
                } else {
                    (0..m).for_each(row)
                }
                1.0
            }
            None => keep,
        };
        vector_multiply((m, k, n), (keep, scale), a, b.matrix, out, out_stride, parallelism);
    }
}

/// Whether the right operand is so small that its product does without panels.
fn is_narrow(_size: Size, _b: &Matrix<'_>) -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::narrow::applies(_size, _b);
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `out = keep·out + bias`.
///
/// # Safety
/// `out` has room for the bias; it need not be initialised where `keep` is 0.
unsafe fn begin(out: *mut f32, keep: f32, bias: &[f32]) {
    for (i, bias) in bias.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { out.add(i).write(if keep == 0.0 { *bias } else { keep * out.add(i).read() + bias }) };
    }
}

/// # Safety
/// As [`multiply`].
unsafe fn vector_multiply(
    (m, k, n): Size,
    (keep, scale): (f32, f32),
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: *mut f32,
    out_stride: usize,
    parallelism: Parallelism,
) {
    #[cfg(target_arch = "x86_64")]
    if is_narrow((m, k, n), &b) {
        // SAFETY: the caller's promise.
        return unsafe {
            super::narrow::matmul((m, k, n), (keep, scale), a, b, (out, out_stride), parallelism)
        };
    }
    // SAFETY: the caller's promise keeps every access inside the three.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
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

/// Lanes of a sum, which become one or two vector registers.
const LANES: usize = 16;

/// `Σ f(x₀[i], x₁[i], …)` over slices of one length, in lanes.
#[inline(always)]
pub(crate) fn lane_sum<const N: usize>(slices: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let parts = slices.map(|s| s.as_chunks::<LANES>());
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

/// Largest element that is a number, in lanes as [`lane_sum`].
#[inline(always)]
pub(crate) fn lane_max(x: &[f32]) -> f32 {
    // One instruction, where `f32::max` takes three: it also asks whether the left side is a number.
    let larger = |m: f32, x: f32| if x > m { x } else { m };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(m, &x)| *m = larger(*m, x));
    }
    rest.iter().fold(fold(lanes, larger), |m, &x| larger(m, x))
}

/// Folds the lanes, in four columns first, which become one vector register.
#[inline(always)]
fn fold(lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let column = |i: usize| f(f(lanes[i], lanes[i + 4]), f(lanes[i + 8], lanes[i + 12]));
    let columns: [f32; 4] = std::array::from_fn(column);
    f(f(columns[0], columns[1]), f(columns[2], columns[3]))
}

/// Sums of the columns of rows of `width`.
pub(crate) fn column_sums(rows: &[f32], width: usize) -> Vec<f32> {
    let partial: Vec<Vec<f32>> = rows.par_chunks(width * 128).map(|block| fold_rows(block, width)).collect();
    fold_rows(&partial.concat(), width)
}

/// Adds the rows of the partial sums in order, so that the result does not depend on thread timing.
pub(crate) fn fold_rows(partial: &[f32], width: usize) -> Vec<f32> {
    let mut total = vec![0f32; width];
    for row in partial.chunks_exact(width) {
        total.iter_mut().zip(row).for_each(|(t, x)| *t += x);
    }
    total
}
