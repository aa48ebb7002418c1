//! ReplaceMe (Shopkhoev et al., arXiv 2505.02819): layers replaced by a linear map that needs no training and
//! no new weights.

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};

use super::least_squares::LeastSquares;
use crate::pythia::{Affine, Layer, Pythia};

/// The model with layers `first + 1..last` left out and a linear map T merged into the MLP of layer `first`.
///
/// With M the output of that layer's MLP and Y what else its output consists of, T minimises
/// `‖M·T + Y − x‖² + λ‖T‖²` over all tokens, where x are the latents at boundary `last`; then
/// `W ← TᵀW`, `b ← Tᵀb` in the MLP's last projection. The layer keeps its size.
///
/// `ridge` is λ as a share of the mean diagonal of MᵀM. `progress` hears the batches done.
///
/// # Errors
/// Boundaries outside `first + 1 < last ≤ L`, too few tokens for the number of columns, and those of the model.
pub fn replace_me(
    model: &Pythia,
    first: usize,
    last: usize,
    batches: &[Tensor],
    ridge: f64,
    mut progress: impl FnMut(usize),
) -> Result<Pythia> {
    let layers = model.config.num_hidden_layers;
    ensure!(
        first + 1 < last && last <= layers,
        "ReplaceMe keeps layer {first} and needs at least one more layer to leave out before boundary {last} of {layers}"
    );
    ensure!(ridge.is_finite() && ridge >= 0.0, "ridge = {ridge}, but it must not be negative");
    let layer = model.layer(first);
    let width = model.config.hidden_size;
    let mut problem = LeastSquares::new(width)?;
    for (done, ids) in batches.iter().enumerate() {
        let x = model.hidden(ids, first)?;
        let mlp = branch(model, layer, &x)?;
        let after = model.run(&x, first, first + 1)?;
        let target = model.run(&after, first + 1, last)?;
        let rest = (target - (&after - &mlp)?)?;
        problem.add(&mlp, &rest)?;
        progress(done + 1);
    }
    let t: Vec<f32> = problem.solve(ridge)?.into_iter().map(|t| t as f32).collect();
    let t = Tensor::from_vec(t, (width, width), model.device())?.t()?.contiguous()?;

    let out = &layer.dense_4h_to_h;
    let merge = |w: &Tensor| t.matmul(&w.to_dtype(DType::F32)?)?.to_dtype(w.dtype());
    let weight = merge(&out.weight)?;
    let bias = out.bias.as_ref().map(|b| merge(&b.unsqueeze(1)?)?.squeeze(1)).transpose()?;
    let merged = Layer { dense_4h_to_h: Affine { weight, bias }, ..layer.clone() };
    let mut kept = model.layers()[..first].to_vec();
    kept.push(merged);
    kept.extend_from_slice(&model.layers()[last..]);
    Ok(model.with_layers(kept))
}

/// The output of a layer's MLP branch.
fn branch(model: &Pythia, layer: &Layer, x: &Tensor) -> Result<Tensor> {
    let context = model.context();
    let seen = if context.parallel {
        x.clone()
    } else {
        (x + layer.attention(&layer.input_layernorm.forward(x, context.eps)?, context)?)?
    };
    Ok(layer.mlp(&layer.post_attention_layernorm.forward(&seen, context.eps)?, context)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::check::agrees;
    use crate::pythia::Config;

    fn model(parallel: bool) -> Result<Pythia> {
        let config = Config {
            hidden_size: 8,
            intermediate_size: 24,
            num_hidden_layers: 4,
            num_attention_heads: 2,
            vocab_size: 31,
            initializer_range: 0.3,
            use_parallel_residual: parallel,
            ..Config::default()
        };
        Pythia::random(config, 7, DType::F32, &Device::Cpu)
    }

    fn batches() -> Result<Vec<Tensor>> {
        let ids = |seed: u32| (0..24u32).map(|i| (i * i * 7 + seed * i + seed) % 31).collect::<Vec<_>>();
        (0..4).map(|seed| Ok(Tensor::from_vec(ids(seed), (2, 12), &Device::Cpu)?)).collect()
    }

    /// Of what linear maps of the MLP's output can reach, the solution is nearest, so that the layers left out
    /// are replaced better than by nothing (T = 1) and by any small change of T.
    #[test]
    fn the_merged_map_is_the_best_linear_one() -> Result<()> {
        for parallel in [true, false] {
            let (model, batches) = (model(parallel)?, batches()?);
            let short = replace_me(&model, 1, 4, &batches, 0.0, |_| {})?;
            assert_eq!(short.config.num_hidden_layers, 2);
            let error = |short: &Pythia| -> Result<f64> {
                let mut sum = 0.0;
                for ids in &batches {
                    let difference = (short.hidden(ids, 2)? - model.hidden(ids, 4)?)?;
                    sum += f64::from(difference.sqr()?.sum_all()?.to_scalar::<f32>()?);
                }
                Ok(sum)
            };
            let best = error(&short)?;
            let skipped = model.with_layers(model.layers()[..2].to_vec());
            assert!(best < 0.9 * error(&skipped)?, "{best}");
            for (row, column, step) in [(0, 0, 1e-2), (3, 5, 1e-2), (3, 5, -1e-2)] {
                let mut t = vec![0f32; 64];
                (0..8).for_each(|i| t[i * 9] = 1.0);
                t[row * 8 + column] += step;
                let t = Tensor::from_vec(t, (8, 8), &Device::Cpu)?;
                let mut layers = short.layers().to_vec();
                let out = &mut layers[1].dense_4h_to_h;
                let bias = out.bias.as_ref().map(|b| t.matmul(&b.unsqueeze(1)?)?.squeeze(1)).transpose()?;
                *out = Affine { weight: t.matmul(&out.weight)?, bias };
                assert!(
                    error(&short.with_layers(layers))? > best,
                    "moving T by {step} at {row}, {column} helps"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn what_needs_no_map_keeps_the_layer() -> Result<()> {
        let model = model(true)?;
        // Layers that add nothing: the best map is the identity.
        let mut layers = model.layers().to_vec();
        for layer in &mut layers[2..] {
            *layer = layer.map(&mut |w| w.zeros_like())?;
        }
        let silent = model.with_layers(layers);
        let short = replace_me(&silent, 1, 4, &batches()?, 0.0, |_| {})?;
        agrees(&short.layer(1).dense_4h_to_h.weight, &silent.layer(1).dense_4h_to_h.weight, 1e-3)?;
        assert!(replace_me(&model, 1, 2, &batches()?, 0.0, |_| {}).is_err());
        assert!(replace_me(&model, 1, 4, &[], 0.0, |_| {}).is_err(), "no tokens");
        Ok(())
    }
}
