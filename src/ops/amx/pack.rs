//! Splitting f32 operands into three bf16 parts, laid out as the tile unit reads them.

use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of a tile, and columns of a tile of the result.
const TILE: usize = 16;
/// bf16 numbers of one tile row: how far a tile reaches along the summed dimension.
pub(super) const DEPTH: usize = 32;
/// bf16 parts of an f32.
pub(super) const PARTS: usize = 3;
/// Rows or columns of one panel, two tiles side by side.
pub(super) const BLOCK: usize = 2 * TILE;
/// Cache lines of one depth of a panel: two tiles of each part.
pub(super) const PANEL_LINES: usize = 2 * PARTS * TILE;

/// One row of a tile.
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// An operand by its memory: `outer` counts rows of the left or columns of the right one, `depth` the summed dimension.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub data: &'a [f32],
    pub outer_stride: usize,
    pub depth_stride: usize,
}

/// Which of the unit's two layouts a tile has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// 16 rows of 32 consecutive depths.
    Left,
    /// 16 pairs of depths, each with 16 columns side by side.
    Right,
}

/// Packs at most [`BLOCK`] outer positions as one panel: for every [`DEPTH`] of the range the parts 1, 2, 3 of two
/// tiles; what the operand does not fill is zero.
///
/// # Safety
/// The operand reaches over both ranges, one of its strides is 1, `out` has room for [`PANEL_LINES`] lines for every
/// started [`DEPTH`], and the processor has the instructions that [`super::available`] asks for.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack(
    x: Operand<'_>,
    side: Side,
    outer: Range<usize>,
    depth: Range<usize>,
    out: *mut Line,
) {
    for (step, first) in depth.clone().step_by(DEPTH).enumerate() {
        let depth = first..(first + DEPTH).min(depth.end);
        for half in 0..2 {
            let start = (outer.start + half * TILE).min(outer.end);
            let outer = start..(start + TILE).min(outer.end);
            // SAFETY: the caller's promises; a tile is 16 lines, and part p of this half lies behind 2·p tiles.
            unsafe {
                let place = out.add(step * PANEL_LINES + half * TILE);
                if x.depth_stride == 1 {
                    along_depth(x, outer, depth.clone(), place);
                } else {
                    across_depth(x, outer, depth.clone(), place);
                }
                if (x.depth_stride == 1) == (side == Side::Right) {
                    (0..PARTS).for_each(|p| turn(place.add(p * BLOCK)));
                }
            }
        }
    }
}

type Tile = [__m512i; TILE];

/// Tile rows are outer positions: 32 depths, which are consecutive in memory.
///
/// # Safety
/// As [`pack`], for a tile at `place`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along_depth(x: Operand<'_>, outer: Range<usize>, depth: Range<usize>, place: *mut Line) {
    let (low, high) = (first_lanes(depth.len()), first_lanes(depth.len().saturating_sub(16)));
    for r in 0..TILE {
        let filled = r < outer.len();
        let (low, high) = if filled { (low, high) } else { (0, 0) };
        // SAFETY: the masks keep the loads inside the row. What is fetched ahead may lie anywhere.
        unsafe {
            let row = x.data.as_ptr().wrapping_add((outer.start + r) * x.outer_stride + depth.start);
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(DEPTH).cast());
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(DEPTH + 16).cast());
            let (a, b) = (_mm512_maskz_loadu_ps(low, row), _mm512_maskz_loadu_ps(high, row.wrapping_add(16)));
            put(place.add(r), split(a, b));
        }
    }
}

/// Tile rows are pairs of depths: 16 outer positions, which are consecutive in memory, each with its two depths.
///
/// # Safety
/// As [`along_depth`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn across_depth(x: Operand<'_>, outer: Range<usize>, depth: Range<usize>, place: *mut Line) {
    let lanes = first_lanes(outer.len());
    let interleave = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18,
        2, 17, 1, 16, 0,
    );
    for r in 0..TILE {
        let d = depth.start + 2 * r;
        let lanes_of = |d: usize| if d < depth.end { lanes } else { 0 };
        // SAFETY: the masks keep the loads inside the rows; a depth beyond the range has no lanes. What is fetched ahead
        // may lie anywhere.
        unsafe {
            let row = x.data.as_ptr().wrapping_add(d * x.depth_stride + outer.start);
            // Rows are too far apart for the processor to guess the next ones.
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(DEPTH * x.depth_stride).cast());
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add((DEPTH + 1) * x.depth_stride).cast());
            let a = _mm512_maskz_loadu_ps(lanes_of(d), row);
            let b = _mm512_maskz_loadu_ps(lanes_of(d + 1), row.wrapping_add(x.depth_stride));
            put(place.add(r), split(a, b).map(|part| _mm512_permutexvar_epi16(interleave, part)));
        }
    }
}

/// Writes one row of each part's tile.
///
/// # Safety
/// The parts' tiles begin at the row's place, two tiles apart.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn put(place: *mut Line, parts: [__m512i; PARTS]) {
    for (p, part) in parts.into_iter().enumerate() {
        // SAFETY: the caller's promise; lines are aligned.
        unsafe { _mm512_store_si512(place.add(p * BLOCK).cast(), part) };
    }
}

/// Turns the tile at `place` where it lies.
///
/// # Safety
/// A tile was written there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn turn(place: *mut Line) {
    // SAFETY: the caller's promise; lines are aligned.
    let rows: Tile = std::array::from_fn(|r| unsafe { _mm512_load_si512(place.add(r).cast()) });
    for (r, row) in transpose(&rows).into_iter().enumerate() {
        // SAFETY: as above.
        unsafe { _mm512_store_si512(place.add(r).cast(), row) };
    }
}

/// A mask of the first `n` of sixteen lanes.
fn first_lanes(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

/// The parts of 32 numbers, those of `a` in the lower half: each part rounds what the ones before it left over.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn split(mut a: __m512, mut b: __m512) -> [__m512i; PARTS] {
    std::array::from_fn(|_| {
        // SAFETY: both are 512 bits.
        let part: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(b, a)) };
        let widen = |half| _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
        a = _mm512_sub_ps(a, widen(_mm512_castsi512_si256(part)));
        b = _mm512_sub_ps(b, widen(_mm512_extracti64x4_epi64(part, 1)));
        part
    })
}

/// The transpose of 16 × 16 elements of 32 bits, by halves of ever larger groups.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(x: &Tile) -> Tile {
    // Afterwards pairs[2i] holds columns 0 and 1 (of every four) of rows 2i and 2i + 1, pairs[2i + 1] columns 2 and 3.
    let pairs: Tile = std::array::from_fn(|i| {
        let (a, b) = (x[i & !1], x[i | 1]);
        if i & 1 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
    });
    // Afterwards fours[4i + j] holds, in its 128-bit lane l, column 4l + j of rows 4i to 4i + 3.
    let fours: Tile = std::array::from_fn(|i| {
        let (base, j) = (i & !3, i & 3);
        let (a, b) = (pairs[base + j / 2], pairs[base + 2 + j / 2]);
        if j & 1 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
    });
    std::array::from_fn(|column| {
        let (lane, j) = (column / 4, column % 4);
        // Lanes 0 and 2, or 1 and 3, of two registers; then the wanted one of each pair.
        let (ab, cd) = if lane % 2 == 0 {
            (
                _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0b10_00_10_00),
                _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0b10_00_10_00),
            )
        } else {
            (
                _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0b11_01_11_01),
                _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0b11_01_11_01),
            )
        };
        if lane < 2 {
            _mm512_shuffle_i32x4(ab, cd, 0b10_00_10_00)
        } else {
            _mm512_shuffle_i32x4(ab, cd, 0b11_01_11_01)
        }
    })
}
