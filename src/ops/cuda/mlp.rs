//! The MLP of a layer, forth and back.

use candle_core::{CudaDevice, DType, Result, Tensor, bail};

use super::activation::{activate_into, gelu_backward, slope_into};
use super::linear::Map;
use super::memory::{Buffer, address};
use crate::ops::Activation;

/// `down · act(up · x)` for N rows x.
pub(super) struct Mlp {
    /// Weight (I, D) and bias (I).
    pub up: (Tensor, Option<Tensor>),
    /// Weight (D, I) and bias (D).
    pub down: (Tensor, Option<Tensor>),
    pub activation: Activation,
}

/// Where the gradients of the weights go: device addresses of f32, each with whether it joins what lies there.
pub(super) struct Gradients<'a> {
    /// The input x of the MLP.
    pub input: &'a Tensor,
    pub up: (u64, bool),
    pub up_bias: Option<(u64, bool)>,
    pub down: (u64, bool),
}

impl Mlp {
    fn maps(&self, rows: usize) -> Result<[Map; 2]> {
        let (inner, width) = self.up.0.dims2()?;
        let up = Map { outputs: inner, inputs: width, rows };
        Ok([up, Map { outputs: width, inputs: inner, rows }])
    }

    /// The MLP of `x`, on top of `added` where there is one. What the backward needs, the values in front of the
    /// activation, stays in `hidden` where there is one.
    ///
    /// # Shapes
    /// `x`, `added` and the result of N·D elements, `hidden` of N·I.
    pub fn forward(
        &self,
        device: &CudaDevice,
        x: &Tensor,
        hidden: Option<&Tensor>,
        added: Option<&Tensor>,
    ) -> Result<Buffer> {
        let (inner, width) = self.up.0.dims2()?;
        let rows = x.elem_count() / width;
        let [up, down] = self.maps(rows)?;
        let active = Buffer::new(device, (rows, inner), x.dtype())?.tensor();
        let before = hidden.unwrap_or(&active);
        up.write(device, x, &self.up.0, self.up.1.as_ref(), None, address(before)?)?;
        activate_into(before, address(&active)?, self.activation)?;
        let y = Buffer::new(device, x.shape(), x.dtype())?;
        let added = added.map(address).transpose()?;
        down.write(device, &active, &self.down.0, self.down.1.as_ref(), added, y.address()?)?;
        Ok(y)
    }

    /// From the slope of the result to that of x (N, D). The gradients of the weights but `down`'s bias are written where
    /// `gradients` says; they take exact GELU as the activation.
    ///
    /// # Shapes
    /// `grad` of N·D elements, `hidden` of N·I.
    pub fn backward(
        &self,
        device: &CudaDevice,
        hidden: &Tensor,
        grad: &Tensor,
        gradients: Option<&Gradients<'_>>,
    ) -> Result<Tensor> {
        let (inner, width) = self.up.0.dims2()?;
        let rows = grad.elem_count() / width;
        let [up, down] = self.maps(rows)?;
        let slope = down.input_gradient(device, &self.down.0, grad)?;
        match gradients {
            None => slope_into(hidden, &slope, &slope, self.activation)?,
            Some(to) => {
                if self.activation != Activation::Gelu {
                    bail!("an MLP's weights are trained with GELU, not {:?}", self.activation);
                }
                let active = Buffer::new(device, (rows, inner), grad.dtype())?.tensor();
                gelu_backward(&hidden.reshape((rows, inner))?, &slope, &active, to.up_bias)?;
                down.write_weight_gradient(device, &active, grad, DType::F32, to.down)?;
                up.write_weight_gradient(device, to.input, &slope, DType::F32, to.up)?;
            }
        }
        up.input_gradient(device, &self.up.0, &slope)
    }
}
