//! The gated sum of the two branches.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::super::simd::vectorised;
use super::modulation::Modulation;

/// Rows of a task.
const ROWS: usize = 128;

/// Writes `gate₁⊙a + gate₂⊙m [+ x]`, every element.
pub(super) fn forward(
    u: &mut [MaybeUninit<f32>],
    [a, m]: &[Vec<f32>; 2],
    modulation: &Modulation,
    on_x: Option<&[f32]>,
) {
    assert_eq!((u.len(), m.len()), (a.len(), a.len()), "gates: results and branches of one size");
    let d = modulation.width();
    let (group, block) = (a.len() / modulation.groups(), ROWS * d);
    let groups = u.par_chunks_mut(group).zip(a.par_chunks(group)).zip(m.par_chunks(group));
    groups.enumerate().for_each(|(g, ((u, a), m))| {
        let blocks = u.par_chunks_mut(block).zip(a.par_chunks(block)).zip(m.par_chunks(block));
        blocks.enumerate().for_each(|(i, ((u, a), m))| {
            let on_x = on_x.map(|x| &x[g * group + i * block..][..a.len()]);
            forward_rows(u, a, m, modulation.gates(g), on_x);
        });
    });
}

/// The branches' slopes in the branches' memory; the slopes of the gates go to `slopes`.
pub(super) fn backward(
    [mut a, mut m]: [Vec<f32>; 2],
    grad: &[f32],
    modulation: &Modulation,
    slopes: &mut Modulation,
) -> [Vec<f32>; 2] {
    let d = modulation.width();
    let group = a.len() / modulation.groups();
    let groups = a.chunks_exact_mut(group).zip(m.chunks_exact_mut(group)).zip(grad.chunks_exact(group));
    for (g, ((a, m), grad)) in groups.enumerate() {
        let blocks =
            a.par_chunks_mut(ROWS * d).zip(m.par_chunks_mut(ROWS * d)).zip(grad.par_chunks(ROWS * d));
        let partial: Vec<Vec<f32>> = blocks
            .map(|((a, m), grad)| {
                let mut sums = vec![0f32; 3 * d];
                backward_rows(a, m, grad, modulation.gates(g), &mut sums);
                sums
            })
            .collect();
        slopes.put_gates(g, &partial.concat());
    }
    [a, m]
}

vectorised! {
    fn forward_rows[](u: &mut [MaybeUninit<f32>], a: &[f32], m: &[f32], gates: &[f32], on_x: Option<&[f32]>) {
        let d = gates.len() / 2;
        let (first, second) = (&gates[..d], &gates[d..][..d]);
        let rows = u.chunks_exact_mut(d).zip(a.chunks_exact(d)).zip(m.chunks_exact(d));
        for (row, ((u, a), m)) in rows.enumerate() {
            match on_x.map(|x| &x[row * d..][..d]) {
                Some(x) => (0..d).for_each(|i| _ = u[i].write(first[i] * a[i] + second[i] * m[i] + x[i])),
                None => (0..d).for_each(|i| _ = u[i].write(first[i] * a[i] + second[i] * m[i])),
            }
        }
    }
}

vectorised! {
    /// Adds `Σ g⊙a`, `Σ g⊙m` and `Σ g` over the rows to `sums` (3·D).
    fn backward_rows[](a: &mut [f32], m: &mut [f32], grad: &[f32], gates: &[f32], sums: &mut [f32]) {
        let d = gates.len() / 2;
        let (first, second) = (&gates[..d], &gates[d..][..d]);
        let (d_first, rest) = sums.split_at_mut(d);
        let (d_second, rest) = rest.split_at_mut(d);
        let total = &mut rest[..d];
        for ((a, m), g) in a.chunks_exact_mut(d).zip(m.chunks_exact_mut(d)).zip(grad.chunks_exact(d)) {
            for i in 0..d {
                d_first[i] += g[i] * a[i];
                d_second[i] += g[i] * m[i];
                total[i] += g[i];
                a[i] = first[i] * g[i];
                m[i] = second[i] * g[i];
            }
        }
    }
}
