//! A velocity field whose activations are not kept for the backward pass.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{Error, Tensor};

use super::field::{Stage, sum};
use super::{Field, VelocityField};
use crate::ops::Recompute;

/// How a field is evaluated in training.
pub enum Evaluation {
    /// Everything that the backward pass needs is kept.
    Kept(Arc<VelocityField>),
    /// Of each evaluation only input and result are kept; the backward pass computes the rest once more. A walk then
    /// holds the activations of one evaluation at a time.
    Recomputed(Arc<VelocityField>, Recompute),
}

impl Evaluation {
    /// The field, evaluated one way or the other.
    ///
    /// # Errors
    /// When memory is short.
    pub fn of(field: &Arc<VelocityField>, recompute: bool) -> Result<Self> {
        if !recompute {
            return Ok(Self::Kept(field.clone()));
        }
        let parameters: Vec<Tensor> = field.parameters().iter().map(|(_, v)| v.as_tensor().clone()).collect();
        Ok(Self::Recomputed(field.clone(), Recompute::new(&parameters)?))
    }
}

impl Field for Evaluation {
    fn velocity(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        match self {
            // A time that is trained itself needs its gradient, which only the whole graph gives.
            Self::Recomputed(field, recompute) if !t.track_op() => {
                let (field, t) = (field.clone(), t.clone());
                Ok(recompute.call(x, move |x, p| {
                    field.on(p).and_then(|field| field.velocity(x, &t)).map_err(message)
                })?)
            }
            Self::Kept(field) | Self::Recomputed(field, _) => field.velocity(x, t),
        }
    }

    fn scaled_velocity(&self, x: &Tensor, t: &Tensor, d: &Tensor) -> Result<Tensor> {
        match self {
            Self::Recomputed(field, recompute) if !t.track_op() && !d.track_op() => {
                let (field, t, d) = (field.clone(), t.clone(), d.clone());
                let twice = move |x: &Tensor, p: &[Tensor]| {
                    field.on(p).and_then(|field| field.scaled_velocity(x, &t, &d)).map_err(message)
                };
                Ok(recompute.call(x, twice)?)
            }
            Self::Kept(field) | Self::Recomputed(field, _) => field.scaled_velocity(x, t, d),
        }
    }

    fn advance(&self, base: &Tensor, (x, t): (&Tensor, &Tensor), d: &Tensor, c: f64) -> Result<Tensor> {
        match self {
            Self::Kept(field) => field.advance(base, (x, t), d, c),
            Self::Recomputed(..) => sum(base, self.scaled_velocity(x, t, d)?, c),
        }
    }

    fn carry(&self, x0: &Tensor, stages: &[Stage]) -> Result<Option<Tensor>> {
        match self {
            Self::Kept(field) => field.carry(x0, stages),
            Self::Recomputed(..) => Ok(None),
        }
    }

    fn unchanged(&self, times: &[Tensor], body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        match self {
            Self::Kept(field) => field.unchanged(times, body),
            Self::Recomputed(..) => body(),
        }
    }
}

fn message(error: anyhow::Error) -> Error {
    Error::msg(format!("{error:#}"))
}
