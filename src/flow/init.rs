//! Where a velocity field's weights start.

use std::str::FromStr;

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::pythia::Config;

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
fn normal(rng: &mut ChaCha8Rng, shape: &[usize], std: f64, device: &Device) -> Result<Tensor> {
    let normal = Normal::new(0.0, std as f32)?;
    let values: Vec<f32> = normal.sample_iter(rng).take(shape.iter().product()).collect();
    Ok(Tensor::from_vec(values, shape, device)?)
}

/// Weight matrices are normal with the teacher's initial deviation (the time MLP and what reads it with DiT's
/// 0.02), norms are one, biases zero; the adaLN projection is zero but for the gates' bias. Low-rank updates
/// start at zero, since their `up` does.
pub(super) fn initial(
    name: &str,
    shape: &[usize],
    gate: f64,
    config: &Config,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Result<Tensor> {
    let zeros = || Tensor::zeros(shape, DType::F32, device);
    Ok(match name {
        "adaln.weight" => zeros()?,
        "adaln.bias" => {
            let d = shape[0] / 6;
            let values = (0..6 * d).map(|i| if i < 4 * d { 0.0 } else { gate as f32 }).collect();
            Tensor::from_vec(values, shape, device)?
        }
        "low_rank.scale.bias" => Tensor::ones(shape, DType::F32, device)?,
        _ if name.ends_with("layernorm.weight") => Tensor::ones(shape, DType::F32, device)?,
        _ if name.ends_with(".bias") || name.ends_with(".up") || name == "times.lengths" => zeros()?,
        _ if name.ends_with(".down") => normal(rng, shape, (shape[1] as f64).powf(-0.5), device)?,
        _ if name.starts_with("time.") || name == "low_rank.scale.weight" => {
            normal(rng, shape, 0.02, device)?
        }
        _ => normal(rng, shape, config.initializer_range, device)?,
    })
}
