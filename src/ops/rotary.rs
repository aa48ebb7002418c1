//! Rotary position embedding (Su et al., arXiv 2104.09864) in the rotate-half form of GPT-NeoX.

use candle_core::{D, Device, Result, Tensor};

/// Tables of `cos(p·ω_i)` and `sin(p·ω_i)` with `ω_i = base^(−2i/r)` for the first `r` channels of a head.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// (P, r/2), f32.
    cos_pr: Tensor,
    /// (P, r/2), f32.
    sin_pr: Tensor,
}

impl Rotary {
    /// Tables for `positions` positions; `rotated` is the number of leading channels of a head that turn.
    /// An odd r gives (r+1)/2 frequencies, still of the exponent `−2i/r`, and r + 1 channels turn.
    pub fn new(rotated: usize, base: f64, positions: usize, device: &Device) -> Result<Self> {
        let half = rotated.div_ceil(2);
        let angle = |p: usize, i: usize| {
            // Frequencies are rounded to f32 before the product, as the checkpoints' own code does.
            let frequency = (1.0 / base.powf(2.0 * i as f64 / rotated as f64)) as f32;
            p as f32 * frequency
        };
        let angles: Vec<f32> =
            (0..positions).flat_map(|p| (0..half).map(move |i| (p, i))).map(|(p, i)| angle(p, i)).collect();
        let angles = Tensor::from_vec(angles, (positions, half), device)?;
        Ok(Self { cos_pr: angles.cos()?, sin_pr: angles.sin()? })
    }

    /// Number of channels of a head that turn.
    pub fn rotated(&self) -> usize {
        2 * self.cos_pr.dims()[1]
    }

    /// Number of positions in the tables.
    pub fn positions(&self) -> usize {
        self.cos_pr.dims()[0]
    }

    /// The tables cos and sin, each (P, r/2).
    pub(super) fn tables(&self) -> [&Tensor; 2] {
        [&self.cos_pr, &self.sin_pr]
    }

    /// Turns the channel pairs (i, i + r/2) of tokens at positions `start..start + T`.
    ///
    /// # Shapes
    /// `x_bhtc` (B, H, T, C), result the same.
    pub fn apply(&self, x_bhtc: &Tensor, start: usize) -> Result<Tensor> {
        let rotated = self.rotated();
        if rotated == 0 {
            return Ok(x_bhtc.clone());
        }
        let (_, _, tokens, channels) = x_bhtc.dims4()?;
        let cos = self.cos_pr.narrow(0, start, tokens)?.to_dtype(x_bhtc.dtype())?;
        let sin = self.sin_pr.narrow(0, start, tokens)?.to_dtype(x_bhtc.dtype())?;
        let a = x_bhtc.narrow(D::Minus1, 0, rotated / 2)?;
        let b = x_bhtc.narrow(D::Minus1, rotated / 2, rotated / 2)?;
        let turned_a = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let turned_b = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        if rotated == channels {
            return Tensor::cat(&[turned_a, turned_b], D::Minus1);
        }
        let rest = x_bhtc.narrow(D::Minus1, rotated, channels - rotated)?;
        Tensor::cat(&[turned_a, turned_b, rest], D::Minus1)
    }
}

/// Turns one head's channels by the angles of its position; `direction` −1 turns back.
#[inline(always)]
pub(super) fn turn(x: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
    let half = cos.len();
    let (a, b) = x[..2 * half].split_at_mut(half);
    for i in 0..half {
        let (first, second, s) = (a[i], b[i], direction * sin[i]);
        a[i] = first * cos[i] - second * s;
        b[i] = second * cos[i] + first * s;
    }
}
