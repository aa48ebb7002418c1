//! Products of two matrices.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::kernel::{self, Matrix, all_threads, elements, product, with_elements};

/// `a·b`, by all threads where both are dense f32 on the CPU.
///
/// # Shapes
/// `a` (N, K), `b` (K, M), result (N, M).
///
/// # Errors
/// Shapes that do not fit.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((rows, depth), (inner, columns)) = (a.dims2()?, b.dims2()?);
    if depth != inner {
        bail!("matmul: {:?} does not fit {:?}", a.dims(), b.dims());
    }
    if kernel::applies(&[a, b]) { a.apply_op2(b, Product((rows, depth, columns))) } else { a.matmul(b) }
}

/// Of sizes (N, K, M).
struct Product((usize, usize, usize));

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, k, m) = self.0;
        let (a, b) = (elements(a, a_layout)?, elements(b, b_layout)?);
        let product = product((n, k, m), Matrix::rows(a, k), Matrix::rows(b, m), all_threads());
        Ok((CpuStorage::F32(product), (n, m).into()))
    }

    /// `da = g·bᵀ` and `db = aᵀ·g`, each only where a variable stands upstream.
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((n, k, m), grad) = (self.0, grad.contiguous()?);
        with_elements([a, b, &grad], |[a_data, b_data, g]| {
            let g = Matrix::rows(g, m);
            let da = a.track_op().then(|| {
                let da = product((n, m, k), g, Matrix::rows(b_data, m).t(), all_threads());
                Tensor::from_vec(da, (n, k), a.device())
            });
            let db = b.track_op().then(|| {
                let db = product((k, n, m), Matrix::rows(a_data, k).t(), g, all_threads());
                Tensor::from_vec(db, (k, m), b.device())
            });
            Ok((da.transpose()?, db.transpose()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn kernel_and_candle_agree_in_every_layout() -> Result<()> {
        for (n, k, m) in [(1, 1, 1), (5, 7, 3), (130, 65, 70)] {
            let (a, b) = (random(&[n, k], 1)?, random(&[k, m], 2)?);
            agrees(&matmul(&a, &b)?, &a.matmul(&b)?, 1e-5)?;
            agrees(&matmul(&b.t()?, &a.t()?)?, &a.matmul(&b)?.t()?, 1e-5)?;
        }
        assert!(matmul(&random(&[2, 3], 1)?, &random(&[2, 3], 2)?).is_err());
        Ok(())
    }

    #[test]
    fn gradients_match_finite_differences() -> Result<()> {
        gradients_agree(&[random(&[3, 4], 1)?, random(&[4, 2], 2)?], |v| matmul(&v[0], &v[1]))
    }
}
