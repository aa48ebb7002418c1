//! The residual stream's update.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{self, GRAIN, elements};
use super::simd::vectorised;

/// `y = x + a + m`: the stream plus a layer's two branches. Gradients pass through unchanged.
///
/// # Shapes
/// all (B, T, D).
pub fn residual(x: &Tensor, a: &Tensor, m: &Tensor) -> Result<Tensor> {
    if kernel::applies(&[x, a, m]) && x.dims() == a.dims() && x.dims() == m.dims() {
        return x.apply_op3(a, m, Fused);
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::residual(x, a, m)? {
        return Ok(y);
    }
    (x + a)? + m
}

struct Fused;

vectorised! {
    fn add_block[](y: &mut [f32], x: &[f32], a: &[f32], m: &[f32]) {
        for (((y, x), a), m) in y.iter_mut().zip(x).zip(a).zip(m) {
            *y = x + a + m;
        }
    }
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        m: &CpuStorage,
        m_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, a, m) = (elements(x, x_layout)?, elements(a, a_layout)?, elements(m, m_layout)?);
        let mut y = vec![0f32; x.len()];
        let inputs = x.par_chunks(GRAIN).zip(a.par_chunks(GRAIN)).zip(m.par_chunks(GRAIN));
        y.par_chunks_mut(GRAIN).zip(inputs).for_each(|(y, ((x, a), m))| add_block(y, x, a, m));
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _a: &Tensor,
        _m: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), Some(grad.clone()), Some(grad.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn adds_and_passes_gradients() -> Result<()> {
        let [x, a, m] = [1, 2, 3].map(|seed| random(&[2, 3, 5], seed));
        let (x, a, m) = (x?, a?, m?);
        agrees(&residual(&x, &a, &m)?, &((&x + &a)? + &m)?, 1e-6)?;
        gradients_agree(&[x, a, m], |v| residual(&v[0], &v[1], &v[2]))
    }
}
