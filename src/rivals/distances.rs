//! How far layers turn the residual stream.

use std::f64::consts::PI;

use anyhow::{Result, ensure};
use candle_core::{D, DType, Tensor};

use crate::pythia::Pythia;

/// Means over tokens of the distances between the latents x_a and x_b at every two boundaries a < b.
pub struct Distances {
    boundaries: usize,
    means: Vec<Distance>,
}

/// The distances between two boundaries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    /// `E[1 − cos(x_a, x_b)]`: LLM-Streamline's criterion (arXiv 2403.19135); between neighbours ShortGPT's
    /// block influence (arXiv 2403.03853).
    pub cosine: f64,
    /// `E[arccos(cos(x_a, x_b))/π]`, the criterion of "The Unreasonable Ineffectiveness of the Deeper Layers"
    /// (arXiv 2403.17887), here over all tokens and not only the last of each sequence.
    pub angular: f64,
}

impl Distances {
    /// Boundaries L + 1.
    pub fn boundaries(&self) -> usize {
        self.boundaries
    }

    /// The distances between boundaries a and b.
    ///
    /// # Errors
    /// Unless `a < b ≤ L`.
    pub fn between(&self, a: usize, b: usize) -> Result<Distance> {
        ensure!(
            a < b && b < self.boundaries,
            "distances are measured from one boundary to a later one of 0..{}, not from {a} to {b}",
            self.boundaries - 1
        );
        Ok(self.means[a * self.boundaries + b])
    }

    /// The layers by block influence, from the least on.
    pub fn least_influential(&self) -> Vec<usize> {
        let mut layers: Vec<usize> = (0..self.boundaries - 1).collect();
        layers.sort_by(|&a, &b| self.influence(a).total_cmp(&self.influence(b)));
        layers
    }

    fn influence(&self, layer: usize) -> f64 {
        self.means[layer * self.boundaries + layer + 1].cosine
    }
}

/// The distances on batches of token ids (B, T).
///
/// # Errors
/// No batches, and those of the model.
pub fn distances(model: &Pythia, batches: &[Tensor], mut progress: impl FnMut(usize)) -> Result<Distances> {
    ensure!(!batches.is_empty(), "distances need at least one batch of tokens");
    let boundaries = model.config.num_hidden_layers + 1;
    let mut means = vec![Distance::default(); boundaries * boundaries];
    let tokens = batches.iter().map(Tensor::elem_count).sum::<usize>() as f64;
    for (done, ids) in batches.iter().enumerate() {
        let mut directions = Vec::with_capacity(boundaries);
        let mut x = model.hidden(ids, 0)?;
        for b in 0..boundaries {
            directions.push(direction(&x)?);
            if b + 1 < boundaries {
                x = model.run(&x, b, b + 1)?;
            }
        }
        for a in 0..boundaries {
            for b in a + 1..boundaries {
                for cos in (&directions[a] * &directions[b])?.sum(D::Minus1)?.to_vec1::<f32>()? {
                    let cos = f64::from(cos).clamp(-1.0, 1.0);
                    let mean = &mut means[a * boundaries + b];
                    mean.cosine += (1.0 - cos) / tokens;
                    mean.angular += cos.acos() / PI / tokens;
                }
            }
        }
        progress(done + 1);
    }
    Ok(Distances { boundaries, means })
}

/// Latents (B, T, D) as unit vectors (B·T, D).
fn direction(x: &Tensor) -> Result<Tensor> {
    let x = x.to_dtype(DType::F32)?.flatten(0, 1)?;
    let norm = (x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + 1e-12)?;
    Ok(x.broadcast_div(&norm)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::pythia::Config;

    #[test]
    fn distances_are_those_of_their_definition() -> Result<()> {
        let config = Config {
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            vocab_size: 31,
            initializer_range: 0.3,
            ..Config::default()
        };
        let model = Pythia::random(config, 7, DType::F32, &Device::Cpu)?;
        let ids = Tensor::new(&[[1u32, 5, 9], [7, 7, 0]], &Device::Cpu)?;
        let found = distances(&model, std::slice::from_ref(&ids), |_| {})?;
        let at = |b: usize| -> Result<Vec<Vec<f32>>> { Ok(model.hidden(&ids, b)?.flatten(0, 1)?.to_vec2()?) };
        let (mut cosine, mut angular) = (0.0, 0.0);
        for (x, y) in at(1)?.iter().zip(&at(3)?) {
            let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>();
            let cos = dot(x, y) / (dot(x, x) * dot(y, y)).sqrt();
            cosine += (1.0 - cos) / 6.0;
            angular += cos.acos() / PI / 6.0;
        }
        let between = found.between(1, 3)?;
        assert!((between.cosine - cosine).abs() < 1e-5 && (between.angular - angular).abs() < 1e-5);
        let order = found.least_influential();
        let influence = |layer: usize| found.between(layer, layer + 1).unwrap().cosine;
        assert!(order.windows(2).all(|pair| influence(pair[0]) <= influence(pair[1])));
        assert!(found.between(2, 2).is_err() && found.between(1, 4).is_err());
        Ok(())
    }
}
