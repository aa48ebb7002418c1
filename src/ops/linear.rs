//! Affine maps over the last dimension.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use gemm::Parallelism;

use super::kernel::{
    self, Matrix, Right, Size, Split, all_threads, elements, product, product_into, with_elements,
};
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

/// The elements of an affine map.
#[derive(Clone, Copy)]
pub(super) struct Map<'a> {
    /// (O, I).
    pub weight: &'a [f32],
    /// The transposed weight split for the tile unit, where it was.
    pub split: Option<&'a Split>,
    /// (O).
    pub bias: Option<&'a [f32]>,
    pub outputs: usize,
    pub inputs: usize,
}

impl Map<'_> {
    /// `x·Wᵀ + b`.
    ///
    /// # Shapes
    /// `x` (R, I), result (R, O).
    pub fn of(&self, x: &[f32], products: Parallelism) -> Vec<f32> {
        let rows = x.len() / self.inputs;
        if rows > ROWS {
            return product(self.size(x), Matrix::rows(x, self.inputs), self.right(), products);
        }
        let mut y = match self.bias {
            Some(bias) => bias.repeat(rows),
            None => vec![0f32; rows * self.outputs],
        };
        matvec(x, self.weight, &mut y, self.inputs);
        y
    }

    /// `y = keep·y + x·Wᵀ + b` for more than a few rows.
    pub fn onto(&self, keep: f32, x: &[f32], y: &mut [f32], products: Parallelism) {
        let (x_matrix, right) = (Matrix::rows(x, self.inputs), self.right());
        product_into(self.size(x), (keep, 1.0), x_matrix, right, y, self.outputs, products);
    }

    fn size(&self, x: &[f32]) -> Size {
        (x.len() / self.inputs, self.inputs, self.outputs)
    }

    fn right(&self) -> Right<'_> {
        Right { matrix: Matrix::rows(self.weight, self.inputs).t(), split: self.split, bias: self.bias }
    }
}

struct Affine {
    outputs: usize,
    inputs: usize,
}

impl Affine {
    fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, shape: &Shape) -> (CpuStorage, Shape) {
        let Self { outputs, inputs } = *self;
        let y = Map { weight, split: None, bias, outputs, inputs }.of(x, all_threads());
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
