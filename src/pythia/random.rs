//! Freshly initialised models, for tests, benchmarks and training from scratch.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Config, Pythia};

/// Values drawn from one stream of the generator; fixed, because it decides which numbers come out.
const CHUNK: usize = 1 << 16;

impl Pythia {
    /// A model with random weights as GPT-NeoX initialises them: matrices N(0, `initializer_range`²),
    /// biases 0, layer norms 1 and 0. The same seed gives the same weights on every machine.
    ///
    /// # Errors
    /// A configuration that cannot exist, or too little memory on the device.
    pub fn random(config: Config, seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        let std = config.initializer_range;
        let mut drawn = 0;
        Self::build(config, None, device, |name, shape| {
            let tensor = if name.ends_with(".bias") {
                Tensor::zeros(shape, DType::F32, &Device::Cpu)
            } else if shape.len() == 1 {
                Tensor::ones(shape, DType::F32, &Device::Cpu)
            } else {
                drawn += 1;
                Tensor::from_vec(normal(shape.iter().product(), std, seed, drawn), shape, &Device::Cpu)
            };
            let placed = tensor.and_then(|tensor| tensor.to_dtype(dtype)?.to_device(device));
            placed.with_context(|| format!("cannot make random weights {name} {shape:?}"))
        })
    }
}

/// `count` normal deviates by the Box–Muller transform; tensor and chunk select the generator's stream.
fn normal(count: usize, std: f64, seed: u64, tensor: u64) -> Vec<f32> {
    let mut values = vec![0f32; count];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(tensor << 32 | chunk as u64);
        for pair in values.chunks_mut(2) {
            let radius = std * (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
            for (value, direction) in pair.iter_mut().zip([cos, sin]) {
                *value = (radius * direction) as f32;
            }
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviates_have_the_asked_moments() {
        let values = normal(200_000, 0.02, 7, 1);
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| v as f64).sum::<f64>() / n;
        let variance = values.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / n;
        let fourth = values.iter().map(|&v| (v as f64 - mean).powi(4)).sum::<f64>() / n;
        // Four standard errors of each estimate.
        assert!(mean.abs() < 4.0 * 0.02 / n.sqrt());
        assert!((variance.sqrt() / 0.02 - 1.0).abs() < 4.0 / (2.0 * n).sqrt());
        assert!((fourth / variance.powi(2) - 3.0).abs() < 4.0 * (96.0 / n).sqrt());
    }

    #[test]
    fn seeds_decide_the_weights() {
        let config = Config {
            hidden_size: 8,
            intermediate_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            vocab_size: 11,
            ..Config::default()
        };
        let weights = |seed| {
            let model = Pythia::random(config.clone(), seed, DType::F32, &Device::Cpu).unwrap();
            let all = model.tensors();
            all.iter()
                .flat_map(|(_, t)| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
        assert_eq!(weights(1).len(), config.parameters().total);
    }
}
