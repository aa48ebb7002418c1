//! Products whose right operand is so small that it stays in the first-level cache.
//!
//! Blocked products copy both operands into panels first; with so few columns that costs as much as multiplying. Here a
//! few rows' sums stay in registers while the right operand passes by where it lies.

use std::arch::x86_64::*;

use gemm::Parallelism;
use rayon::prelude::*;

use super::kernel::{Matrix, Shared, Size};
use super::simd::{Width, width};

/// Elements of a vector register.
const LANES: usize = 16;
/// Elements of a right operand that leaves half of the first-level cache to the other two matrices.
const SMALL: usize = 6 * 1024;
/// Rows of a task, a whole number of blocks of any height.
const TASK_ROWS: usize = 192;

/// Whether such a product is done here: rows of the right operand are whole registers, and the processor has AVX-512.
pub(super) fn applies((_, k, n): Size, b: &Matrix<'_>) -> bool {
    n > 0
        && n.is_multiple_of(LANES)
        && k > 0
        && k * n <= SMALL
        && b.col_stride == 1
        && matches!(width(), Width::Avx512)
}

/// One line of the cache, one vector register.
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read by its address")] [f32; LANES]);

/// What is done with the sums: `out = keep·out + scale·sum`.
#[derive(Clone, Copy)]
struct Result {
    corner: *mut f32,
    stride: usize,
    keep: f32,
    scale: f32,
}

/// `out = keep·out + scale·a·b`.
///
/// # Safety
/// `a`, `b` and `out` reach over the sizes given, and [`applies`] said so; `out` need not be initialised where `keep` is 0.
pub(super) unsafe fn matmul(
    (m, k, n): Size,
    (keep, scale): (f32, f32),
    a: Matrix<'_>,
    b: Matrix<'_>,
    (out, stride): (*mut f32, usize),
    parallelism: Parallelism,
) {
    // Loads that cross a line of the cache take twice as long.
    let mut copy: Vec<Line> = Vec::with_capacity(k * n / LANES);
    let lines = (0..k).flat_map(|p| b.data[p * b.row_stride..][..n].as_chunks::<LANES>().0);
    copy.extend(lines.map(|line| Line(*line)));
    let (b, out) = (copy.as_slice(), Shared(out));
    let task = |task: usize| {
        let rows = task * TASK_ROWS..((task + 1) * TASK_ROWS).min(m);
        for first in (0..n).step_by(4 * LANES) {
            // SAFETY: a task writes its own rows of `out`; all accesses are inside the sizes given.
            unsafe {
                let result = Result { corner: out.at(rows.start * stride + first), stride, keep, scale };
                let b = (b.as_ptr().cast::<f32>().add(first), n);
                let a = Matrix { data: &a.data[rows.start * a.row_stride..], ..a };
                match (n - first) / LANES {
                    1 => all_rows::<24, 1>((rows.len(), k), a, b, result),
                    2 => all_rows::<12, 2>((rows.len(), k), a, b, result),
                    3 => all_rows::<8, 3>((rows.len(), k), a, b, result),
                    _ => all_rows::<6, 4>((rows.len(), k), a, b, result),
                }
            }
        }
    };
    let tasks = m.div_ceil(TASK_ROWS);
    match parallelism {
        Parallelism::None => (0..tasks).for_each(task),
        Parallelism::Rayon(_) => (0..tasks).into_par_iter().for_each(task),
    }
}

/// So many rows, in blocks of `R` and then one by one, by `V` registers of columns.
///
/// # Safety
/// As [`matmul`].
#[target_feature(enable = "avx512f")]
unsafe fn all_rows<const R: usize, const V: usize>(
    (rows, k): (usize, usize),
    a: Matrix<'_>,
    b: (*const f32, usize),
    result: Result,
) {
    let whole = rows / R * R;
    for row in (0..whole).step_by(R) {
        // SAFETY: the caller's promise.
        unsafe { block::<R, V>(row, k, a, b, result) };
    }
    for row in whole..rows {
        // SAFETY: the caller's promise.
        unsafe { block::<1, V>(row, k, a, b, result) };
    }
}

/// # Safety
/// As [`matmul`], for `R` rows from `row` on.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn block<const R: usize, const V: usize>(
    row: usize,
    k: usize,
    a: Matrix<'_>,
    (b, b_stride): (*const f32, usize),
    Result { corner, stride, keep, scale }: Result,
) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: the caller's promise, here and below.
    let left = unsafe { a.data.as_ptr().add(row * a.row_stride) };
    for p in 0..k {
        let columns: [__m512; V] =
            std::array::from_fn(|v| unsafe { _mm512_load_ps(b.add(p * b_stride + v * LANES)) });
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = unsafe { _mm512_set1_ps(*left.add(r * a.row_stride + p * a.col_stride)) };
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = _mm512_fmadd_ps(x, column, *sum);
            }
        }
    }
    let (keep_all, scale_all) = (_mm512_set1_ps(keep), _mm512_set1_ps(scale));
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            unsafe {
                let place = corner.add((row + r) * stride + v * LANES);
                let scaled = _mm512_mul_ps(scale_all, *sum);
                let value = match keep == 0.0 {
                    true => scaled,
                    false => _mm512_fmadd_ps(keep_all, _mm512_loadu_ps(place), scaled),
                };
                _mm512_storeu_ps(place, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 8e6 - 1.0)
            .collect()
    }

    /// Every width, either layout on the left, rows that fill no block, with and without what was there before.
    #[test]
    fn products_agree_with_sums_in_f64() {
        for (m, k, n) in [(1, 1, 16), (37, 45, 32), (200, 64, 64), (391, 33, 48), (29, 20, 144), (50, 16, 80)]
        {
            for (turned, keep, parallelism) in [
                (false, 0.0, Parallelism::None),
                (true, 0.5, Parallelism::Rayon(0)),
                (true, 0.0, Parallelism::None),
            ] {
                let (a, stride) = (values(m * k, 1), n + 3);
                let b = values(k * (n + 2), 2);
                let b = Matrix { data: &b, row_stride: n + 2, col_stride: 1 };
                if !applies((m, k, n), &b) {
                    return;
                }
                let a = if turned { Matrix::rows(&a, m).t() } else { Matrix::rows(&a, k) };
                let start = match keep == 0.0 {
                    true => vec![f32::NAN; m * stride],
                    false => values(m * stride, 3),
                };
                let mut out = start.clone();
                // SAFETY: the three have the sizes given.
                unsafe { matmul((m, k, n), (keep, 2.0), a, b, (out.as_mut_ptr(), stride), parallelism) };
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let term = |p: usize| {
                        f64::from(a.data[i * a.row_stride + p * a.col_stride])
                            * f64::from(b.data[p * b.row_stride + j])
                    };
                    let before = if keep == 0.0 { 0.0 } else { f64::from(keep * start[i * stride + j]) };
                    let expected = before + 2.0 * (0..k).map(term).sum::<f64>();
                    let found = f64::from(out[i * stride + j]);
                    assert!(
                        (found - expected).abs() < 1e-5,
                        "({m}, {k}, {n}) at ({i}, {j}): {found} {expected}"
                    );
                }
                let beside = (0..m).flat_map(|i| (n..stride).map(move |j| i * stride + j));
                assert!(
                    beside.into_iter().all(|e| out[e].to_bits() == start[e].to_bits()),
                    "a write beside the result"
                );
            }
        }
    }
}
