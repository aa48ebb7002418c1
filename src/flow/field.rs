//! What flow matching and flow walking need of a velocity field.

use candle_core::Tensor;

use crate::ops;

/// What an evaluation of a walk is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The latents that it evaluates.
    Own,
    /// Those that the evaluation in front of it evaluates.
    Previous,
}

/// One evaluation of a walk, of what the one in front of it gives: `base + factor·length⊙u(x, time)`.
#[derive(Clone, Debug)]
pub struct Stage {
    /// (B) or (1).
    pub time: Tensor,
    /// Like the time.
    pub length: Tensor,
    pub factor: f64,
    pub base: Base,
}

/// A time-dependent vector field `u(x, t)` over latents.
///
/// Implemented by [`VelocityField`](super::VelocityField) and by closures, so that an own field
/// (a script's function, say) trains with the same losses.
pub trait Field {
    /// The velocity at time t.
    ///
    /// # Shapes
    /// `x` (B, T, D); `t` (B) or (1), f32; result (B, T, D).
    fn velocity(&self, x: &Tensor, t: &Tensor) -> anyhow::Result<Tensor>;

    /// `d·u(x, t)` for one step length d an example: how a walk with times of its own for every example
    /// becomes an ordinary solver step of length 1.
    ///
    /// # Shapes
    /// as [`velocity`](Self::velocity), with `d` like `t`.
    fn scaled_velocity(&self, x: &Tensor, t: &Tensor, d: &Tensor) -> anyhow::Result<Tensor> {
        let u = self.velocity(x, t)?;
        Ok(ops::scale(&u, &d.to_dtype(u.dtype())?)?)
    }

    /// `base + c·d⊙u(x, t)`: what a solver's step adds up.
    ///
    /// # Shapes
    /// as [`scaled_velocity`](Self::scaled_velocity), with `base` like `x`.
    fn advance(
        &self,
        base: &Tensor,
        (x, t): (&Tensor, &Tensor),
        d: &Tensor,
        c: f64,
    ) -> anyhow::Result<Tensor> {
        sum(base, self.scaled_velocity(x, t, d)?, c)
    }

    /// The result of the last of these stages, from `x0` on, where the field takes them as one operation; `None` where it
    /// does not.
    ///
    /// # Shapes
    /// `x0` (B, T, D), result the same.
    ///
    /// # Errors
    /// When memory is short.
    fn carry(&self, x0: &Tensor, stages: &[Stage]) -> anyhow::Result<Option<Tensor>> {
        let _ = (x0, stages);
        Ok(None)
    }

    /// Runs `body`, in which the field's parameters do not change, so that what is made of them may be made once, and at
    /// once for the given times. Times of other tensors remain possible.
    ///
    /// # Errors
    /// Those of `body`, and when memory is short.
    fn unchanged(
        &self,
        times: &[Tensor],
        body: impl FnOnce() -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Tensor>
    where
        Self: Sized,
    {
        let _ = times;
        body()
    }
}

impl<F: Fn(&Tensor, &Tensor) -> anyhow::Result<Tensor>> Field for F {
    fn velocity(&self, x: &Tensor, t: &Tensor) -> anyhow::Result<Tensor> {
        self(x, t)
    }
}

/// `base + c·u`.
pub(super) fn sum(base: &Tensor, u: Tensor, c: f64) -> anyhow::Result<Tensor> {
    Ok(if c == 1.0 { (base + u)? } else { (base + (u * c)?)? })
}
