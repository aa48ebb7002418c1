//! Every kernel against the CPU's, forward and backward, on random operands of odd and even shapes.
//!
//! Where there is no CUDA card these tests check nothing and say so.
#![cfg(feature = "cuda")]

use std::sync::Arc;

use anyhow::Context;
use candle_core::{DType, Device, Result, Tensor, Var};
use lft::flow::{Block, Evaluation, Extras, Init, VelocityField, divergence, language_loss, walking_loss};
use lft::ode::Method;
use lft::ops::adamw::{ClippedSlot, Update, adamw, clipped_adamw};
use lft::ops::{self, Activation, Rotary};
use lft::pythia::{Cache, Config, Decoder, Pythia};
use lft::train::{AdamWOptions, Rule, language_gradient};
use rand::{Rng, SeedableRng};

fn card() -> Option<Device> {
    let device = ops::cuda::open(0);
    if let Err(why) = &device {
        eprintln!("not checked, since there is no CUDA card: {why}");
    }
    device.ok()
}

/// Standard uniform values in −1..1.
fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let flat = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (flat(a)?, flat(b)?);
    let square = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    Ok(square(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / square(&mut b.iter().copied()).max(1e-12))
}

/// Asserts that f and its gradients with respect to every operand agree between the CPU in f32 and the card with
/// operands of the given dtypes; operands are such that bf16 holds them exactly.
fn agrees(
    what: &str,
    card: &Device,
    operands: &[Tensor],
    dtypes: &[DType],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    agrees_within(1e-2, what, card, operands, dtypes, f)
}

/// The same with another limit in bf16.
fn agrees_within(
    rounding: f64,
    what: &str,
    card: &Device,
    operands: &[Tensor],
    dtypes: &[DType],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    let limit = if dtypes.contains(&DType::BF16) { rounding } else { 1e-4 };
    let run = |device: &Device,
               dtypes: &[DType],
               weights: Option<&Tensor>|
     -> Result<(Tensor, Vec<Tensor>, Tensor)> {
        let vars = operands
            .iter()
            .zip(dtypes)
            .map(|(x, &dtype)| Var::from_tensor(&x.to_dtype(dtype)?.to_device(device)?));
        let vars: Vec<Var> = vars.collect::<Result<_>>()?;
        let y = f(&vars.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>())?;
        let weights = match weights {
            Some(weights) => weights.clone(),
            None => random(y.dims(), 99)?.to_dtype(DType::BF16)?.to_dtype(DType::F32)?,
        };
        let loss = (y.to_dtype(DType::F32)? * weights.to_device(device)?)?.sum_all()?;
        let gradients = loss.backward()?;
        let gradients = vars
            .iter()
            .map(|v| gradients.get(v).cloned().ok_or_else(|| candle_core::Error::msg("no gradient")));
        Ok((y.detach(), gradients.collect::<Result<_>>()?, weights))
    };
    let (expected, expected_gradients, weights) = run(&Device::Cpu, &vec![DType::F32; dtypes.len()], None)?;
    let (found, gradients, _) = run(card, dtypes, Some(&weights))?;
    let error = distance(&found, &expected)?;
    assert!(error <= limit, "{what} {dtypes:?}: result off by {error:e}");
    for (i, (found, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
        let error = distance(found, expected)?;
        assert!(error <= limit, "{what} {dtypes:?}: gradient {i} off by {error:e}");
    }
    Ok(())
}

const F: DType = DType::F32;
const B: DType = DType::BF16;

/// Random values as bf16 holds them, so that both sides start from the same numbers.
fn values(shape: &[usize], seed: u64) -> Result<Tensor> {
    random(shape, seed)?.to_dtype(B)?.to_dtype(F)
}

#[test]
fn layer_norm() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    for (batch, tokens, width) in [(1, 1, 3), (2, 5, 48), (3, 67, 128), (2, 130, 1024), (2, 33, 770)] {
        for groups in [1, batch] {
            let operands = [
                values(&[batch, tokens, width], 1)?,
                values(&[groups, width], 2)?,
                values(&[groups, width], 3)?,
            ];
            let what = format!("layer_norm ({batch}, {tokens}, {width}), {groups} groups");
            for dtype in [F, B] {
                agrees(&what, &card, &operands, &[dtype; 3], |v| ops::layer_norm(&v[0], &v[1], &v[2], 1e-5))?;
            }
            mixed_layer_norm(&what, &card, &operands)?;
        }
    }
    Ok(())
}

/// The stream in f32 and the result in bf16: within bf16's rounding of the result.
fn mixed_layer_norm(what: &str, card: &Device, operands: &[Tensor; 3]) -> Result<()> {
    let run = |device: &Device, out: DType| -> Result<Vec<Tensor>> {
        let vars: Vec<Var> =
            operands.iter().map(|x| Var::from_tensor(&x.to_device(device)?)).collect::<Result<_>>()?;
        let y = ops::layer_norm_to(&vars[0], &vars[1], &vars[2], 1e-5, out)?;
        let weights = values(y.dims(), 99)?.to_device(device)?.to_dtype(out)?;
        let gradients = (&y * weights)?.to_dtype(F)?.sum_all()?.backward()?;
        let found = vars.iter().filter_map(|v| gradients.get(v).cloned());
        Ok(std::iter::once(y.detach()).chain(found).collect())
    };
    for (i, (found, expected)) in run(card, B)?.iter().zip(&run(&Device::Cpu, F)?).enumerate() {
        let error = distance(found, expected)?;
        assert!(error <= 1e-2, "{what}: tensor {i} off by {error:e}");
    }
    Ok(())
}

#[test]
fn activations() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    for n in [1, 7, 4096, 100_003] {
        let x = (values(&[n], 1)? * 4.0)?;
        for activation in [Activation::Gelu, Activation::GeluNew, Activation::Relu, Activation::Silu] {
            for dtype in [F, B] {
                agrees(&format!("{activation:?} of {n}"), &card, std::slice::from_ref(&x), &[dtype], |v| {
                    activation.apply(&v[0])
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn residual_and_gated_sums() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    for (batch, tokens, width) in [(1, 1, 3), (3, 301, 20), (2, 70, 1024), (2, 9, 257)] {
        let part = |seed| values(&[batch, tokens, width], seed);
        let what = format!("({batch}, {tokens}, {width})");
        for dtype in [F, B] {
            agrees(&format!("residual {what}"), &card, &[part(1)?, part(2)?, part(3)?], &[dtype; 3], |v| {
                ops::residual(&v[0], &v[1], &v[2])
            })?;
        }
        for groups in [1, batch] {
            let operands = [part(1)?, part(2)?, values(&[groups, 2, width], 3)?];
            for dtypes in [[F, F, F], [B, B, B], [B, B, F]] {
                agrees(&format!("gated_sum {what}"), &card, &operands, &dtypes, |v| {
                    ops::gated_sum(&v[0], &v[1], &v[2])
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn linear() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    for (rows, inputs, outputs) in [(1, 5, 9), (7, 16, 8), (130, 48, 144), (300, 128, 384), (64, 33, 1)] {
        let operands =
            [values(&[2, rows, inputs], 1)?, values(&[outputs, inputs], 2)?, values(&[outputs], 3)?];
        for dtypes in [[F, F, F], [B, B, B], [B, F, F]] {
            let what = format!("linear ({rows}, {inputs}, {outputs})");
            agrees(&what, &card, &operands, &dtypes, |v| ops::linear(&v[0], &v[1], Some(&v[2])))?;
            agrees(&what, &card, &operands[..2], &dtypes[..2], |v| ops::linear(&v[0], &v[1], None))?;
        }
    }
    Ok(())
}

#[test]
fn attention() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    for (batch, tokens, heads, channels, rotated) in [
        (1, 1, 1, 4, 2),
        (2, 65, 2, 8, 8),
        (1, 200, 3, 6, 0),
        (2, 64, 4, 32, 8),
        (1, 129, 2, 64, 16),
        (2, 300, 2, 64, 64),
        (2, 7, 3, 64, 16),
        (3, 191, 2, 64, 0),
        (1, 385, 40, 64, 16),
        (1, 190, 2, 80, 20),
        (1, 257, 1, 128, 32),
        (1, 100, 2, 27, 4),
    ] {
        let tables = |device: &Device| Rotary::new(rotated, 10_000.0, 512, device);
        let (here, there) = (tables(&Device::Cpu)?, tables(&card)?);
        let qkv = (values(&[batch, tokens, heads * 3 * channels], 1)? * 2.0)?;
        for dtype in [F, B] {
            let what = format!("attention ({batch}, {tokens}, {heads}, {channels})");
            agrees(&what, &card, std::slice::from_ref(&qkv), &[dtype], |v| {
                ops::attention::causal(&v[0], if v[0].device().is_cuda() { &there } else { &here }, heads)
            })?;
        }
    }
    Ok(())
}

#[test]
fn divergences() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    for (rows, vocabulary) in [(1, 2), (9, 301), (5, 50_304)] {
        let logits = |seed| (values(&[rows, vocabulary], seed)? * 4.0)?.to_dtype(F);
        let targets: Vec<u32> = (0..rows as u32).map(|i| i * 7919 % vocabulary as u32).collect();
        let targets = Tensor::from_vec(targets, rows, &Device::Cpu)?;
        for dtype in [F, B] {
            let what = format!("({rows}, {vocabulary})");
            agrees(&format!("kl {what}"), &card, &[logits(1)?, logits(2)?], &[dtype; 2], |v| {
                ops::kl_divergence(&v[0], &v[1])
            })?;
            agrees(&format!("cross_entropy {what}"), &card, &[logits(3)?], &[dtype], |v| {
                ops::cross_entropy(&v[0], &targets.to_device(v[0].device())?)
            })?;
        }
    }
    Ok(())
}

#[test]
fn embedding_gradients() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    for (rows, width, vocabulary) in [(1, 3, 1), (700, 130, 11), (300, 128, 50_304)] {
        let ids: Vec<u32> = (0..rows as u32).map(|i| i * i * 7919 % vocabulary as u32).collect();
        let ids = Tensor::from_vec(ids, rows, &Device::Cpu)?;
        let grad = values(&[rows, width], 1)?.to_dtype(F)?;
        let expected = ops::embedding_gradient(&ids, &grad, vocabulary)?;
        for (dtype, limit) in [(F, 1e-5), (B, 1e-2)] {
            let found = ops::embedding_gradient(&ids, &grad.to_dtype(dtype)?.to_device(&card)?, vocabulary)?;
            let error = distance(&found, &expected)?;
            assert!(error < limit, "({rows}, {width}, {vocabulary}) in {dtype:?} off by {error:e}");
        }
    }
    Ok(())
}

#[test]
fn lookups_casts_and_straight_paths() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    for (batch, tokens, width) in [(1, 1, 3), (3, 7, 30), (2, 65, 128), (2, 33, 1032)] {
        let what = format!("({batch}, {tokens}, {width})");
        let same = |name: &str, found: &Tensor, expected: &Tensor, limit: f64| {
            let error = distance(found, expected)?;
            assert!(error <= limit, "{name} {what}: off by {error:e}");
            candle_core::Result::Ok(())
        };
        let x = [values(&[batch, tokens, width], 1)?, values(&[batch, tokens, width], 2)?];
        let wide = ops::widen(&x[0].to_device(&card)?.to_dtype(B)?)?;
        assert_eq!(wide.dtype(), F);
        same("widen", &wide, &x[0], 0.0)?;

        let t = random(&[batch], 3)?;
        let there = [x[0].to_device(&card)?, x[1].to_device(&card)?];
        let expected = ops::straight_path(&x[0], &x[1], &t)?;
        let found = ops::straight_path(&there[0], &there[1], &t.to_device(&card)?)?;
        same("x_t", &found.0, &expected.0, 1e-6)?;
        same("x1 − x0", &found.1, &expected.1, 1e-6)?;

        let weight = values(&[11, width], 4)?;
        let ids = Tensor::new(&[3u32, 0, 3, 10, 7], &Device::Cpu)?;
        let expected = ops::embedding(&weight, &ids)?;
        for dtype in [F, B] {
            let found = ops::embedding(&weight.to_device(&card)?.to_dtype(dtype)?, &ids.to_device(&card)?)?;
            same("embedding", &found.to_dtype(F)?, &expected, 0.0)?;
        }
    }
    Ok(())
}

/// The same update where the card makes its matrices orthogonal in bf16. The iteration multiplies small singular values, and the
/// rounding in their directions, up to 480 times, so directions are compared and not numbers; and its coefficients, up to 4.8 and
/// rounded to 2⁻⁹, cancel to 0.7, so sizes are off by a few hundredths.
#[test]
fn muon() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let moved = |device: &Device| -> anyhow::Result<Vec<Tensor>> {
        let shapes: [&[usize]; 4] = [&[48, 130], &[130, 48], &[48, 130], &[48]];
        let start: Vec<Tensor> =
            shapes.iter().enumerate().map(|(i, s)| random(s, i as u64)).collect::<Result<_>>()?;
        let variable =
            |(i, x): (usize, &Tensor)| Ok((i.to_string(), Var::from_tensor(&x.to_device(device)?)?));
        let parameters: Vec<(String, Var)> = start.iter().enumerate().map(variable).collect::<Result<_>>()?;
        let mut optimizer = Rule::Muon.of(&parameters, |_| true, AdamWOptions::default())?;
        for step in 0..3 {
            let mut loss = Tensor::zeros((), F, device)?;
            for (i, (_, w)) in parameters.iter().enumerate() {
                let slope = random(w.dims(), 10 * step + i as u64)?.to_device(device)?;
                loss = (loss + (w.as_tensor() * slope)?.sum_all()?)?;
            }
            optimizer.step(&loss.backward()?, 0.05, Some(1.0))?;
        }
        let change = |((_, w), x): (&(String, Var), &Tensor)| w.as_tensor().to_device(&Device::Cpu)? - x;
        Ok(parameters.iter().zip(&start).map(change).collect::<Result<_>>()?)
    };
    for (i, (found, expected)) in moved(&card)?.iter().zip(moved(&Device::Cpu)?).enumerate() {
        let inner = |a: &Tensor, b: &Tensor| Ok((a * b)?.sum_all()?.to_scalar::<f32>()?) as Result<f32>;
        let (size, other) = (inner(found, found)?.sqrt(), inner(&expected, &expected)?.sqrt());
        let cosine = inner(found, &expected)? / (size * other);
        assert!(cosine > 0.99, "parameter {i}: its change points elsewhere: cosine {cosine}");
        assert!(
            (size / other - 1.0).abs() < 0.05,
            "parameter {i}: its change has the size {size}, not {other}"
        );
    }
    Ok(())
}

#[test]
fn clipped_updates() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let shapes = [vec![300, 70], vec![1], vec![17]];
    let state = |device: &Device| -> Result<Vec<[Var; 3]>> {
        let one = |(i, shape): (usize, &Vec<usize>)| {
            let zero = || Var::zeros(shape.as_slice(), F, device);
            Ok([Var::from_tensor(&random(shape, i as u64)?.to_device(device)?)?, zero()?, zero()?])
        };
        shapes.iter().enumerate().map(one).collect()
    };
    let (here, there) = (state(&Device::Cpu)?, state(&card)?);
    for step in 1..=5 {
        let gradients: Vec<Tensor> =
            shapes.iter().map(|shape| random(shape, 10 + step)).collect::<Result<_>>()?;
        let norm = gradients.iter().map(ops::adamw::squared_norm).sum::<Result<f64>>()?.sqrt();
        let mut update = Update {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step,
            gradient_scale: 1.0,
        };
        let slots: Vec<ClippedSlot<'_>> = there
            .iter()
            .zip(&gradients)
            .map(|([parameter, first, second], gradient)| {
                Ok(ClippedSlot { parameter, gradient: gradient.to_device(&card)?, first, second })
            })
            .collect::<Result<_>>()?;
        let Some(found) = clipped_adamw(&slots, &update, 0.0, None, 3.0)? else {
            panic!("the kernel fits these tensors")
        };
        assert!((f64::from(found.squeeze(0)?.to_scalar::<f32>()?) / norm - 1.0).abs() < 1e-5);
        update.gradient_scale = 3.0 / norm;
        for ([w, m, v], gradient) in here.iter().zip(&gradients) {
            adamw(w, gradient, m, v, &update)?;
        }
    }
    for (i, (here, there)) in here.iter().flatten().zip(there.iter().flatten()).enumerate() {
        let error = distance(there, here)?;
        assert!(error < 1e-5, "tensor {i} off by {error:e}");
    }
    Ok(())
}

#[test]
fn a_gradient_or_loss_that_is_not_finite_changes_nothing() -> Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let [w, m, v] = [Var::ones(4, F, &card)?, Var::zeros(4, F, &card)?, Var::zeros(4, F, &card)?];
    let (good, bad) = (Tensor::new(1f32, &card)?, Tensor::new(f32::INFINITY, &card)?);
    let update = Update {
        lr: 1.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.0,
        step: 1,
        gradient_scale: 1.0,
    };
    for (slope, loss) in [(f32::NAN, &good), (2.0, &bad)] {
        let gradient = Tensor::new(&[1f32, slope, 0.0, 1.0], &card)?;
        let slot = ClippedSlot { parameter: &w, gradient, first: &m, second: &v };
        clipped_adamw(&[slot], &update, 0.0, Some(loss), 1.0)?;
        assert_eq!(w.to_vec1::<f32>()?, [1.0; 4]);
        assert_eq!(m.to_vec1::<f32>()?, [0.0; 4]);
    }
    Ok(())
}

/// A small model on the card and the same on the CPU; weights are such that bf16 holds them exactly.
fn models(card: &Device, dtype: DType, config: &Config) -> anyhow::Result<[Arc<Pythia>; 2]> {
    let here = Pythia::random(config.clone(), 1, F, &Device::Cpu)?;
    let here = here.map(|w| w.to_dtype(B)?.to_dtype(F))?;
    Ok([Arc::new(here.to(dtype, card)?), Arc::new(here)])
}

fn small() -> Config {
    Config {
        hidden_size: 64,
        intermediate_size: 136,
        num_hidden_layers: 4,
        num_attention_heads: 2,
        vocab_size: 50,
        initializer_range: 0.1,
        ..Config::default()
    }
}

/// A frozen layer as one operation: its result and the gradient of its input. The limit of 1e-2 in bf16 is for one
/// operation; a layer rounds after each of about ten, one after the other, which gave 1.13e-2 at width 30.
#[test]
fn frozen_layers() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let odd = Config { hidden_size: 30, intermediate_size: 77, num_attention_heads: 3, ..small() };
    let variants = [
        small(),
        Config { hidden_act: Activation::Relu, ..odd.clone() },
        Config { attention_bias: false, hidden_act: Activation::GeluNew, ..small() },
        Config { use_parallel_residual: false, ..odd },
    ];
    for config in variants {
        for (batch, tokens) in [(1, 1), (3, 70)] {
            let x = values(&[batch, tokens, config.hidden_size], 5)?;
            for dtype in [F, B] {
                let [there, here] = models(&card, dtype, &config)?;
                let run = |v: &[Tensor]| {
                    let model = if v[0].device().is_cuda() { &there } else { &here };
                    model.run(&v[0], 1, 2).map_err(|why| candle_core::Error::msg(format!("{why:#}")))
                };
                let what = format!("a layer of width {} on ({batch}, {tokens})", config.hidden_size);
                agrees_within(2e-2, &what, &card, std::slice::from_ref(&x), &[dtype], run)?;
            }
        }
    }
    Ok(())
}

/// The same models with random scales, shifts and biases too.
fn talkative(card: &Device, dtype: DType, config: &Config) -> anyhow::Result<[Pythia; 2]> {
    let here = Pythia::random(config.clone(), 1, F, &Device::Cpu)?;
    let mut seed = 10;
    let here = here.map(|w| {
        seed += 1;
        (w + (random(w.dims(), seed)? * 0.05)?)?.to_dtype(B)?.to_dtype(F)
    })?;
    Ok([here.to(dtype, card)?, here])
}

fn some_ids(count: usize, vocabulary: usize, seed: u64) -> Vec<u32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(0..vocabulary as u32)).collect()
}

fn read(model: &Pythia, ids: &[u32], cache: &mut Cache) -> anyhow::Result<Tensor> {
    model.step(&Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu)?, cache)
}

/// Reads ids in pieces of these lengths on the card and on the CPU, whose logits must agree after each. Returns the card's cache.
/// A piece of one token must have gone the short way, in f32, if `short`.
fn reads_alike(
    what: &str,
    [there, here]: &[Pythia; 2],
    lengths: &[usize],
    limit: f64,
    short: bool,
) -> anyhow::Result<Cache> {
    let ids = some_ids(lengths.iter().sum(), here.config.vocab_size, 3);
    let (mut cache, mut reference, mut at) = (there.new_cache(), here.new_cache(), 0);
    for &length in lengths {
        let piece = &ids[at..at + length];
        at += length;
        let (found, expected) = (read(there, piece, &mut cache)?, read(here, piece, &mut reference)?);
        let error = distance(&found, &expected)?;
        assert!(error <= limit, "{what}, {:?}: logits of token {at} are off by {error:e}", there.dtype());
        let f32_logits = found.dtype() == F;
        assert!(
            length > 1 || there.dtype() == F || f32_logits == short,
            "{what}: token {at} took the other way"
        );
        assert_eq!(cache.len(), at);
    }
    Ok(cache)
}

/// A prompt, single tokens, several at once, and single tokens again.
fn pieces(prompt: usize, tokens: usize) -> Vec<usize> {
    let mut lengths = vec![prompt, 1, 1, 1, 4];
    lengths.resize(5 + tokens, 1);
    lengths
}

/// Token after token on the card against the CPU. Buffers grow with the 257th and the 513th token, where the graph is captured
/// again; from the 513th on a head is attended by two blocks. The limit in bf16 is for a chain of layers.
#[test]
fn token_by_token() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let shape = |hidden_size, num_attention_heads, intermediate_size, rotary_fraction, hidden_act| Config {
        hidden_size,
        num_attention_heads,
        intermediate_size,
        rotary_fraction,
        hidden_act,
        ..small()
    };
    let bare = Config { attention_bias: false, ..shape(128, 2, 264, 0.25, Activation::Relu) };
    let tied = Config { tie_word_embeddings: true, ..shape(64, 4, 136, 1.0, Activation::GeluNew) };
    let still = Config { rotary_fraction: 0.0, vocab_size: 9001, ..small() };
    let wide = Config { num_hidden_layers: 1, ..shape(1200, 10, 4104, 0.5, Activation::GeluFast) };
    let variants = [
        (small(), pieces(5, 300)),
        (small(), pieces(1, 10)),
        (tied, pieces(250, 300)),
        (bare, pieces(5, 300)),
        (still, pieces(5, 10)),
        (shape(160, 2, 648, 0.25, Activation::Silu), pieces(250, 300)),
        (shape(384, 4, 200, 0.25, Activation::Gelu), pieces(5, 20)),
        (shape(256, 2, 200, 1.0, Activation::Gelu), pieces(5, 20)),
        (shape(256, 1, 64, 0.25, Activation::Gelu), pieces(250, 20)),
        (shape(40, 2, 104, 0.3, Activation::Gelu), pieces(250, 300)),
        (shape(200, 1, 104, 0.25, Activation::Gelu), pieces(5, 20)),
        (shape(248, 8, 104, 0.25, Activation::Gelu), pieces(5, 20)),
        (Config { initializer_range: 0.02, ..wide }, pieces(5, 6)),
    ];
    for (config, lengths) in variants {
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        let what = format!("width {width}, {heads} heads, {:?}", config.hidden_act);
        for (dtype, limit) in [(F, 1e-4), (B, 3e-2)] {
            let models = talkative(&card, dtype, &config)?;
            let cache = reads_alike(&what, &models, &lengths, limit, true)?;
            assert!(format!("{cache:?}").contains("Captured"), "{what}: the graph was not captured");
        }
    }
    Ok(())
}

/// Beyond 8192 positions blocks of attention take more positions each, rather than being more.
#[test]
fn token_by_token_far_on() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let config = Config {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 1,
        max_position_embeddings: 8300,
        ..small()
    };
    let mut lengths = vec![512; 15];
    lengths.push(510);
    lengths.resize(26, 1);
    for (dtype, limit) in [(F, 1e-4), (B, 3e-2)] {
        reads_alike("far on", &talkative(&card, dtype, &config)?, &lengths, limit, true)?;
    }
    Ok(())
}

/// What the kernels do not fit goes the long way, token by token too.
#[test]
fn token_by_token_the_long_way() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let odd = Config { hidden_size: 30, intermediate_size: 77, num_attention_heads: 3, ..small() };
    for config in [odd, Config { use_parallel_residual: false, ..small() }] {
        for (dtype, limit) in [(F, 1e-4), (B, 5e-2)] {
            let what = format!("width {}", config.hidden_size);
            reads_alike(&what, &talkative(&card, dtype, &config)?, &pieces(250, 10), limit, false)?;
        }
    }
    Ok(())
}

/// Two texts in turns, a text and a copy of it that goes on otherwise, and logits kept over later steps: each as if alone.
#[test]
fn caches_do_not_disturb_each_other() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let [model, _] = talkative(&card, B, &small())?;
    let texts = [some_ids(270, 50, 1), some_ids(270, 50, 2)];
    let go_on = |cache: &mut Cache, ids: &[u32]| {
        ids.iter().map(|id| read(&model, &[*id], cache)).collect::<anyhow::Result<Vec<_>>>()
    };
    let alone = |ids: &[u32]| -> anyhow::Result<Vec<Tensor>> {
        let mut cache = model.new_cache();
        let mut logits = Vec::new();
        for id in ids {
            let found = read(&model, &[*id], &mut cache)?;
            logits.push(found.to_device(&Device::Cpu)?);
        }
        Ok(logits)
    };
    let same = |what: &str, found: &[Tensor], expected: &[Tensor]| -> anyhow::Result<()> {
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = distance(found, expected)?;
            assert!(error == 0.0, "{what}: logits of token {i} differ by {error:e}");
        }
        Ok(())
    };
    let expected = [alone(&texts[0])?, alone(&texts[1])?];
    let mut caches = [model.new_cache(), model.new_cache()];
    let mut found = [Vec::new(), Vec::new()];
    for i in 0..texts[0].len() {
        for (text, (cache, found)) in texts.iter().zip(caches.iter_mut().zip(&mut found)) {
            found.push(read(&model, &text[i..=i], cache)?);
        }
    }
    same("the first of two texts", &found[0], &expected[0])?;
    same("the second of two texts", &found[1], &expected[1])?;

    let mut cache = model.new_cache();
    go_on(&mut cache, &texts[0][..20])?;
    let mut copy = cache.copy()?;
    let other = go_on(&mut copy, &texts[1][20..40])?;
    same("a text that was copied", &go_on(&mut cache, &texts[0][20..40])?, &expected[0][20..40])?;
    let mixed = [&texts[0][..20], &texts[1][20..40]].concat();
    same("the copy", &other, &alone(&mixed)?[20..])
}

/// A cache filled by one model goes on with other weights: these are used.
#[test]
fn other_weights_are_noticed() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let [there, here] = talkative(&card, F, &small())?;
    let halved = |model: &Pythia| model.map(|w| w * 0.5);
    let (other, other_here) = (halved(&there)?, halved(&here)?);
    let (mut cache, mut reference) = (there.new_cache(), here.new_cache());
    for (i, id) in some_ids(12, 50, 4).into_iter().enumerate() {
        let pair = if i < 6 { (&there, &here) } else { (&other, &other_here) };
        let (found, expected) = (read(pair.0, &[id], &mut cache)?, read(pair.1, &[id], &mut reference)?);
        let error = distance(&found, &expected)?;
        assert!(error <= 1e-4, "logits of token {i} are off by {error:e}");
    }
    Ok(())
}

#[test]
fn the_short_way_refuses_what_the_long_one_does() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let [model, _] = talkative(&card, B, &Config { max_position_embeddings: 8, ..small() })?;
    let mut cache = model.new_cache();
    read(&model, &[1; 6], &mut cache)?;
    let refusal = |id, cache: &mut Cache| read(&model, &[id], cache).unwrap_err().to_string();
    assert!(refusal(50, &mut cache).contains("token id 50 is outside the model's vocabulary 0..=49"));
    assert_eq!(cache.len(), 6);
    read(&model, &[1], &mut cache)?;
    read(&model, &[1], &mut cache)?;
    assert!(refusal(1, &mut cache).contains("9 tokens are more than the model's context of 8"));
    Ok(())
}

/// The gradient of a pretraining step in every weight, in f32 and, where layers are one operation, computed in bf16. Four layers
/// round one after the other, forth and back.
#[test]
fn pretraining_gradients() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let relu = Config { hidden_act: Activation::Relu, hidden_size: 30, num_attention_heads: 3, ..small() };
    let bare = Config { attention_bias: false, tie_word_embeddings: true, ..small() };
    let both: &[_] = &[(F, 1e-4), (B, 5e-2)];
    for (config, tokens, dtypes) in [(small(), 71, both), (bare, 20, both), (relu, 9, &both[..1])] {
        let ids: Vec<u32> = (0..3 * tokens as u32).map(|i| i * i * 7 % 50).collect();
        let ids = Tensor::from_vec(ids, (3, tokens), &Device::Cpu)?;
        for &(dtype, limit) in dtypes {
            let run = |device: &Device, dtype: DType| -> anyhow::Result<(Tensor, Vec<(String, Tensor)>)> {
                let model = Pythia::random(config.clone(), 1, F, &Device::Cpu)?.to(F, device)?;
                let model = model.map(|w| Ok(Var::from_tensor(w)?.into_inner()))?;
                let (loss, gradients) = language_gradient(&model, dtype, &ids, 0.5)?;
                let named = model.tensors().into_iter().map(|(name, w)| {
                    let gradient = gradients.get(w).with_context(|| format!("{name} received no gradient"));
                    anyhow::Ok((name, gradient?.clone()))
                });
                Ok((loss, named.collect::<anyhow::Result<_>>()?))
            };
            let ((expected, slopes), (found, found_slopes)) = (run(&Device::Cpu, F)?, run(&card, dtype)?);
            let pairs = slopes.iter().zip(&found_slopes).map(|((name, e), (_, f))| (name.as_str(), f, e));
            for (name, found, expected) in std::iter::once(("the loss", &found, &expected)).chain(pairs) {
                let error = distance(found, expected)?;
                let what = format!("width {}, {tokens} tokens, {dtype:?}", config.hidden_size);
                assert!(error <= limit, "{what}: {name} is off by {error:e}");
            }
        }
    }
    Ok(())
}

/// Losses of the next token through frozen layers.
#[test]
fn losses_behind_the_block() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let (x, ids) = (values(&[3, 70, 64], 5)?, (0..210u32).map(|i| i * 7 % 50).collect::<Vec<_>>());
    for dtype in [F, B] {
        let [there, here] = models(&card, dtype, &small())?;
        for kl in [true, false] {
            let loss = |v: &[Tensor]| {
                let device = v[0].device();
                let model = if device.is_cuda() { &there } else { &here };
                let loss = if kl {
                    let logits =
                        (values(&[210, 50], 6)? * 4.0)?.to_device(device)?.to_dtype(model.dtype())?;
                    divergence(model, 2, &v[0], &logits)
                } else {
                    let ids = Tensor::from_vec(ids.clone(), (3, 70), &Device::Cpu)?;
                    language_loss(model, 2, &v[0], &ids)
                };
                loss.map_err(|why| candle_core::Error::msg(format!("{why:#}")))
            };
            let what = format!("kl = {kl} in {dtype:?}");
            let run = |device: &Device| -> anyhow::Result<(Tensor, Tensor)> {
                let x = Var::from_tensor(&x.to_device(device)?)?;
                let loss = loss(&[x.as_tensor().clone()])?;
                let slope = loss.backward()?.remove(&x).context("no gradient")?;
                Ok((loss, slope))
            };
            let limit = if dtype == F { 1e-4 } else { 3e-2 };
            let ((found, slope), (expected, expected_slope)) = (run(&card)?, run(&Device::Cpu)?);
            let errors = [distance(&found, &expected)?, distance(&slope, &expected_slope)?];
            assert!(errors.iter().all(|e| *e <= limit), "{what}: off by {errors:?}");
        }
    }
    Ok(())
}

/// A walk of a field with parameters other than the initial ones, on one device: the loss and every parameter's gradient.
fn walk(
    teacher: &Arc<Pythia>,
    extras: Extras,
    times: &[&[f32]],
    method: Method,
    recompute: bool,
) -> anyhow::Result<(Tensor, Vec<(String, Tensor)>)> {
    let device = teacher.device();
    let field = VelocityField::extended(teacher, Block::new(1, 3, 4)?, Init::Teacher, None, 2, extras)?;
    for (i, (name, var)) in field.parameters().iter().enumerate() {
        let scale = if name.starts_with("low_rank") { 0.3 } else { 0.02 };
        let moved = (var.as_tensor().to_device(&Device::Cpu)? + (random(var.dims(), i as u64)? * scale)?)?;
        var.set(&moved.to_dtype(B)?.to_dtype(F)?.to_device(device)?)?;
    }
    let field = Arc::new(field);
    let shape = [3, 70, teacher.config.hidden_size];
    let [x0, x1] = [3, 4].map(|seed| random(&shape, seed).and_then(|x| x.to_device(device)));
    let times = match field.learned_times(times.len() - 1) {
        Some(times) => times?,
        None => times.iter().map(|t| Tensor::new(*t, device)).collect::<Result<_>>()?,
    };
    let loss = walking_loss(&Evaluation::of(&field, recompute)?, &x0?, &x1?, &times, method)?;
    let gradients = loss.backward()?;
    let named = field.parameters().iter().map(|(name, var)| {
        let gradient = gradients.get(var).with_context(|| format!("{name} received no gradient"))?;
        anyhow::Ok((name.clone(), gradient.clone()))
    });
    Ok((loss, named.collect::<anyhow::Result<_>>()?))
}

/// The velocity field as one operation, against the CPU's composition.
#[test]
fn walks() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let own: &[&[f32]] = &[&[0.0; 3], &[0.3, 0.5, 0.1], &[1.0; 3]];
    let shared: &[&[f32]] = &[&[0.0], &[0.4], &[1.0]];
    let rank = |rank| Extras { rank, ..Extras::default() };
    let mut wrong = Vec::new();
    for (extras, times, method) in [
        (rank(0), own, Method::Midpoint),
        (rank(0), shared, Method::Euler),
        (rank(32), shared, Method::Euler),
        (rank(5), shared, Method::Midpoint),
        (rank(5), own, Method::Midpoint),
        (Extras { learn_times: 2, rank: 5, ..Extras::default() }, shared, Method::Euler),
    ] {
        for (dtype, limit) in [(F, 1e-4), (B, 3e-2)] {
            let [there, here] = models(&card, dtype, &small())?;
            let (expected, slopes) = walk(&here, extras, times, method, false)?;
            for recompute in [false, true] {
                let what =
                    format!("{extras:?}, times {times:?}, {method:?}, {dtype:?}, recompute {recompute}");
                let (found, found_slopes) = walk(&there, extras, times, method, recompute)?;
                let pairs = slopes.iter().zip(&found_slopes).map(|((name, e), (_, f))| (name.as_str(), f, e));
                for (name, found, expected) in std::iter::once(("the loss", &found, &expected)).chain(pairs) {
                    let error = distance(found, expected)?;
                    if error > limit {
                        wrong.push(format!("{what}: {name} is off by {error:e}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Rows of more elements than most blocks hold, and heads of 64 channels, against the CPU's composition.
#[test]
fn wide_walks() -> anyhow::Result<()> {
    let Some(card) = card() else { return Ok(()) };
    let (hidden_size, num_attention_heads) = (2176, 34);
    let config = Config {
        hidden_size,
        num_attention_heads,
        intermediate_size: 64,
        initializer_range: 0.02,
        ..small()
    };
    for (dtype, limit) in [(F, 1e-4), (B, 3e-2)] {
        let [there, here] = models(&card, dtype, &config)?;
        let run = |model| walk(model, Extras::default(), &[&[0.2], &[1.0]], Method::Euler, false);
        let ((expected, slopes), (found, found_slopes)) = (run(&here)?, run(&there)?);
        let pairs = slopes.iter().zip(&found_slopes).map(|((name, e), (_, f))| (name.as_str(), f, e));
        for (name, found, expected) in std::iter::once(("the loss", &found, &expected)).chain(pairs) {
            let error = distance(found, expected)?;
            assert!(error <= limit, "{dtype:?}: {name} is off by {error:e}");
        }
    }
    Ok(())
}
