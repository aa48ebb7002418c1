//! Training on a tiny teacher: it learns, repeats itself bit by bit, and stops when it diverges.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::flow::{Block, Init, Student, VelocityField};
use crate::pythia::{Config, Pythia};

fn teacher() -> Result<Arc<Pythia>> {
    let config = Config {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 4,
        num_attention_heads: 2,
        vocab_size: 31,
        initializer_range: 0.2,
        ..Config::default()
    };
    Ok(Arc::new(Pythia::random(config, 7, DType::F32, &Device::Cpu)?))
}

fn trainer(teacher: &Arc<Pythia>, options: Options) -> Result<Trainer> {
    let field = VelocityField::new(teacher, Block::new(1, 3, 4)?, Init::Zero, None, 3)?;
    Trainer::new(Student::new(teacher.clone(), Arc::new(field))?, options)
}

fn batch(step: usize) -> Result<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(step as u64);
    let ids: Vec<u32> = (0..4 * 12).map(|_| rng.random_range(0..31)).collect();
    Ok(Tensor::from_vec(ids, (4, 12), &Device::Cpu)?)
}

fn losses(trainers: &mut [Trainer]) -> Result<Vec<Vec<f64>>> {
    let mut curves = vec![Vec::new(); trainers.len()];
    together(trainers, batch, |p| {
        curves[p.trainer].push(p.report.loss);
        Ok(())
    })?;
    Ok(curves)
}

fn options(method: Objective) -> Options {
    Options { method, steps: 60, lr: 1e-2, warmup: 5, ..Options::default() }
}

#[test]
fn every_objective_learns_and_repeats_itself_bitwise() -> Result<()> {
    let teacher = teacher()?;
    let all =
        || Objective::ALL.into_iter().map(|m| trainer(&teacher, options(m))).collect::<Result<Vec<_>>>();
    let (mut first, mut second) = (all()?, all()?);
    let curves = losses(&mut first)?;
    assert_eq!(curves, losses(&mut second)?);
    for (objective, curve) in Objective::ALL.into_iter().zip(&curves) {
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (early, late) = (mean(&curve[..5]), mean(&curve[55..]));
        assert!(late < 0.7 * early, "{objective}: {early} → {late}");
    }
    for (a, b) in first.iter().zip(&second) {
        for ((name, a), (_, b)) in a.student.velocity.parameters().iter().zip(b.student.velocity.parameters())
        {
            let flat = |x: &Tensor| x.flatten_all().and_then(|x| x.to_vec1::<f32>());
            assert_eq!(flat(a)?, flat(b)?, "{name}");
        }
    }
    Ok(())
}

#[test]
fn training_together_equals_training_alone() -> Result<()> {
    let teacher = teacher()?;
    let mut pair = [trainer(&teacher, options(Objective::Fm))?, trainer(&teacher, options(Objective::Fw))?];
    let mut alone = [trainer(&teacher, options(Objective::Fw))?];
    assert_eq!(losses(&mut pair)?[1], losses(&mut alone)?[0]);
    Ok(())
}

#[test]
fn divergence_stops_with_the_step_and_keeps_the_last_good_weights() -> Result<()> {
    let teacher = teacher()?;
    let mut trainers = [trainer(&teacher, Options { lr: 1e30, ..options(Objective::Fm) })?];
    let error = format!("{:#}", losses(&mut trainers).unwrap_err());
    assert!(error.contains("diverged at step") && error.contains("lr"), "{error}");
    for (name, var) in trainers[0].student.velocity.parameters() {
        let sum = var.as_tensor().abs()?.sum_all()?.to_scalar::<f32>()?;
        assert!(!sum.is_nan(), "{name} holds NaN");
    }
    Ok(())
}

#[test]
fn impossible_options_are_named() -> Result<()> {
    let teacher = teacher()?;
    for (options, name) in [
        (Options { lr: -1.0, ..Options::default() }, "lr"),
        (Options { walk: 0, ..Options::default() }, "walk"),
        (Options { betas: (1.0, 0.9), ..Options::default() }, "beta1"),
    ] {
        assert!(trainer(&teacher, options).err().unwrap().to_string().contains(name));
    }
    Ok(())
}
