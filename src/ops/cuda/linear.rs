//! Affine maps.

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::gemm::{Factor, Product};
use super::graph::{record2, record3};
use super::memory::{Buffer, address, device, name};
use super::reduce::column_sums;

/// See [`crate::ops::linear`]. Where x is bf16, weight and bias may be f32: they are rounded for the product, and their
/// gradients are f32.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    let operands: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    let Some(device) = device(&operands) else { return Ok(None) };
    let fits = |w: &&Tensor| w.dtype() == x.dtype() || (x.dtype() == DType::BF16 && w.dtype() == DType::F32);
    if name(x.dtype()).is_none() || !operands.iter().all(fits) {
        return Ok(None);
    }
    let (outputs, inputs) = weight.dims2()?;
    let map = Map { outputs, inputs, rows: x.elem_count() / inputs };
    let like_x = |w: &Tensor| w.detach().to_dtype(x.dtype());
    let (weight_like_x, bias_like_x) = (like_x(weight)?, bias.map(like_x).transpose()?);
    let y = map.forward(&device, x, &weight_like_x, bias_like_x.as_ref())?;
    let gradients = move |x: &Tensor, weight: &Tensor, grad: &Tensor| {
        let device = x.device().as_cuda_device()?;
        let dx = x.track_op().then(|| map.input_gradient(device, &weight_like_x, grad)).transpose()?;
        let dw =
            weight.track_op().then(|| map.weight_gradient(device, x, grad, weight.dtype())).transpose()?;
        candle_core::Result::Ok((dx.map(|dx| dx.reshape(x.shape())).transpose()?, dw))
    };
    match bias {
        None => record2([x, weight], "linear", y, move |[x, weight], _, grad| {
            let (dx, dw) = gradients(x, weight, grad)?;
            Ok([dx, dw])
        }),
        Some(bias) => record3([x, weight, bias], "linear", y, move |[x, weight, bias], _, grad| {
            let (dx, dw) = gradients(x, weight, grad)?;
            let db = bias.track_op().then(|| column_sums(grad, outputs, bias.dtype())).transpose()?;
            Ok([dx, dw, db])
        }),
    }
    .map(Some)
}

/// The sizes of `y (rows, outputs) = x (rows, inputs) · weight (outputs, inputs)ᵀ + bias`.
#[derive(Clone, Copy)]
pub(super) struct Map {
    pub outputs: usize,
    pub inputs: usize,
    pub rows: usize,
}

impl Map {
    fn forward(
        self,
        device: &CudaDevice,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Buffer> {
        let mut dims = x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.outputs;
        }
        let y = Buffer::new(device, dims, x.dtype())?;
        self.write(device, x, weight, bias, None, y.address()?)?;
        Ok(y)
    }

    /// `y = x · Wᵀ + bias + added`, the last two by device address.
    pub(super) fn write(
        self,
        device: &CudaDevice,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        added: Option<u64>,
        y: u64,
    ) -> Result<()> {
        Product {
            size: (self.rows, self.inputs, self.outputs),
            a: Factor { address: address(x)?, width: self.inputs, transposed: false },
            b: Factor { address: address(weight)?, width: self.inputs, transposed: true },
            dtype: x.dtype(),
            bias: bias.map(address).transpose()?,
            out: y,
            out_dtype: x.dtype(),
            added,
        }
        .run(device)
    }

    /// `dx = dy · W`.
    pub(super) fn input_gradient(
        self,
        device: &CudaDevice,
        weight: &Tensor,
        grad: &Tensor,
    ) -> Result<Tensor> {
        let dx = Buffer::new(device, (self.rows, self.inputs), grad.dtype())?;
        self.write_input_gradient(device, weight, grad, dx.address()?)?;
        Ok(dx.tensor())
    }

    /// The same to a device address.
    pub(super) fn write_input_gradient(
        self,
        device: &CudaDevice,
        weight: &Tensor,
        grad: &Tensor,
        dx: u64,
    ) -> Result<()> {
        Product {
            size: (self.rows, self.outputs, self.inputs),
            a: Factor { address: address(grad)?, width: self.outputs, transposed: false },
            b: Factor { address: address(weight)?, width: self.inputs, transposed: false },
            dtype: grad.dtype(),
            bias: None,
            out: dx,
            out_dtype: grad.dtype(),
            added: None,
        }
        .run(device)
    }

    /// `dW = dyᵀ · x`.
    fn weight_gradient(self, device: &CudaDevice, x: &Tensor, grad: &Tensor, dtype: DType) -> Result<Tensor> {
        let dw = Buffer::new(device, (self.outputs, self.inputs), dtype)?;
        self.write_weight_gradient(device, x, grad, dtype, (dw.address()?, false))?;
        Ok(dw.tensor())
    }

    /// The same to a device address, on top of what lies there where `add` says so.
    pub(super) fn write_weight_gradient(
        self,
        device: &CudaDevice,
        x: &Tensor,
        grad: &Tensor,
        dtype: DType,
        (dw, add): (u64, bool),
    ) -> Result<()> {
        Product {
            size: (self.outputs, self.rows, self.inputs),
            a: Factor { address: address(grad)?, width: self.outputs, transposed: true },
            b: Factor { address: address(x)?, width: self.inputs, transposed: false },
            dtype: grad.dtype(),
            bias: None,
            out: dw,
            out_dtype: dtype,
            added: add.then_some(dw),
        }
        .run(device)
    }
}
