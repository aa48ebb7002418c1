//! Products of a weight matrix with a few rows: what generating text token by token consists of.
//!
//! Such a product reads every weight once for a handful of operations, so its limit is the memory. One pass over
//! the weights, divided among the threads, serves all rows.

use rayon::prelude::*;

use super::kernel::GRAIN;
use super::simd::vectorised;

/// Most rows for which a pass over the weights beats a blocked matrix product.
pub(super) const ROWS: usize = 4;

/// Outputs computed side by side, so that their sums need not wait for each other.
const TOGETHER: usize = 4;
/// Elements of a weight that one thread reads faster than it calls for another one.
const ALONE: usize = 8 * GRAIN;
const LANES: usize = 16;

/// `y += x·Wᵀ` for at most [`ROWS`] rows.
///
/// # Shapes
/// `x` (R, I), `weight` (O, I), `y` (R, O), all contiguous.
pub(super) fn matvec(x: &[f32], weight: &[f32], y: &mut [f32], inputs: usize) {
    let outputs = weight.len() / inputs;
    if weight.len() <= ALONE {
        dots(x, weight, y, inputs);
        return;
    }
    // A task's outputs lie `outputs` apart in y, one for each row: they are computed aside and put in place after.
    let outputs_per_task = (GRAIN / inputs).max(1).next_multiple_of(TOGETHER);
    let rows = x.len() / inputs;
    let parts: Vec<Vec<f32>> = weight
        .par_chunks(outputs_per_task * inputs)
        .map(|weight| {
            let mut part = vec![0f32; rows * (weight.len() / inputs)];
            dots(x, weight, &mut part, inputs);
            part
        })
        .collect();
    for (row, y) in y.chunks_exact_mut(outputs).enumerate() {
        for (y, part) in y.chunks_mut(outputs_per_task).zip(&parts) {
            let part = &part[row * y.len()..][..y.len()];
            y.iter_mut().zip(part).for_each(|(y, part)| *y += part);
        }
    }
}

vectorised! {
    /// `y[r·O + o] += Σ x[r]·w[o]` with four outputs at a time.
    fn dots[](x: &[f32], weight: &[f32], y: &mut [f32], inputs: usize) {
        let outputs = weight.len() / inputs;
        let blocks = outputs / TOGETHER * TOGETHER;
        for first in (0..blocks).step_by(TOGETHER) {
            let w: [&[f32]; TOGETHER] = std::array::from_fn(|i| &weight[(first + i) * inputs..][..inputs]);
            for (row, x) in x.chunks_exact(inputs).enumerate() {
                let sums = dots_of(x, w);
                y[row * outputs + first..][..TOGETHER].iter_mut().zip(sums).for_each(|(y, s)| *y += s);
            }
        }
        for o in blocks..outputs {
            for (row, x) in x.chunks_exact(inputs).enumerate() {
                let [sum] = dots_of(x, [&weight[o * inputs..][..inputs]]);
                y[row * outputs + o] += sum;
            }
        }
    }
}

/// Scalar products of one row with N rows of weights.
#[inline(always)]
fn dots_of<const N: usize>(x: &[f32], w: [&[f32]; N]) -> [f32; N] {
    let mut lanes = [[0f32; LANES]; N];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let parts = w.map(|w| w.as_chunks::<LANES>());
    for (i, x) in x.iter().enumerate() {
        for (lanes, (w, _)) in lanes.iter_mut().zip(&parts) {
            for ((lane, w), x) in lanes.iter_mut().zip(&w[i]).zip(x) {
                *lane += w * x;
            }
        }
    }
    let rest = parts.map(|(_, w)| w.iter().zip(x_rest).map(|(w, x)| w * x).sum::<f32>());
    std::array::from_fn(|i| rest[i] + lanes[i].iter().sum::<f32>())
}
