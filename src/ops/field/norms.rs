//! The two modulated norms of one input, in one pass.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::super::kernel::{lane_sum, written};
use super::super::layer_norm::moments;
use super::super::simd::vectorised;
use super::modulation::Modulation;

/// Rows of a task.
const ROWS: usize = 64;

/// `x̂⊙scale_i + shift_i` for both branches, with `x̂ = (x − mean)/√(var + eps)` row by row.
pub(super) fn forward(x: &[f32], modulation: &Modulation, eps: f32) -> [Vec<f32>; 2] {
    let d = modulation.width();
    let group = x.len() / modulation.groups();
    let mut first = Vec::with_capacity(x.len());
    let write_both = |second: &mut [Cell]| {
        let first: &mut [Cell] = &mut first.spare_capacity_mut()[..x.len()];
        let outputs = first.par_chunks_mut(group).zip(second.par_chunks_mut(group));
        outputs.zip(x.par_chunks(group)).enumerate().for_each(|(g, ((first, second), x))| {
            let outputs = first.par_chunks_mut(ROWS * d).zip(second.par_chunks_mut(ROWS * d));
            outputs.zip(x.par_chunks(ROWS * d)).for_each(|((first, second), x)| {
                forward_rows(x, modulation.norms(g), eps, first, second);
            });
        });
    };
    // SAFETY: the blocks cover the elements of x, a whole number of rows.
    unsafe {
        let second = written(x.len(), write_both);
        first.set_len(x.len());
        [first, second]
    }
}

type Cell = MaybeUninit<f32>;

/// The slope of x, in the memory of the first branch's; `on_x` is added to it. The slopes of scales and shifts go to
/// `slopes`.
pub(super) fn backward(
    x: &[f32],
    [mut first, second]: [Vec<f32>; 2],
    on_x: Option<&[f32]>,
    (modulation, eps): (&Modulation, f32),
    slopes: &mut Modulation,
) -> Vec<f32> {
    let d = modulation.width();
    let group = x.len() / modulation.groups();
    for (g, (first, start)) in first.chunks_exact_mut(group).zip((0..).step_by(group)).enumerate() {
        let tasks = first.par_chunks_mut(ROWS * d).enumerate();
        let partial: Vec<Vec<f32>> = tasks
            .map(|(i, first)| {
                let range = start + i * ROWS * d..start + i * ROWS * d + first.len();
                let mut sums = vec![0f32; 4 * d];
                let (x, second) = (&x[range.clone()], &second[range.clone()]);
                backward_rows(x, (first, second), modulation.norms(g), eps, &mut sums);
                if let Some(on_x) = on_x {
                    first.iter_mut().zip(&on_x[range]).for_each(|(dx, g)| *dx += g);
                }
                sums
            })
            .collect();
        slopes.put_norms(g, &partial.concat());
    }
    first
}

vectorised! {
    fn forward_rows[](x: &[f32], rows: &[f32], eps: f32, first: &mut [Cell], second: &mut [Cell]) {
        let d = rows.len() / 4;
        let [scale1, shift1, scale2, shift2] = quarters(rows);
        let outputs = first.chunks_exact_mut(d).zip(second.chunks_exact_mut(d));
        for (x, (first, second)) in x.chunks_exact(d).zip(outputs) {
            let (mean, rstd) = moments(x, eps);
            for i in 0..d {
                let hat = (x[i] - mean) * rstd;
                first[i].write(hat * scale1[i] + shift1[i]);
                second[i].write(hat * scale2[i] + shift2[i]);
            }
        }
    }
}

vectorised! {
    /// Turns the first branch's slopes into those of x and adds the rows' slopes of scales and shifts to `sums` (4·D).
    fn backward_rows[](
        x: &[f32],
        branches: (&mut [f32], &[f32]),
        rows: &[f32],
        eps: f32,
        sums: &mut [f32],
    ) {
        let ((first, second), d) = (branches, rows.len() / 4);
        let n = d as f32;
        let [scale1, _, scale2, _] = quarters(rows);
        let (d_scale1, rest) = sums.split_at_mut(d);
        let (d_shift1, rest) = rest.split_at_mut(d);
        let (d_scale2, rest) = rest.split_at_mut(d);
        let d_shift2 = &mut rest[..d];
        let inputs = x.chunks_exact(d).zip(second.chunks_exact(d));
        for ((x, second), first) in inputs.zip(first.chunks_exact_mut(d)) {
            let (mean, rstd) = moments(x, eps);
            let slope = |[a, s, b, t]: [f32; 4]| a * s + b * t;
            let mean_s = lane_sum([&*first, scale1, second, scale2], slope) / n;
            let along = |[a, s, b, t, x]: [f32; 5]| slope([a, s, b, t]) * (x - mean) * rstd;
            let mean_sx = lane_sum([&*first, scale1, second, scale2, x], along) / n;
            for i in 0..d {
                let (hat, a, b) = ((x[i] - mean) * rstd, first[i], second[i]);
                first[i] = rstd * (slope([a, scale1[i], b, scale2[i]]) - mean_s - hat * mean_sx);
                d_scale1[i] += a * hat;
                d_shift1[i] += a;
                d_scale2[i] += b * hat;
                d_shift2[i] += b;
            }
        }
    }
}

#[inline(always)]
fn quarters(rows: &[f32]) -> [&[f32]; 4] {
    let d = rows.len() / 4;
    std::array::from_fn(|i| &rows[i * d..][..d])
}
