//! Following the teacher layer by layer: the flow's path is the teacher's own instead of a straight line.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use rand::Rng;

use super::field::Field;
use super::matching::mean_square;

/// One layer of a block of `layers` for each example, uniform.
pub fn uniform_layers(batch: usize, layers: usize, rng: &mut impl Rng) -> Vec<usize> {
    (0..batch).map(|_| rng.random_range(0..layers)).collect()
}

/// `L = E‖u(x_b, t_b) − k·(x_{b+1} − x_b)‖²` with x_b the teacher's latents at the b-th boundary of the block,
/// `t_b = b/k` and k the number of its layers: a field without error walks the teacher's latents in k Euler
/// steps. `layers` names b for each example.
///
/// # Shapes
/// `path` k + 1 tensors (B, T, D); `layers` B numbers below k; result a scalar.
pub fn path_loss(u: &impl Field, path: &[Tensor], layers: &[usize]) -> Result<Tensor> {
    let k = path.len().saturating_sub(1);
    let first = path.first().context("a path needs latents")?;
    let batch = first.dim(0)?;
    ensure!(k >= 1 && layers.len() == batch, "a path of {k} layers does not fit {} examples", layers.len());
    let stacked = Tensor::cat(path, 0)?;
    let pick = |offset: usize| -> Result<Tensor> {
        let rows = layers.iter().enumerate().map(|(i, b)| ((b + offset) * batch + i) as u32);
        let rows = Tensor::from_iter(rows, &Device::Cpu)?.to_device(stacked.device())?;
        Ok(stacked.index_select(&rows, 0)?)
    };
    let (x, next) = (pick(0)?, pick(1)?);
    let t: Vec<f32> = layers.iter().map(|b| *b as f32 / k as f32).collect();
    let t = Tensor::from_vec(t, batch, first.device())?;
    mean_square(&u.velocity(&x, &t)?, &((next - &x)? * k as f64)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::random;

    #[test]
    fn the_teachers_own_update_has_no_loss() -> Result<()> {
        // x_{b+1} = x_b + (b + 1)·x_b: the field u = k·(k·t + 1)·x walks it exactly.
        let x0 = random(&[2, 3, 4], 1)?;
        let path = [x0.clone(), (&x0 * 2.0)?, (&x0 * 6.0)?, (&x0 * 24.0)?];
        let exact = |x: &Tensor, t: &Tensor| {
            let factor = ((t * 3.0)? + 1.0)?.affine(3.0, 0.0)?;
            Ok(x.broadcast_mul(&factor.reshape(((), 1, 1))?)?)
        };
        assert!(path_loss(&exact, &path, &[0, 2])?.to_scalar::<f32>()? < 1e-9);
        let off = |x: &Tensor, t: &Tensor| Ok((exact(x, t)? + 1.0)?);
        assert!((path_loss(&off, &path, &[2, 1])?.to_scalar::<f32>()? - 1.0).abs() < 1e-4);
        assert!(path_loss(&exact, &path, &[0]).is_err());
        Ok(())
    }
}
