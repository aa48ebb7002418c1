//! The gated sum of a layer's two branches.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernel::{self, elements, with_elements};
use super::simd::vectorised;

/// `y = α₁⊙a + α₂⊙m`, the velocity of a time-conditioned layer from its attention and MLP branches.
///
/// # Shapes
/// `attention` and `mlp` (B, T, D); `gates` (B, 2, D) holding α₁ and α₂ of each example, or (1, 2, D)
/// for one pair of gates; result (B, T, D) in the dtype of the gates.
pub fn gated_sum(attention: &Tensor, mlp: &Tensor, gates: &Tensor) -> Result<Tensor> {
    let (batch, _, width) = attention.dims3()?;
    let (groups, two, gate_width) = gates.dims3()?;
    if attention.dims() != mlp.dims() || two != 2 || gate_width != width || (groups != 1 && groups != batch) {
        bail!(
            "gated_sum: branches {:?} and {:?} do not fit gates {:?}, which must be (B, 2, D) or (1, 2, D)",
            attention.dims(),
            mlp.dims(),
            gates.dims()
        );
    }
    if kernel::applies(&[attention, mlp, gates]) {
        return attention.apply_op3(mlp, gates, Fused { groups, width });
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::gated_sum(attention, mlp, gates)? {
        return Ok(y);
    }
    composed(attention, mlp, gates)
}

fn composed(attention: &Tensor, mlp: &Tensor, gates: &Tensor) -> Result<Tensor> {
    let (attention, mlp) = (attention.to_dtype(gates.dtype())?, mlp.to_dtype(gates.dtype())?);
    let first = attention.broadcast_mul(&gates.narrow(1, 0, 1)?)?;
    first + mlp.broadcast_mul(&gates.narrow(1, 1, 1)?)?
}

struct Fused {
    groups: usize,
    width: usize,
}

/// Rows of a parallel task.
const ROWS: usize = 128;

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "gated_sum"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        m: &CpuStorage,
        m_layout: &Layout,
        gates: &CpuStorage,
        gates_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, m, gates) = (elements(a, a_layout)?, elements(m, m_layout)?, elements(gates, gates_layout)?);
        let d = self.width;
        let group = a.len() / self.groups;
        let mut y = vec![0f32; a.len()];
        let groups = y.par_chunks_mut(group).zip(a.par_chunks(group)).zip(m.par_chunks(group));
        groups.zip(gates.par_chunks(2 * d)).for_each(|(((y, a), m), gate)| {
            let (first, second) = gate.split_at(d);
            let blocks = y.par_chunks_mut(ROWS * d).zip(a.par_chunks(ROWS * d)).zip(m.par_chunks(ROWS * d));
            blocks.for_each(|((y, a), m)| {
                forward_block(y, a, m, first, second);
            });
        });
        Ok((CpuStorage::F32(y), a_layout.shape().clone()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        m: &Tensor,
        gates: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (d, grad) = (self.width, grad.contiguous()?);
        let (da, dm, d_gates) = with_elements([a, m, gates, &grad], |[a, m, gates, grad]| {
            let group = a.len() / self.groups;
            let (mut da, mut dm) = (vec![0f32; a.len()], vec![0f32; a.len()]);
            let outputs = da.par_chunks_mut(group).zip(dm.par_chunks_mut(group));
            let inputs = a.par_chunks(group).zip(m.par_chunks(group)).zip(grad.par_chunks(group));
            let d_gates: Vec<Vec<f32>> = outputs
                .zip(inputs)
                .zip(gates.par_chunks(2 * d))
                .map(|(((da, dm), ((a, m), g)), gate)| backward_group(d, (da, dm), (a, m, g), gate))
                .collect();
            Ok((da, dm, d_gates.concat()))
        })?;
        Ok((
            Some(Tensor::from_vec(da, a.shape(), a.device())?),
            Some(Tensor::from_vec(dm, m.shape(), m.device())?),
            Some(Tensor::from_vec(d_gates, gates.shape(), gates.device())?),
        ))
    }
}

vectorised! {
    fn forward_block[](y: &mut [f32], a: &[f32], m: &[f32], first: &[f32], second: &[f32]) {
        let d = first.len();
        for ((y, a), m) in y.chunks_exact_mut(d).zip(a.chunks_exact(d)).zip(m.chunks_exact(d)) {
            let branches = a.iter().zip(m).zip(first.iter().zip(second));
            for (y, ((a, m), (first, second))) in y.iter_mut().zip(branches) {
                *y = first * a + second * m;
            }
        }
    }
}

vectorised! {
    fn backward_block[](
        branches: (&mut [f32], &mut [f32]),
        inputs: (&[f32], &[f32], &[f32]),
        gates: (&[f32], &[f32]),
        sums: (&mut [f32], &mut [f32]),
    ) {
        let ((da, dm), (a, m, grad), (first, second), (d_first, d_second)) = (branches, inputs, gates, sums);
        let d = first.len();
        for start in (0..grad.len()).step_by(d) {
            let row = start..start + d;
            let (a, m, g) = (&a[row.clone()], &m[row.clone()], &grad[row.clone()]);
            let (da, dm) = (&mut da[row.clone()], &mut dm[row]);
            for ((da, first), g) in da.iter_mut().zip(first).zip(g) {
                *da = first * g;
            }
            for ((dm, second), g) in dm.iter_mut().zip(second).zip(g) {
                *dm = second * g;
            }
            for ((sum, a), g) in d_first.iter_mut().zip(a).zip(g) {
                *sum += a * g;
            }
            for ((sum, m), g) in d_second.iter_mut().zip(m).zip(g) {
                *sum += m * g;
            }
        }
    }
}

/// Gradients of one example's branches, and of its gates (2·D) summed over its tokens.
fn backward_group(
    d: usize,
    (da, dm): (&mut [f32], &mut [f32]),
    (a, m, grad): (&[f32], &[f32], &[f32]),
    gate: &[f32],
) -> Vec<f32> {
    let (first, second) = gate.split_at(d);
    let outputs = da.par_chunks_mut(ROWS * d).zip(dm.par_chunks_mut(ROWS * d));
    let inputs = a.par_chunks(ROWS * d).zip(m.par_chunks(ROWS * d)).zip(grad.par_chunks(ROWS * d));
    let partial: Vec<Vec<f32>> = outputs
        .zip(inputs)
        .map(|((da, dm), ((a, m), grad))| {
            let mut sums = vec![0f32; 2 * d];
            let (d_first, d_second) = sums.split_at_mut(d);
            backward_block((da, dm), (a, m, grad), (first, second), (d_first, d_second));
            sums
        })
        .collect();
    kernel::fold_rows(&partial.concat(), 2 * d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn kernel_and_definition_agree() -> Result<()> {
        let (a, m) = (random(&[3, 301, 20], 1)?, random(&[3, 301, 20], 2)?);
        for groups in [1, 3] {
            let gates = random(&[groups, 2, 20], 3)?;
            agrees(&gated_sum(&a, &m, &gates)?, &composed(&a, &m, &gates)?, 1e-6)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_match_finite_differences() -> Result<()> {
        for groups in [1, 2] {
            let operands = [random(&[2, 3, 5], 1)?, random(&[2, 3, 5], 2)?, random(&[groups, 2, 5], 3)?];
            gradients_agree(&operands, |v| gated_sum(&v[0], &v[1], &v[2]))?;
        }
        Ok(())
    }
}
