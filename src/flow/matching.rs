//! Flow matching (paper, eq. 3) and its one-step rival, plain regression.

use anyhow::Result;
use candle_core::{Device, Tensor};
use rand::Rng;

use super::field::Field;
use crate::ops;

/// One time for each example, uniform on 0..1.
///
/// # Shapes
/// (B).
pub fn uniform_times(batch: usize, rng: &mut impl Rng, device: &Device) -> Result<Tensor> {
    let t: Vec<f32> = (0..batch).map(|_| rng.random()).collect();
    Ok(Tensor::from_vec(t, batch, device)?)
}

/// `L = E‖u(x_t, t) − (x1 − x0)‖²` on the straight path `x_t = (1−t)·x0 + t·x1` (paper, eq. 3).
///
/// The mean runs over examples, tokens and channels.
///
/// # Shapes
/// `x0`, `x1` (B, T, D); `t` (B), uniform on 0..1; result a scalar.
pub fn matching_loss(u: &impl Field, x0: &Tensor, x1: &Tensor, t: &Tensor) -> Result<Tensor> {
    let (x_t, displacement) = ops::straight_path(x0, x1, t)?;
    mean_square(&u.velocity(&x_t, t)?, &displacement)
}

/// `L = E‖x0 + u(x0, 0) − x1‖²`: the layer as an ordinary one-step map.
///
/// # Shapes
/// `x0`, `x1` (B, T, D); result a scalar.
pub fn regression_loss(u: &impl Field, x0: &Tensor, x1: &Tensor) -> Result<Tensor> {
    let start = Tensor::zeros(1, candle_core::DType::F32, x0.device())?;
    mean_square(&u.velocity(x0, &start)?, &(x1 - x0)?)
}

/// Mean of (a − b)² over all elements.
pub(super) fn mean_square(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(ops::mean_square(a, b)?)
}
