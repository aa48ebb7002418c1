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

/// Writes the slope of x, every element, given those of the branches; `on_x` is added to it. The slopes of scales and
/// shifts go to `slopes`.
pub(super) fn backward(
    (x, on_x): (&[f32], Option<&[f32]>),
    [first, second]: [Vec<f32>; 2],
    (modulation, eps): (&Modulation, f32),
    slopes: &mut Modulation,
    dx: &mut [Cell],
) {
    assert_eq!((dx.len(), first.len()), (x.len(), x.len()), "norms: slopes of one size");
    let d = modulation.width();
    let group = x.len() / modulation.groups();
    for (g, (dx, start)) in dx.chunks_exact_mut(group).zip((0..).step_by(group)).enumerate() {
        let tasks = dx.par_chunks_mut(ROWS * d).enumerate();
        let partial: Vec<Vec<f32>> = tasks
            .map(|(i, dx)| {
                let range = start + i * ROWS * d..start + i * ROWS * d + dx.len();
                let mut sums = vec![0f32; 4 * d];
                let branches = [&first[range.clone()], &second[range.clone()]];
                let on_x = on_x.map(|on_x| &on_x[range.clone()]);
                backward_rows((&x[range], on_x), branches, (modulation.norms(g), eps), &mut sums, dx);
                sums
            })
            .collect();
        slopes.put_norms(g, &partial.concat());
    }
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
    /// The slopes of x, and those of scales and shifts, which are added to `sums` (4·D).
    fn backward_rows[](
        inputs: (&[f32], Option<&[f32]>),
        branches: [&[f32]; 2],
        modulation: (&[f32], f32),
        sums: &mut [f32],
        dx: &mut [Cell],
    ) {
        let ((x, on_x), [first, second], (rows, eps)) = (inputs, branches, modulation);
        let d = rows.len() / 4;
        let n = d as f32;
        let [scale1, _, scale2, _] = quarters(rows);
        let (d_scale1, rest) = sums.split_at_mut(d);
        let (d_shift1, rest) = rest.split_at_mut(d);
        let (d_scale2, rest) = rest.split_at_mut(d);
        let d_shift2 = &mut rest[..d];
        let inputs = x.chunks_exact(d).zip(first.chunks_exact(d).zip(second.chunks_exact(d)));
        for (row, ((x, (first, second)), dx)) in inputs.zip(dx.chunks_exact_mut(d)).enumerate() {
            let (mean, rstd) = moments(x, eps);
            let slope = |[a, s, b, t]: [f32; 4]| a * s + b * t;
            let mean_s = lane_sum([first, scale1, second, scale2], slope) / n;
            let along = |[a, s, b, t, x]: [f32; 5]| slope([a, s, b, t]) * (x - mean) * rstd;
            let mean_sx = lane_sum([first, scale1, second, scale2, x], along) / n;
            for i in 0..d {
                let (hat, a, b) = ((x[i] - mean) * rstd, first[i], second[i]);
                dx[i].write(rstd * (slope([a, scale1[i], b, scale2[i]]) - mean_s - hat * mean_sx));
                d_scale1[i] += a * hat;
                d_shift1[i] += a;
                d_scale2[i] += b * hat;
                d_shift2[i] += b;
            }
            if let Some(on_x) = on_x {
                // SAFETY: the row was just written.
                let dx = unsafe { &mut *(std::ptr::from_mut(dx) as *mut [f32]) };
                dx.iter_mut().zip(&on_x[row * d..]).for_each(|(dx, g)| *dx += g);
            }
        }
    }
}

#[inline(always)]
fn quarters(rows: &[f32]) -> [&[f32]; 4] {
    let d = rows.len() / 4;
    std::array::from_fn(|i| &rows[i * d..][..d])
}
