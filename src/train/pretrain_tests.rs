//! Pretraining on tiny models: its gradient, its learning, and what parts and formats change.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};

use super::{PretrainOptions, Pretrainer, Rule, language_gradient};
use crate::ops;
use crate::pythia::{Config, Pythia};

fn config(tied: bool) -> Config {
    Config {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        vocab_size: 40,
        initializer_range: 0.2,
        tie_word_embeddings: tied,
        ..Config::default()
    }
}

fn model(tied: bool) -> Result<Pythia> {
    let model = Pythia::random(config(tied), 5, DType::F32, &Device::Cpu)?;
    model.map(|w| Ok(Var::from_tensor(w)?.into_inner()))
}

/// Windows that count upwards from different tokens, modulo the vocabulary.
fn ids(batch: usize, tokens: usize, first: usize) -> Result<Tensor> {
    let ids = (0..batch * tokens).map(|i| ((first + i / tokens * 7 + i % tokens) % 40) as u32);
    Ok(Tensor::from_vec(ids.collect::<Vec<_>>(), (batch, tokens), &Device::Cpu)?)
}

fn values(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.flatten_all()?.to_vec1()?)
}

/// max|a − b| / max|b|.
fn distance(a: &Tensor, b: &Tensor) -> Result<f32> {
    let (a, b) = (values(a)?, values(b)?);
    let scale = b.iter().fold(0f32, |m, x| m.max(x.abs()));
    Ok(a.iter().zip(&b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale)
}

#[test]
fn the_gradient_is_that_of_the_whole_graph() -> Result<()> {
    for tied in [false, true] {
        let model = model(tied)?;
        let ids = ids(3, 9, 1)?;
        let (loss, found) = language_gradient(&model, DType::F32, &ids, 0.5)?;
        let logits = model.logits(&ids.narrow(1, 0, 8)?)?.reshape(((), 40))?;
        let whole = ops::cross_entropy(&logits, &ids.narrow(1, 1, 8)?.flatten_all()?)?.mean_all()?;
        let expected = (&whole * 0.5)?.backward()?;
        assert!((loss.to_scalar::<f32>()? - 0.5 * whole.to_scalar::<f32>()?).abs() < 1e-5);
        for (name, w) in model.tensors() {
            let (found, expected) = (found.get(w).context("found")?, expected.get(w).context("expected")?);
            let distance = distance(found, expected)?;
            assert!(distance < 1e-5, "{name} (tied: {tied}): {distance}");
        }
    }
    Ok(())
}

#[test]
fn half_precision_computes_nearly_the_same_gradient_in_f32() -> Result<()> {
    let (model, ids) = (model(false)?, ids(3, 9, 1)?);
    let (_, exact) = language_gradient(&model, DType::F32, &ids, 1.0)?;
    let (_, half) = language_gradient(&model, DType::BF16, &ids, 1.0)?;
    for (name, w) in model.tensors() {
        let (half, exact) = (half.get(w).context("half")?, exact.get(w).context("exact")?);
        assert_eq!(half.dtype(), DType::F32, "{name}");
        let distance = distance(half, exact)?;
        assert!(distance > 0.0 && distance < 0.05, "{name}: {distance}");
    }
    Ok(())
}

fn train(options: PretrainOptions) -> Result<(Vec<f64>, Pythia)> {
    let mut pretrainer = Pretrainer::new(&model(false)?, options)?;
    let mut losses = Vec::new();
    for step in 0..pretrainer.options.steps {
        losses.push(pretrainer.step(&ids(4, 9, step)?)?.report.loss);
    }
    Ok((losses, pretrainer.finish()?))
}

fn options() -> PretrainOptions {
    PretrainOptions { steps: 40, lr: 1e-2, warmup: 4, ..PretrainOptions::default() }
}

#[test]
fn learns_to_count_in_both_formats_with_both_optimizers() -> Result<()> {
    for (dtype, optimizer) in [
        (DType::F32, Rule::AdamW),
        (DType::BF16, Rule::AdamW),
        (DType::F32, Rule::Muon),
        (DType::BF16, Rule::Muon),
    ] {
        let (losses, model) = train(PretrainOptions { dtype, optimizer, ..options() })?;
        let last = losses[losses.len() - 1];
        assert!(last < 0.5 * losses[0], "{dtype:?}, {optimizer:?}: {} → {last}", losses[0]);
        assert_eq!(model.dtype(), DType::F32);
        assert!(!model.embed_weight().track_op());
    }
    Ok(())
}

#[test]
fn muon_leaves_embeddings_and_vectors_to_adamw() -> Result<()> {
    let first = |optimizer| -> Result<Pythia> {
        // Without clipping: sums of squares in another order would change its factor.
        let mut pretrainer =
            Pretrainer::new(&model(false)?, PretrainOptions { optimizer, clip: 1e9, ..options() })?;
        pretrainer.step(&ids(4, 9, 0)?)?;
        pretrainer.finish()
    };
    let (adamw, muon) = (first(Rule::AdamW)?, first(Rule::Muon)?);
    for ((name, adamw), (_, muon)) in adamw.tensors().into_iter().zip(muon.tensors()) {
        let by_muon = name.contains("layers") && muon.rank() == 2;
        assert_eq!(values(adamw)? != values(muon)?, by_muon, "{name}");
    }
    Ok(())
}

#[test]
fn a_restored_pretraining_goes_on_bitwise_with_every_optimizer() -> Result<()> {
    for optimizer in [Rule::AdamW, Rule::Muon] {
        let begin = || Pretrainer::new(&model(false)?, PretrainOptions { optimizer, ..options() });
        let go_on = |pretrainer: &mut Pretrainer, steps: std::ops::Range<usize>| {
            steps.into_iter().try_for_each(|step| pretrainer.step(&ids(4, 9, step)?).map(|_| ()))
        };
        let (mut whole, mut first, mut second) = (begin()?, begin()?, begin()?);
        go_on(&mut whole, 0..9)?;
        go_on(&mut first, 0..4)?;
        second.descent_mut().restore(&first.descent().tensors()?.into_iter().collect())?;
        go_on(&mut second, 4..9)?;
        for ((name, a), (_, b)) in whole.finish()?.tensors().into_iter().zip(second.finish()?.tensors()) {
            assert_eq!(values(a)?, values(b)?, "{name} by {optimizer:?}");
        }
    }
    Ok(())
}

#[test]
fn parts_of_a_batch_make_the_same_gradient() -> Result<()> {
    let (model, ids) = (model(false)?, ids(4, 9, 1)?);
    let (loss, whole) = language_gradient(&model, DType::F32, &ids, 1.0)?;
    let part = |i: usize| language_gradient(&model, DType::F32, &ids.narrow(0, i, 1)?, 0.25);
    let (mut sum, mut parts) = part(0)?;
    for i in 1..4 {
        let (more, other) = part(i)?;
        sum = (sum + more)?;
        parts.extend(other)?;
    }
    assert!((loss.to_scalar::<f32>()? - sum.to_scalar::<f32>()?).abs() < 1e-5);
    for (name, w) in model.tensors().into_iter().filter(|(name, _)| name.ends_with("weight")) {
        let distance = distance(parts.get(w).context("parts")?, whole.get(w).context("whole")?)?;
        assert!(distance < 1e-5, "{name}: {distance}");
    }
    Ok(())
}

#[test]
fn a_batch_in_parts_trains_the_same_losses() -> Result<()> {
    let few = || PretrainOptions { steps: 3, ..options() };
    let (whole, _) = train(few())?;
    let (parts, _) = train(PretrainOptions { accumulate: 4, ..few() })?;
    for (whole, parts) in whole.iter().zip(&parts) {
        assert!((whole - parts).abs() < 1e-3, "{whole} and {parts}");
    }
    let error = train(PretrainOptions { accumulate: 3, ..few() }).err().context("a refusal")?;
    assert!(error.to_string().contains("accumulate = 3 does not divide the batch of 4"), "{error}");
    Ok(())
}

#[test]
fn an_average_lies_between_start_and_end() -> Result<()> {
    let (_, last) = train(options())?;
    let (_, average) = train(PretrainOptions { ema: Some(0.9), ..options() })?;
    let d = distance(average.unembed_weight(), last.unembed_weight())?;
    let start = distance(model(false)?.unembed_weight(), last.unembed_weight())?;
    assert!(d > 0.0 && d < start, "{d} of {start}");
    Ok(())
}

#[test]
fn divergence_keeps_the_last_good_weights() -> Result<()> {
    let mut pretrainer = Pretrainer::new(&model(false)?, PretrainOptions { lr: 1e30, ..options() })?;
    let error = (0..5).find_map(|step| ids(4, 9, step).and_then(|ids| pretrainer.step(&ids)).err());
    let error = format!("{:#}", error.context("divergence")?);
    assert!(error.contains("the training diverged at step"), "{error}");
    assert!(values(pretrainer.finish()?.embed_weight())?.iter().all(|w| !w.is_nan()));
    Ok(())
}
