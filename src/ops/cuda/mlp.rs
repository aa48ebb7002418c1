//! The MLP of a layer, some rows at a time.
//!
//! Its hidden values are four times as wide as the stream. All of them at once go to memory and back between the products
//! and the activation; those of a few thousand rows stay in the card's second-level cache.

use candle_core::{CudaDevice, DType, Result, Tensor, bail};

use super::activation::{activate_into, gelu_backward, slope_into};
use super::linear::Map;
use super::memory::{Buffer, address};
use crate::ops::Activation;

/// Bytes of hidden values that are worked on at a time: a third of the second-level cache of an H100.
const HIDDEN: usize = 16 << 20;
/// Pieces have a multiple of so many rows, which is what a product's blocks cover.
const ROWS: usize = 256;

/// `down · act(up · x)` for rows x.
pub(super) struct Mlp {
    /// Weight (I, D) and bias (I).
    pub up: (Tensor, Option<Tensor>),
    /// Weight (D, I) and bias (D).
    pub down: (Tensor, Option<Tensor>),
    pub activation: Activation,
}

/// Where the gradients of the weights go: device addresses of f32, each with whether it joins what lies there.
pub(super) struct Gradients<'a> {
    /// The input x (…, D) of the MLP.
    pub input: &'a Tensor,
    pub up: (u64, bool),
    pub up_bias: Option<(u64, bool)>,
    pub down: (u64, bool),
}

/// A run of rows.
#[derive(Clone, Copy)]
struct Piece {
    first: usize,
    count: usize,
}

impl Piece {
    fn of(self, rows: &Tensor) -> Result<Tensor> {
        rows.narrow(0, self.first, self.count)
    }
}

impl Mlp {
    fn maps(&self, rows: usize) -> Result<[Map; 2]> {
        let (inner, width) = self.up.0.dims2()?;
        let up = Map { outputs: inner, inputs: width, rows };
        Ok([up, Map { outputs: width, inputs: inner, rows }])
    }

    fn pieces(&self, rows: usize) -> Result<impl Iterator<Item = Piece>> {
        let bytes = self.up.0.dim(0)? * self.up.0.dtype().size_in_bytes();
        let most = (HIDDEN / bytes).max(ROWS) / ROWS * ROWS;
        let each = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(ROWS).min(rows.max(1));
        Ok((0..rows).step_by(each).map(move |first| Piece { first, count: each.min(rows - first) }))
    }

    /// The MLP of `x`, on top of `added` where there is one. What the backward needs, the values in front of the
    /// activation, is written to `hidden` where there is one.
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
        let flat = |t: &Tensor, width: usize| t.reshape((rows, width));
        let (x_nd, added_nd) = (flat(x, width)?, added.map(|t| flat(t, width)).transpose()?);
        let hidden_ni = hidden.map(|t| flat(t, inner)).transpose()?;
        let y = Buffer::new(device, x.shape(), x.dtype())?;
        let row_bytes = width * x.dtype().size_in_bytes();
        for piece in self.pieces(rows)? {
            let [up, down] = self.maps(piece.count)?;
            let active = Buffer::new(device, (piece.count, inner), x.dtype())?.tensor();
            let before = hidden_ni.as_ref().map_or_else(|| Ok(active.clone()), |all| piece.of(all))?;
            up.write(device, &piece.of(&x_nd)?, &self.up.0, self.up.1.as_ref(), None, address(&before)?)?;
            activate_into(&before, address(&active)?, self.activation)?;
            let added = added_nd.as_ref().map(|all| address(&piece.of(all)?)).transpose()?;
            let to = y.address()? + (piece.first * row_bytes) as u64;
            down.write(device, &active, &self.down.0, self.down.1.as_ref(), added, to)?;
        }
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
        let grad_nd = grad.reshape((rows, width))?;
        let hidden_ni = hidden.reshape((rows, inner))?;
        let d_x = Buffer::new(device, (rows, width), grad.dtype())?.tensor();
        for piece in self.pieces(rows)? {
            let [up, down] = self.maps(piece.count)?;
            let (hidden, grad) = (piece.of(&hidden_ni)?, piece.of(&grad_nd)?);
            let slope = down.input_gradient(device, &self.down.0, &grad)?;
            match gradients {
                None => slope_into(&hidden, &slope, &slope, self.activation)?,
                Some(gradients) => {
                    if self.activation != Activation::Gelu {
                        bail!("an MLP's weights are trained with GELU, not {:?}", self.activation);
                    }
                    let gradients = gradients.of(piece);
                    let input = piece.of(&gradients.input.reshape((rows, width))?)?;
                    let active = Buffer::new(device, (piece.count, inner), grad.dtype())?.tensor();
                    gelu_backward(&hidden, &slope, &active, gradients.up_bias)?;
                    down.write_weight_gradient(device, &active, &grad, DType::F32, gradients.down)?;
                    up.write_weight_gradient(device, &input, &slope, DType::F32, gradients.up)?;
                }
            }
            up.write_input_gradient(device, &self.up.0, &slope, address(&piece.of(&d_x)?)?)?;
        }
        Ok(d_x)
    }
}

impl Gradients<'_> {
    /// A piece behind the first joins what those in front of it left.
    fn of(&self, piece: Piece) -> Self {
        let at = |(to, add): (u64, bool)| (to, add || piece.first > 0);
        Self { input: self.input, up: at(self.up), up_bias: self.up_bias.map(at), down: at(self.down) }
    }
}
