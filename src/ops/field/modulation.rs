//! From the adaLN projection to the rows that norms and gates multiply by, and back.

use super::super::kernel::fold_rows;

/// Rows of each group: scales and shifts of the two norms, and the scaled gates. The same six rows hold their slopes.
pub(super) struct Modulation {
    /// (G, 6, D).
    rows: Vec<f32>,
    width: usize,
    /// (G, D): the columns of the result's slope, summed over a group's rows; of use among slopes only.
    sums: Vec<f32>,
}

/// Weight and bias of the two norms, each (D).
pub(super) type Norms<'a> = [&'a [f32]; 4];

impl Modulation {
    /// `w⊙(1+γ)` and `b⊙(1+γ) + β` of both norms, and `factor·α`.
    ///
    /// # Shapes
    /// `projection` (G, 6·D) with γ₁, β₁, γ₂, β₂, α₁, α₂; `factors` (G).
    pub fn new(projection: &[f32], norms: Norms<'_>, factors: &[f32]) -> Self {
        let width = norms[0].len();
        let mut rows = vec![0f32; projection.len()];
        for ((rows, given), factor) in
            rows.chunks_exact_mut(6 * width).zip(projection.chunks_exact(6 * width)).zip(factors)
        {
            for branch in 0..2 {
                let (gamma, beta) = (row(given, 2 * branch, width), row(given, 2 * branch + 1, width));
                let (weight, bias) = (norms[2 * branch], norms[2 * branch + 1]);
                let (scales, shifts) = rows[2 * branch * width..][..2 * width].split_at_mut(width);
                for i in 0..width {
                    let gain = 1.0 + gamma[i];
                    scales[i] = gain * weight[i];
                    shifts[i] = gain * bias[i] + beta[i];
                }
            }
            let gates = rows[4 * width..].iter_mut().zip(&given[4 * width..]);
            gates.for_each(|(gate, alpha)| *gate = factor * alpha);
        }
        Self { rows, width, sums: Vec::new() }
    }

    /// The rows of the groups that task `i` of so many examples reads.
    pub fn of_task(&self, i: usize, examples: usize) -> Self {
        let groups = self.groups();
        let own = if groups == 1 { 0..1 } else { i * examples..((i + 1) * examples).min(groups) };
        let rows = self.rows[6 * self.width * own.start..6 * self.width * own.end].to_vec();
        Self { rows, width: self.width, sums: Vec::new() }
    }

    /// Slopes of all groups from those of the tasks: side by side, or added in their order where there is one group.
    pub fn gather(tasks: Vec<Self>, groups: usize) -> Self {
        let rows: Vec<f32> = tasks.iter().flat_map(|task| &task.rows).copied().collect();
        let width = tasks.first().map_or(0, |task| task.width);
        let rows = if groups == 1 { fold_rows(&rows, 6 * width) } else { rows };
        Self { rows, width, sums: Vec::new() }
    }

    /// Slopes of rows like these, to be added to.
    pub fn zeros(&self) -> Self {
        let groups = self.groups();
        Self { rows: vec![0.0; self.rows.len()], width: self.width, sums: vec![0.0; groups * self.width] }
    }

    /// Number of groups G.
    pub fn groups(&self) -> usize {
        self.rows.len() / (6 * self.width)
    }

    /// Width D.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The scales and shifts (4·D) of a group.
    pub fn norms(&self, group: usize) -> &[f32] {
        &self.rows[6 * self.width * group..][..4 * self.width]
    }

    /// The two gates (2·D) of a group.
    pub fn gates(&self, group: usize) -> &[f32] {
        &self.rows[6 * self.width * group + 4 * self.width..][..2 * self.width]
    }

    /// Takes up a group's slopes of scales and shifts, from partial sums.
    pub fn put_norms(&mut self, group: usize, partial: &[f32]) {
        let sums = fold_rows(partial, 4 * self.width);
        self.rows[6 * self.width * group..][..4 * self.width].copy_from_slice(&sums);
    }

    /// Takes up a group's slopes of the gates and its column sums of the result's slope, from partial sums.
    pub fn put_gates(&mut self, group: usize, partial: &[f32]) {
        let (d, sums) = (self.width, fold_rows(partial, 3 * self.width));
        self.rows[6 * d * group + 4 * d..][..2 * d].copy_from_slice(&sums[..2 * d]);
        self.sums[d * group..][..d].copy_from_slice(&sums[2 * d..]);
    }

    /// The column sums of a branch's slope: the bias of the map that ends the branch.
    pub fn branch_sums(&self, modulation: &Self, branch: usize) -> Vec<f32> {
        let d = self.width;
        let mut total = vec![0f32; d];
        for (group, sums) in self.sums.chunks_exact(d).enumerate() {
            let gate = &modulation.gates(group)[branch * d..][..d];
            total.iter_mut().zip(gate.iter().zip(sums)).for_each(|(t, (gate, sum))| *t += gate * sum);
        }
        total
    }

    /// From slopes of these rows to those of the projection (G, 6·D) and of the norms' weights and biases.
    pub fn backward(
        &self,
        projection: &[f32],
        norms: Norms<'_>,
        factors: &[f32],
    ) -> (Vec<f32>, [Vec<f32>; 4]) {
        let d = self.width;
        let mut d_norms = std::array::from_fn(|_| vec![0f32; d]);
        let mut d_projection = vec![0f32; projection.len()];
        for (group, factor) in factors.iter().enumerate() {
            let at = 6 * d * group..6 * d * (group + 1);
            let (slopes, given, out) =
                (&self.rows[at.clone()], &projection[at.clone()], &mut d_projection[at]);
            for branch in 0..2 {
                let (d_scale, d_shift) = (row(slopes, 2 * branch, d), row(slopes, 2 * branch + 1, d));
                let gamma = row(given, 2 * branch, d);
                let (weight, bias) = (norms[2 * branch], norms[2 * branch + 1]);
                for i in 0..d {
                    out[2 * branch * d + i] = d_scale[i] * weight[i] + d_shift[i] * bias[i];
                    out[(2 * branch + 1) * d + i] = d_shift[i];
                    d_norms[2 * branch][i] += d_scale[i] * (1.0 + gamma[i]);
                    d_norms[2 * branch + 1][i] += d_shift[i] * (1.0 + gamma[i]);
                }
            }
            let gates = out[4 * d..].iter_mut().zip(&slopes[4 * d..]);
            gates.for_each(|(alpha, gate)| *alpha = factor * gate);
        }
        (d_projection, d_norms)
    }
}

fn row(rows: &[f32], i: usize, width: usize) -> &[f32] {
    &rows[i * width..][..width]
}
