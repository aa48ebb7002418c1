//! Affine maps over the last dimension.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use gemm::Parallelism;
use rayon::prelude::*;

use super::kernel::{self, Matrix, all_threads, elements, matmul, product, with_elements, written};
use super::matvec::{ROWS, matvec};

/// `y = x·Wᵀ + b`.
///
/// # Shapes
/// `x` (…, I), `weight` (O, I), `bias` (O), result (…, O) in the dtype of `x`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    if x.dims().last() != Some(&inputs) {
        bail!("linear: x of shape {:?} does not end in the {inputs} inputs of the weight", x.dims());
    }
    let x = x.contiguous()?;
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::linear(&x, weight, bias)? {
        return Ok(y);
    }
    match bias {
        Some(bias) if kernel::applies(&[&x, weight, bias]) => {
            x.apply_op3(weight, bias, Affine { outputs, inputs })
        }
        None if kernel::applies(&[&x, weight]) => x.apply_op2(weight, Affine { outputs, inputs }),
        _ => composed(&x, weight, bias),
    }
}

fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    let y = x.reshape(((), inputs))?.matmul(&weight.to_dtype(x.dtype())?.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(x.dtype())?)?,
        None => y,
    };
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    y.reshape(dims)
}

/// `x·Wᵀ + b` of rows of `inputs`, with W (O, I).
pub(super) fn affine(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    (outputs, inputs): (usize, usize),
    products: Parallelism,
) -> Vec<f32> {
    let rows = x.len() / inputs;
    let size = (rows, inputs, outputs);
    let (left, right) = (Matrix::rows(x, inputs), Matrix::rows(weight, inputs).t());
    if rows > ROWS && bias.is_none() {
        return product(size, left, right, products);
    }
    let mut y = match bias {
        Some(bias) => repeated(bias, rows),
        None => vec![0f32; rows * outputs],
    };
    if rows <= ROWS {
        matvec(x, weight, &mut y, inputs);
    } else {
        matmul(size, (1.0, 1.0), left, right, &mut y, outputs, products);
    }
    y
}

/// So many rows, each a copy of this one.
fn repeated(row: &[f32], rows: usize) -> Vec<f32> {
    let write = |y: &mut [MaybeUninit<f32>]| {
        y.par_chunks_mut(row.len() * 64).for_each(|block| {
            let rows = block.chunks_exact_mut(row.len());
            rows.for_each(|y| y.iter_mut().zip(row).for_each(|(y, x)| _ = y.write(*x)));
        });
    };
    // SAFETY: the blocks cover all rows.
    unsafe { written(rows * row.len(), write) }
}

struct Affine {
    outputs: usize,
    inputs: usize,
}

impl Affine {
    fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, shape: &Shape) -> (CpuStorage, Shape) {
        let y = affine(x, weight, bias, (self.outputs, self.inputs), all_threads());
        let mut dims = shape.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.outputs;
        }
        (CpuStorage::F32(y), dims.into())
    }

    /// `dx = dy·W` and `dW = dyᵀ·x`, each only where a variable stands upstream.
    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let rows = x.elem_count() / self.inputs;
        with_elements([x, weight, grad], |[x_data, w_data, g_data]| {
            let grad = Matrix::rows(g_data, self.outputs);
            let dx = x.track_op().then(|| {
                let size = (rows, self.outputs, self.inputs);
                let dx = product(size, grad, Matrix::rows(w_data, self.inputs), all_threads());
                Tensor::from_vec(dx, x.shape(), x.device())
            });
            let dw = weight.track_op().then(|| {
                let size = (self.outputs, rows, self.inputs);
                let dw = product(size, grad.t(), Matrix::rows(x_data, self.inputs), all_threads());
                Tensor::from_vec(dw, weight.shape(), weight.device())
            });
            Ok((dx.transpose()?, dw.transpose()?))
        })
    }
}

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = elements(bias, bias_layout)?;
        Ok(self.forward(
            elements(x, x_layout)?,
            elements(weight, weight_layout)?,
            Some(bias),
            x_layout.shape(),
        ))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (dx, dw) = self.backward(x, weight, &grad)?;
        let db = bias.track_op().then(|| {
            let db = with_elements([&grad], |[g]| Ok(kernel::column_sums(g, self.outputs)))?;
            Tensor::from_vec(db, self.outputs, bias.device())
        });
        Ok((dx, dw, db.transpose()?))
    }
}

impl CustomOp2 for Affine {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.forward(elements(x, x_layout)?, elements(weight, weight_layout)?, None, x_layout.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.backward(x, weight, &grad.contiguous()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn kernel_and_definition_agree() -> Result<()> {
        for (rows, inputs, outputs) in [(1, 5, 9), (2, 33, 9), (7, 5, 9), (130, 5, 9), (1, 300, 411)] {
            let x = random(&[2, rows, inputs], 1)?;
            let (w, b) = (random(&[outputs, inputs], 2)?, random(&[outputs], 3)?);
            agrees(&linear(&x, &w, Some(&b))?, &composed(&x, &w, Some(&b))?, 1e-6)?;
            agrees(&linear(&x, &w, None)?, &composed(&x, &w, None)?, 1e-6)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_match_finite_differences() -> Result<()> {
        let operands = [random(&[2, 3, 5], 1)?, random(&[4, 5], 2)?, random(&[4], 3)?];
        gradients_agree(&operands, |v| linear(&v[0], &v[1], Some(&v[2])))?;
        gradients_agree(&operands[..2], |v| linear(&v[0], &v[1], None))
    }

    #[test]
    fn a_wrong_width_is_named() -> Result<()> {
        let error = linear(&random(&[2, 3], 1)?, &random(&[4, 5], 2)?, None).unwrap_err().to_string();
        assert!(error.contains("5 inputs"), "{error}");
        Ok(())
    }
}
