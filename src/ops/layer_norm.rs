//! Layer normalisation, plain and with the adaptive modulation of DiT.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernel::{self, GRAIN, elements, lane_sum, with_elements};
use super::simd::vectorised;

/// `y = (x − mean) / √(var + eps) ⊙ scale + shift` over the last dimension.
///
/// A plain layer norm passes its weight and bias of shape (D). Adaptive modulation (adaLN, DiT)
/// passes one row per example: `scale = w⊙(1+γ)`, `shift = b⊙(1+γ) + β`, both (B, D).
///
/// # Shapes
/// `x` (B, T, D); `scale` and `shift` (D), (1, D) or (B, D); result (B, T, D).
pub fn layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f64) -> Result<Tensor> {
    layer_norm_to(x, scale, shift, eps, x.dtype())
}

/// The same, rounded to another dtype: a stream kept in f32 whose branches are computed in bf16.
pub fn layer_norm_to(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f64, out: DType) -> Result<Tensor> {
    let (batch, _, width) = x.dims3()?;
    let groups = scale.elem_count() / width.max(1);
    if scale.dims() != shift.dims() || scale.dims().last() != Some(&width) || (groups != 1 && groups != batch)
    {
        bail!(
            "layer_norm: scale {:?} and shift {:?} must be (D), (1, D) or (B, D) for x {:?}",
            scale.dims(),
            shift.dims(),
            x.dims()
        );
    }
    let x = x.contiguous()?;
    if kernel::applies(&[&x, scale, shift]) {
        return x.apply_op3(scale, shift, Fused { eps: eps as f32, width, groups })?.to_dtype(out);
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::layer_norm(&x, scale, shift, eps, out)? {
        return Ok(y);
    }
    composed(&x, scale, shift, eps)?.to_dtype(out)
}

fn composed(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = x.to_dtype(if dtype == DType::F64 { DType::F64 } else { DType::F32 })?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + eps)?.sqrt()?)?.to_dtype(dtype)?;
    normal.broadcast_mul(&per_example(scale)?)?.broadcast_add(&per_example(shift)?)
}

/// (B, D) becomes (B, 1, D) so that it broadcasts over the tokens; (D) stays.
fn per_example(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 2 { x.unsqueeze(1) } else { Ok(x.clone()) }
}

struct Fused {
    eps: f32,
    width: usize,
    groups: usize,
}

impl Fused {
    /// Rows of one parallel task; a task never spans two examples, so that it has one scale and shift.
    fn rows_per_task(&self, rows: usize) -> usize {
        let per_group = (rows / self.groups).max(1);
        let wanted = (GRAIN / self.width.max(1)).max(1);
        per_group.div_ceil(per_group.div_ceil(wanted))
    }

    /// The tasks as (group, first row, number of rows).
    fn tasks(&self, rows: usize) -> Vec<(usize, usize, usize)> {
        let (per_group, step) = (rows / self.groups, self.rows_per_task(rows));
        let starts = |g: usize| (0..per_group).step_by(step).map(move |r| (g, r));
        (0..self.groups)
            .flat_map(starts)
            .map(|(g, r)| (g, g * per_group + r, step.min(per_group - r)))
            .collect()
    }
}

/// Mean and reciprocal standard deviation of one row.
#[inline(always)]
pub(super) fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = lane_sum([row], |[x]| x) / n;
    let variance = lane_sum([row], |[x]| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

vectorised! {
    /// Rows of one scale and shift.
    pub(super) fn forward_rows[](x: &[f32], scale: &[f32], shift: &[f32], eps: f32, y: &mut [f32]) {
        let d = scale.len();
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            let (mean, rstd) = moments(x, eps);
            for (((y, x), scale), shift) in y.iter_mut().zip(x).zip(scale).zip(shift) {
                *y = (x - mean) * rstd * scale + shift;
            }
        }
    }
}

vectorised! {
    /// dx of some rows of one example, and the sums over them of dy⊙x̂ and dy.
    fn backward_rows[](x: &[f32], scale: &[f32], grad: &[f32], eps: f32, dx: &mut [f32], sums: &mut [f32]) {
        let d = scale.len();
        let n = d as f32;
        let (d_scale, d_shift) = sums.split_at_mut(d);
        let rows = x.chunks_exact(d).zip(grad.chunks_exact(d));
        for ((x, g), dx) in rows.zip(dx.chunks_exact_mut(d)) {
            let (mean, rstd) = moments(x, eps);
            let mean_g = lane_sum([g, scale], |[g, s]| g * s) / n;
            let mean_gx = lane_sum([g, scale, x], |[g, s, x]| g * s * (x - mean) * rstd) / n;
            let sums = d_scale.iter_mut().zip(d_shift.iter_mut());
            for ((((dx, x), g), scale), (d_scale, d_shift)) in dx.iter_mut().zip(x).zip(g).zip(scale).zip(sums) {
                let hat = (x - mean) * rstd;
                *dx = rstd * (g * scale - mean_g - hat * mean_gx);
                *d_scale += g * hat;
                *d_shift += g;
            }
        }
    }
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, d) = (elements(x, x_layout)?, self.width);
        let (scale, shift) = (elements(scale, scale_layout)?, elements(shift, shift_layout)?);
        let rows = x.len() / d;
        let per_group = rows / self.groups;
        let mut y = vec![0f32; x.len()];
        let block = self.rows_per_task(rows);
        y.par_chunks_mut(per_group * d).zip(x.par_chunks(per_group * d)).enumerate().for_each(
            |(g, (y, x))| {
                let (scale, shift) = (&scale[g * d..][..d], &shift[g * d..][..d]);
                y.par_chunks_mut(block * d).zip(x.par_chunks(block * d)).for_each(|(y, x)| {
                    forward_rows(x, scale, shift, self.eps, y);
                });
            },
        );
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (d, grad) = (self.width, grad.contiguous()?);
        let (dx, d_scale, d_shift) = with_elements([x, scale, &grad], |[x, scale, grad]| {
            let tasks = self.tasks(x.len() / d);
            let partial: Vec<(usize, Vec<f32>, Vec<f32>)> = tasks
                .into_par_iter()
                .map(|(g, first, rows)| {
                    let range = first * d..(first + rows) * d;
                    let (mut dx, mut sums) = (vec![0f32; rows * d], vec![0f32; 2 * d]);
                    let scale = &scale[g * d..][..d];
                    backward_rows(&x[range.clone()], scale, &grad[range], self.eps, &mut dx, &mut sums);
                    (g, dx, sums)
                })
                .collect();
            let (mut d_scale, mut d_shift) = (vec![0f32; self.groups * d], vec![0f32; self.groups * d]);
            let mut dx = Vec::with_capacity(x.len());
            for (g, part, sums) in &partial {
                dx.extend_from_slice(part);
                d_scale[g * d..][..d].iter_mut().zip(&sums[..d]).for_each(|(t, s)| *t += s);
                d_shift[g * d..][..d].iter_mut().zip(&sums[d..]).for_each(|(t, s)| *t += s);
            }
            Ok((dx, d_scale, d_shift))
        })?;
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            Some(Tensor::from_vec(d_scale, scale.shape(), scale.device())?),
            Some(Tensor::from_vec(d_shift, shift.shape(), shift.device())?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn kernel_and_definition_agree() -> Result<()> {
        for (batch, tokens, width) in [(1, 1, 3), (2, 5, 48), (3, 300, 128)] {
            let x = random(&[batch, tokens, width], 1)?;
            for rows in [&[width][..], &[1, width], &[batch, width]] {
                let (scale, shift) = (random(rows, 2)?, random(rows, 3)?);
                agrees(&layer_norm(&x, &scale, &shift, 1e-5)?, &composed(&x, &scale, &shift, 1e-5)?, 1e-5)?;
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_match_finite_differences() -> Result<()> {
        for rows in [&[19][..], &[1, 19], &[2, 19]] {
            let operands = [random(&[2, 3, 19], 1)?, random(rows, 2)?, random(rows, 3)?];
            gradients_agree(&operands, |v| layer_norm(&v[0], &v[1], &v[2], 1e-5))?;
        }
        Ok(())
    }

    #[test]
    fn wrong_groups_are_refused() -> Result<()> {
        let (x, s) = (random(&[2, 3, 4], 1)?, random(&[3, 4], 2)?);
        assert!(layer_norm(&x, &s, &s, 1e-5).unwrap_err().to_string().contains("(B, D)"));
        Ok(())
    }
}
