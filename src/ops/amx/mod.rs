//! f32 matrix products on the tile unit (AMX) of newer Intel processors.
//!
//! The unit multiplies bf16 numbers, which carry 8 bits of an f32's 24, at about fifteen times the rate of f32 vector
//! instructions. An f32 is the exact sum of three bf16 parts, x = x₁ + x₂ + x₃ with |x₂| ≤ 2⁻⁹·|x| and
//! |x₃| ≤ 2⁻¹⁸·|x|, so that six products give what f32 arithmetic gives:
//! a·b ≈ a₁b₁ + a₁b₂ + a₂b₁ + a₂b₂ + a₁b₃ + a₃b₁. The three left out are below 2⁻²⁶·|a·b|, less than the rounding of a
//! single f32 product; sums run in f32 (Henry, Tang & Heinecke, Leveraging the bfloat16 Artificial Intelligence
//! Datatype For Higher-Precision Computations, arXiv 1904.06376). What differs: numbers below 2⁻¹⁰⁹ lose bits, and
//! an infinite element makes its sums NaN.

mod pack;
mod tile;

use std::sync::OnceLock;

use rayon::prelude::*;

use super::kernel::{Matrix, Right, Shared};
use pack::{BLOCK, DEPTH, Line, Operand, PANEL_LINES, Side, pack};

/// Depth of one pass over the operands: panels of both sides stay in the first-level cache.
const PASS_DEPTH: usize = 128;
/// Columns of one pass: with [`PASS_DEPTH`], the right operand's parts fit the second-level cache beside a task's rows.
const PASS_COLUMNS: usize = 1024;
/// Rows that are split together.
const TASK_ROWS: usize = 2 * BLOCK;

/// Whether this processor and system have the unit. `LFT_AMX=0` in the environment leaves it alone.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        std::env::var_os("LFT_AMX").is_none_or(|choice| choice != "0")
            && std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512bf16")
            && tile::supported()
            && tile::permitted()
    })
}

/// Rows or columns of products that cost as much as the unit gains by them once the other operand is split.
const SPLITTING: usize = 56;

/// Whether a product of this size and these layouts gains by the unit, where b may be split already.
pub(super) fn applies((m, k, n): (usize, usize, usize), a: &Matrix<'_>, b: &Right<'_>) -> bool {
    let dense = |x: &Matrix<'_>| x.row_stride == 1 || x.col_stride == 1;
    let lines = m + if b.split.is_some() { 0 } else { n };
    k >= DEPTH && m * n >= SPLITTING * lines && dense(a) && dense(&b.matrix) && available()
}

/// A right operand, split and laid out for every pass over it.
pub(crate) struct Split(Vec<Vec<Line>>);

/// Splits `b` (k, n) for many products with it, where the unit is there and reads its layout.
pub(super) fn split((k, n): (usize, usize), b: Matrix<'_>) -> Option<Split> {
    let dense = b.row_stride == 1 || b.col_stride == 1;
    let right = Operand { data: b.data, outer_stride: b.col_stride, depth_stride: b.row_stride };
    let pass = |(depth, columns)| pack_columns(right, columns, depth, true);
    (dense && k >= DEPTH && available()).then(|| Split(passes(k, n).into_iter().map(pass).collect()))
}

/// Depths and columns of every pass over operands, in their order.
fn passes(k: usize, n: usize) -> Vec<(Range, Range)> {
    let depths = (0..k).step_by(PASS_DEPTH).map(|first| first..(first + PASS_DEPTH).min(k));
    let columns = || (0..n).step_by(PASS_COLUMNS).map(|first| first..(first + PASS_COLUMNS).min(n));
    depths.flat_map(|depth| columns().map(move |columns| (depth.clone(), columns))).collect()
}

/// `out = keep·out + scale·a·b + bias`, as [`super::kernel::multiply`], whose checks the caller has made.
///
/// Each thread takes one part of the result through all passes, so that threads wait for each other once.
///
/// # Safety
/// `a`, `b`, `bias` and `out` reach over the sizes given, and [`applies`] said so; `out` need not be initialised where `keep`
/// is 0.
pub(super) unsafe fn matmul(
    (m, k, n): (usize, usize, usize),
    factors: (f32, f32),
    a: Matrix<'_>,
    b: Right<'_>,
    (out, out_stride): (*mut f32, usize),
    parallel: bool,
) {
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    let (rows, columns) = parts((m, n), threads, b.split.is_some());
    let across = n.div_ceil(columns);
    let out = Shared(out);
    let part = |part: usize| {
        let (row, column) = (part / across * rows, part % across * columns);
        let size = (rows.min(m - row), k, columns.min(n - column));
        let a = Matrix { data: &a.data[row * a.row_stride..], ..a };
        let matrix = Matrix { data: &b.matrix.data[column * b.matrix.col_stride..], ..b.matrix };
        let b = Right { matrix, bias: b.bias.map(|bias| &bias[column..][..size.2]), ..b };
        // SAFETY: the caller's promise, and the parts of the result do not overlap.
        unsafe { multiply_part(size, factors, a, b, (out.at(row * out_stride + column), out_stride)) };
    };
    let count = m.div_ceil(rows) * across;
    if count > 1 { (0..count).into_par_iter().for_each(part) } else { part(0) }
}

/// Rows and columns of one thread's part of a result (m, n): of all ways to cut it the one in which a part's rows and
/// columns, all of which are split for the unit, are fewest. A right operand that is split already is not cut.
fn parts((m, n): (usize, usize), threads: usize, whole_right: bool) -> (usize, usize) {
    let side = |length: usize, count: usize| length.div_ceil(count).next_multiple_of(BLOCK);
    let cut = |across: usize| (side(m, threads / across), side(n, across));
    let ways =
        (1..=threads).filter(|across| threads.is_multiple_of(*across) && (*across == 1 || !whole_right));
    let cost = |&(rows, columns): &(usize, usize)| if whole_right { rows } else { rows + columns };
    let (rows, columns) = ways.map(cut).min_by_key(cost).unwrap_or((m, n));
    (rows, if columns >= n { n } else { columns })
}

/// [`matmul`] by one thread.
///
/// # Safety
/// As there.
unsafe fn multiply_part(
    (m, k, n): (usize, usize, usize),
    (keep, scale): (f32, f32),
    a: Matrix<'_>,
    Right { matrix: b, split, bias }: Right<'_>,
    (out, out_stride): (*mut f32, usize),
) {
    let left = Operand { data: a.data, outer_stride: a.row_stride, depth_stride: a.col_stride };
    let right = Operand { data: b.data, outer_stride: b.col_stride, depth_stride: b.row_stride };
    for (pass, (depth, columns)) in passes(k, n).into_iter().enumerate() {
        let (keep, bias) = if depth.start == 0 { (keep, bias) } else { (1.0, None) };
        let bias = bias.map(|bias| &bias[columns.clone()]);
        let packed;
        let panels = match split {
            Some(split) => &split.0[pass],
            None => {
                packed = pack_columns(right, columns.clone(), depth.clone(), false);
                &packed
            }
        };
        for first in (0..m).step_by(TASK_ROWS) {
            let rows = first..(first + TASK_ROWS).min(m);
            // SAFETY: the rows lie inside the sizes given.
            unsafe {
                let corner = out.add(rows.start * out_stride + columns.start);
                let result = tile::Result { corner, stride: out_stride, keep, scale, bias };
                multiply_rows((left, rows, depth.clone()), panels, columns.len(), result);
            }
        }
    }
}

type Range = std::ops::Range<usize>;

fn steps(depth: &Range) -> usize {
    depth.len().div_ceil(DEPTH)
}

/// The right operand's columns as panels.
fn pack_columns(right: Operand<'_>, columns: Range, depth: Range, parallel: bool) -> Vec<Line> {
    let (count, lines) = (columns.len().div_ceil(BLOCK), steps(&depth) * PANEL_LINES);
    let mut panels: Vec<Line> = Vec::with_capacity(count * lines);
    let place = Shared(panels.as_mut_ptr());
    let one = |panel: usize| {
        let first = columns.start + panel * BLOCK;
        let columns = first..(first + BLOCK).min(columns.end);
        // SAFETY: each panel writes its own lines of the capacity reserved.
        unsafe { pack(right, Side::Right, columns, depth.clone(), place.at(panel * lines)) };
    };
    if parallel {
        (0..count).into_par_iter().for_each(one)
    } else {
        (0..count).for_each(one)
    }
    // SAFETY: every line of every panel was written.
    unsafe { panels.set_len(count * lines) };
    panels
}

/// One task: packs its rows of the left operand and multiplies them with all panels.
///
/// # Safety
/// `result` holds the task's rows of so many columns, which nobody else uses.
unsafe fn multiply_rows(
    (left, rows, depth): (Operand<'_>, Range, Range),
    panels: &[Line],
    columns: usize,
    result: tile::Result<'_>,
) {
    let (steps, lines) = (steps(&depth), steps(&depth) * PANEL_LINES);
    let blocks = || rows.clone().step_by(BLOCK).map(|first| first..(first + BLOCK).min(rows.end)).enumerate();
    let mut own: Vec<Line> = Vec::with_capacity(rows.len().div_ceil(BLOCK) * lines);
    let mut block = tile::Block::default();
    // SAFETY: `own` has room for the panels of its rows; panels and block have the sizes that the tile unit reads
    // and writes; the part of a block that is added to the result is cut to the rows and columns that there are.
    unsafe {
        for (i, rows) in blocks() {
            pack(left, Side::Left, rows, depth.clone(), own.as_mut_ptr().add(i * lines));
        }
        tile::configure();
        for (j, panel) in panels.chunks_exact(lines).enumerate() {
            let columns = (columns - j * BLOCK).min(BLOCK);
            for (i, rows) in blocks() {
                tile::multiply(own.as_ptr().add(i * lines), panel.as_ptr(), steps, &mut block);
                tile::add(&block, (rows.len(), columns), result.at(i * BLOCK, j * BLOCK));
            }
        }
        tile::release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel;

    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 2f32.powi((state >> 33) as i32 % 5)
        };
        (0..n).map(|_| next()).collect()
    }

    /// Every layout, sizes that fill no tile, and more than one pass, against sums in f64.
    #[test]
    fn products_are_as_exact_as_f32_arithmetic() {
        if !available() {
            return;
        }
        for (m, k, n) in [(64, 64, 64), (37, 45, 221), (70, 515, 77), (300, 33, 290), (33, 1030, 259)] {
            for (left_turned, right_turned) in [(false, false), (false, true), (true, false), (true, true)] {
                let (a, b) = (values(m * k, 1), values(k * n, 2));
                let matrix = |data, rows, columns, turned| {
                    if turned { Matrix::rows(data, rows).t() } else { Matrix::rows(data, columns) }
                };
                let (a, b) = (matrix(&a[..], m, k, left_turned), matrix(&b[..], k, n, right_turned));
                let stride = n + 3;
                let start = values(m * stride, 3);
                let mut out = start.clone();
                // SAFETY: the three have the sizes given.
                let right = Right::from(b);
                unsafe { matmul((m, k, n), (0.5, 2.0), a, right, (out.as_mut_ptr(), stride), m % 2 == 0) };
                let (bias, split) = (values(n, 4), split((k, n), b));
                let right = Right { split: split.as_ref(), bias: Some(&bias), ..right };
                let mut added = start.clone();
                // SAFETY: as above.
                unsafe { matmul((m, k, n), (0.5, 2.0), a, right, (added.as_mut_ptr(), stride), false) };
                let expected = |(e, x): (usize, &f32)| x + bias.get(e % stride).unwrap_or(&0.0);
                let expected: Vec<f32> = out.iter().enumerate().map(expected).collect();
                let gap = added.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                assert!(gap <= 1e-6 * largest, "({m}, {k}, {n}) with a bias: {gap:e} of {largest:e}");
                let at = |x: &Matrix<'_>, i: usize, j: usize| {
                    f64::from(x.data[i * x.row_stride + j * x.col_stride])
                };
                for i in 0..m {
                    for j in 0..stride {
                        let found = f64::from(out[i * stride + j]);
                        let before = f64::from(start[i * stride + j]);
                        if j >= n {
                            assert_eq!(found, before, "an element beside the result changed");
                            continue;
                        }
                        let sum: f64 = (0..k).map(|p| at(&a, i, p) * at(&b, p, j)).sum();
                        let size: f64 = (0..k).map(|p| (at(&a, i, p) * at(&b, p, j)).abs()).sum();
                        let gap = (found - (0.5 * before + 2.0 * sum)).abs();
                        assert!(
                            gap <= 1e-6 * size + 1e-6,
                            "({m}, {k}, {n}) at ({i}, {j}): {gap:e} of {size:e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn parts_cover_the_result_with_little_to_split() {
        // Columns are cut where there are more of them than rows, and never where the right operand is split already.
        assert_eq!(parts((512, 4096), 2, false), (512, 2048));
        assert_eq!(parts((4096, 512), 2, false), (2048, 512));
        assert_eq!(parts((512, 4096), 2, true), (256, 4096));
        assert_eq!(parts((512, 512), 4, false), (256, 256));
        assert_eq!(parts((33, 70), 1, false), (64, 70));
    }

    /// The root mean square error stays at or below that of the f32 kernels.
    #[test]
    fn errors_are_no_larger_than_those_of_vector_instructions() {
        if !available() {
            return;
        }
        let (m, k, n) = (64, 512, 64);
        let (a, b) = (values(m * k, 4), values(k * n, 5));
        let (a, b) = (Matrix::rows(&a, k), Matrix::rows(&b, n));
        let error = |out: &[f32]| -> f64 {
            let exact = |i: usize, j: usize| -> f64 {
                (0..k).map(|p| f64::from(a.data[i * k + p]) * f64::from(b.data[p * n + j])).sum()
            };
            (0..m * n).map(|e| (f64::from(out[e]) - exact(e / n, e % n)).powi(2)).sum()
        };
        let (mut tiles, mut vectors) = (vec![0f32; m * n], vec![0f32; m * n]);
        // SAFETY: the three have the sizes given.
        unsafe { matmul((m, k, n), (0.0, 1.0), a, b.into(), (tiles.as_mut_ptr(), n), false) };
        kernel::vector_matmul((m, k, n), (0.0, 1.0), a, b, &mut vectors, n, gemm::Parallelism::None);
        assert!(error(&tiles) <= error(&vectors), "{:e} {:e}", error(&tiles), error(&vectors));
    }
}
