//! Where a velocity field's weights start.

use std::str::FromStr;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

/// Initialisation of a velocity field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// The adaLN projection is zero, so that `u = 0` and the student starts as "skip the block".
    Zero,
    /// Weights of a teacher layer, with gates `α = n − m`: one Euler step repeats that layer's update
    /// once for every layer of the block.
    Teacher,
}

impl FromStr for Init {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "zero" => Ok(Self::Zero),
            "teacher" => Ok(Self::Teacher),
            _ => bail!("unknown initialisation '{name}': it is 'zero' or 'teacher'"),
        }
    }
}

/// A tensor of independent normal values with mean 0.
pub(super) fn normal(rng: &mut ChaCha8Rng, shape: &[usize], std: f64, device: &Device) -> Result<Tensor> {
    let normal = Normal::new(0.0, std as f32)?;
    let values: Vec<f32> = normal.sample_iter(rng).take(shape.iter().product()).collect();
    Ok(Tensor::from_vec(values, shape, device)?)
}
