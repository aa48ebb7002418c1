//! A chain of layers over whole sequences where no gradient is wanted, in f32 on the processor.
//!
//! A task takes its examples through all layers, in buffers that are used again from layer to layer.

use candle_core::{Result, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::attention_kernel::Sizes;
use super::field::Setting;
use super::kernel::{self, GRAIN, Matrix, Split, split, with_all};
use super::layer_norm::forward_rows;
use super::linear::Map;
use super::sequences::{Sequences, among_threads, inside, rows_together};

/// The weights of one layer: weight and bias of the two norms; of the packed projection, the attention's output and the
/// MLP's two maps the weight (O, I) and the bias (O) where there is one.
pub struct LayerWeights<'a> {
    /// Those of the norms.
    pub norms: [(&'a Tensor, &'a Tensor); 2],
    /// Those of the maps.
    pub maps: [(&'a Tensor, Option<&'a Tensor>); 4],
}

/// Carries latents over layers, `x + attn(ln₁(x)) + mlp(ln₂(x))` each where `parallel`, else `h = x + attn(ln₁(x))` and
/// `h + mlp(ln₂(h))`. `None` where the operation does not cover its operands: other dtypes and devices, records for
/// gradients, single tokens, more tokens than the rotary tables have positions.
///
/// # Shapes
/// `x` (B, T, D), result the same.
pub fn frozen(
    x: &Tensor,
    layers: &[LayerWeights<'_>],
    setting: &Setting,
    parallel: bool,
) -> Result<Option<Tensor>> {
    let (x, (batch, tokens, width)) = (x.contiguous()?, x.dims3()?);
    let tensors: Vec<Tensor> = layers.iter().flat_map(LayerWeights::tensors).cloned().collect();
    let covered = |tensor: &Tensor| kernel::applies(&[tensor]) && !tensor.track_op();
    let sizes = Sizes { tokens, heads: setting.heads, channels: width / setting.heads.max(1) };
    let fits = layers.iter().all(|layer| layer.fits(width, 3 * sizes.heads * sizes.channels));
    if tokens <= super::matvec::ROWS
        || tokens > setting.rotary.positions()
        || !fits
        || !std::iter::once(&x).chain(&tensors).chain(setting.rotary.tables()).all(covered)
    {
        return Ok(None);
    }
    let mut out = x.flatten_all()?.to_vec1::<f32>()?;
    with_all(&tensors, |slices| {
        let mut slices = slices.iter().copied();
        let mut chain: Vec<View<'_>> = layers.iter().filter_map(|layer| layer.view(&mut slices)).collect();
        let sequences = Sequences { batch, tokens, width };
        let splits = splits(&chain, sequences.tasks());
        for (layer, splits) in chain.iter_mut().zip(&splits) {
            layer.maps.iter_mut().zip(splits).for_each(|(map, split)| map.split = split.as_ref());
        }
        // Tasks that go through a layer one after the other find its weights in the cache.
        let together = (sequences.tasks() / rayon::current_num_threads()).clamp(1, TOGETHER);
        let run = Run { sizes, setting, parallel, products: inside(sequences.tasks().div_ceil(together)) };
        let task = sequences.rows() * width;
        among_threads(|| {
            out.par_chunks_mut(task * together).try_for_each_init(Buffers::default, |buffers, tasks| {
                let mut layer = |layer| tasks.chunks_mut(task).try_for_each(|x| run.layer(layer, x, buffers));
                chain.iter().try_for_each(&mut layer)
            })
        })
    })?;
    Tensor::from_vec(out, x.shape(), x.device()).map(Some)
}

/// Most tasks that go through a layer one after the other.
const TOGETHER: usize = 4;
/// Bytes that split weights may take.
const SPLIT_BYTES: usize = 256 << 20;

/// The transposed weights of every layer's maps split for the tile unit, where tasks share them and they are not too large;
/// each f32 becomes three bf16.
fn splits(chain: &[View<'_>], tasks: usize) -> Vec<[Option<Split>; 4]> {
    let elements: usize = chain.iter().flat_map(|layer| &layer.maps).map(|map| map.weight.len()).sum();
    if tasks < 2 || 6 * elements > SPLIT_BYTES {
        return Vec::new();
    }
    let split = |map: &Map<'_>| split((map.inputs, map.outputs), Matrix::rows(map.weight, map.inputs).t());
    chain.par_iter().map(|layer| layer.maps.each_ref().map(split)).collect()
}

impl<'a> LayerWeights<'a> {
    fn tensors(&self) -> impl Iterator<Item = &'a Tensor> {
        let norms = self.norms.into_iter().flat_map(|(weight, bias)| [weight, bias]);
        norms.chain(self.maps.into_iter().flat_map(|(weight, bias)| std::iter::once(weight).chain(bias)))
    }

    /// Whether these are the weights of a layer of this width, whose packed projection has so many outputs.
    fn fits(&self, width: usize, packed: usize) -> bool {
        let [qkv, dense, up, down] = self.maps.map(|(weight, _)| weight.dims2().unwrap_or((0, 0)));
        (qkv, dense) == ((packed, width), (width, packed / 3)) && up.1 == width && down == (width, up.0)
    }

    /// The weights' elements, which come in the order of [`LayerWeights::tensors`].
    fn view<'s>(&self, slices: &mut impl Iterator<Item = &'s [f32]>) -> Option<View<'s>> {
        let norms = [[slices.next()?, slices.next()?], [slices.next()?, slices.next()?]];
        let mut map = |(weight, bias): (&Tensor, Option<&Tensor>)| {
            let (outputs, inputs) = weight.dims2().ok()?;
            let (weight, bias) = (slices.next()?, bias.and_then(|_| slices.next()));
            Some(Map { weight, split: None, bias, outputs, inputs })
        };
        let [qkv, dense, up, down] = self.maps;
        Some(View { norms, maps: [map(qkv)?, map(dense)?, map(up)?, map(down)?] })
    }
}

/// The elements of one layer's weights.
struct View<'a> {
    /// Weight and bias of each norm.
    norms: [[&'a [f32]; 2]; 2],
    maps: [Map<'a>; 4],
}

/// What the layers of a task write to, again and again. R: its rows.
#[derive(Default)]
struct Buffers {
    /// (R, D): the input of a branch.
    normal: Vec<f32>,
    /// (R, 3·D).
    packed: Vec<f32>,
    /// (R, D).
    mixed: Vec<f32>,
    /// (H·R).
    log_sums: Vec<f32>,
    /// (R', I) with as many rows R' as go through the MLP together.
    hidden: Vec<f32>,
}

/// What all layers share.
struct Run<'a> {
    sizes: Sizes,
    setting: &'a Setting,
    parallel: bool,
    products: Parallelism,
}

impl Run<'_> {
    /// Carries a task's rows (R, D) over a layer, in place.
    fn layer(&self, layer: &View<'_>, x: &mut [f32], buffers: &mut Buffers) -> Result<()> {
        let Buffers { normal, packed, mixed, log_sums, hidden } = buffers;
        let [qkv, dense, up, down] = &layer.maps;
        let rows = x.len() / qkv.inputs;
        let together = rows_together(up.outputs).min(rows);
        normal.resize(x.len(), 0.0);
        packed.resize(rows * qkv.outputs, 0.0);
        mixed.resize(rows * dense.inputs, 0.0);
        log_sums.resize(rows * self.sizes.heads, 0.0);
        hidden.resize(together * up.outputs, 0.0);

        self.norm(layer.norms[0], x, normal);
        qkv.onto(0.0, normal, packed, self.products);
        self.sizes.turn(packed, &self.setting.rotary, 1.0)?;
        self.sizes.attend_into(packed, log_sums, mixed);
        if self.parallel {
            self.norm(layer.norms[1], x, normal);
            dense.onto(1.0, mixed, x, self.products);
        } else {
            dense.onto(1.0, mixed, x, self.products);
            self.norm(layer.norms[1], x, normal);
        }
        let block = together * up.inputs;
        for (normal, x) in normal.chunks(block).zip(x.chunks_mut(block)) {
            let hidden = &mut hidden[..normal.len() / up.inputs * up.outputs];
            up.onto(0.0, normal, hidden, self.products);
            self.setting.activation.in_place(hidden);
            down.onto(1.0, hidden, x, self.products);
        }
        Ok(())
    }

    fn norm(&self, [weight, bias]: [&[f32]; 2], x: &[f32], y: &mut [f32]) {
        let block = (GRAIN / weight.len()).max(1) * weight.len();
        let eps = self.setting.eps as f32;
        let blocks = y.par_chunks_mut(block).zip(x.par_chunks(block));
        blocks.for_each(|(y, x)| forward_rows(x, weight, bias, eps, y));
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::ops::check::{agrees, random};
    use crate::ops::{self, Activation, Rotary};

    /// The weights of a layer, without biases of the attention's maps where they are not wanted.
    fn weights(d: usize, inner: usize, seed: u64) -> Result<Vec<Tensor>> {
        let shapes: [&[usize]; 12] = [
            &[d],
            &[d],
            &[d],
            &[d],
            &[3 * d, d],
            &[3 * d],
            &[d, d],
            &[d],
            &[inner, d],
            &[inner],
            &[d, inner],
            &[d],
        ];
        shapes.iter().enumerate().map(|(i, shape)| random(shape, seed + i as u64)? * 0.5).collect()
    }

    fn layer(w: &[Tensor], biased: bool) -> LayerWeights<'_> {
        let map = |i: usize, biased: bool| (&w[i], biased.then_some(&w[i + 1]));
        let maps = [map(4, biased), map(6, biased), map(8, true), map(10, true)];
        LayerWeights { norms: [(&w[0], &w[1]), (&w[2], &w[3])], maps }
    }

    fn composed(x: &Tensor, layer: &LayerWeights<'_>, setting: &Setting, parallel: bool) -> Result<Tensor> {
        let norm = |i: usize, x: &Tensor| ops::layer_norm(x, layer.norms[i].0, layer.norms[i].1, setting.eps);
        let map = |i: usize, x: &Tensor| ops::linear(x, layer.maps[i].0, layer.maps[i].1);
        let mixed = ops::attention::causal(&map(0, &norm(0, x)?)?, &setting.rotary, setting.heads)?;
        let after = (x + map(1, &mixed)?)?;
        let seen = if parallel { x } else { &after };
        let mlp = map(3, &setting.activation.apply(&map(2, &norm(1, seen)?)?)?)?;
        &after + mlp
    }

    #[test]
    fn chain_and_definition_agree() -> Result<()> {
        for (batch, tokens, d, heads, inner) in [(1, 5, 4, 2, 6), (3, 70, 12, 3, 20), (5, 130, 64, 4, 256)] {
            let rotary = Rotary::new(2, 10_000.0, 256, &Device::Cpu)?;
            let (first, second) = (weights(d, inner, 1)?, weights(d, inner, 50)?);
            let x = random(&[batch, tokens, d], 100)?;
            for activation in [Activation::Gelu, Activation::GeluNew, Activation::Relu, Activation::Silu] {
                let setting = Setting { rotary: rotary.clone(), heads, eps: 1e-5, activation };
                for (parallel, biased) in [(true, true), (false, true), (true, false)] {
                    let layers = [layer(&first, biased), layer(&second, biased)];
                    let found = frozen(&x, &layers, &setting, parallel)?.expect("operands that are covered");
                    let expected = composed(&x, &layers[0], &setting, parallel)?;
                    agrees(&found, &composed(&expected, &layers[1], &setting, parallel)?, 1e-5)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn records_for_gradients_and_other_formats_are_left_to_others() -> Result<()> {
        let rotary = Rotary::new(2, 10_000.0, 8, &Device::Cpu)?;
        let setting = Setting { rotary, heads: 2, eps: 1e-5, activation: Activation::Gelu };
        let w = weights(4, 6, 1)?;
        let x = random(&[2, 6, 4], 2)?;
        let not_covered = |x: &Tensor, w: &[Tensor]| -> Result<bool> {
            Ok(frozen(x, &[layer(w, true)], &setting, true)?.is_none())
        };
        assert!(!not_covered(&x, &w)?);
        assert!(not_covered(Var::from_tensor(&x)?.as_tensor(), &w)?);
        assert!(not_covered(&x.to_dtype(candle_core::DType::F64)?, &w)?);
        assert!(not_covered(&random(&[2, 9, 4], 2)?, &w)?);
        let mut trained = w.clone();
        trained[4] = Var::from_tensor(&w[4])?.into_inner();
        assert!(not_covered(&x, &trained)?);
        Ok(())
    }
}
