//! Training on a tiny teacher: it learns, repeats itself bit by bit, and stops when it diverges.

use std::sync::Arc;

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
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

/// What a step learns from.
fn lesson(step: usize) -> Result<Lesson> {
    Ok(Lesson::Tokens(batch(step)?))
}

fn losses(trainers: &mut [Trainer]) -> Result<Vec<Vec<f64>>> {
    let mut curves = vec![Vec::new(); trainers.len()];
    together(trainers, lesson, None, |p| {
        curves[p.trainer].push(p.entry.report.loss);
        Ok(())
    })?;
    Ok(curves)
}

fn options(method: Objective) -> Options {
    Options { curriculum: method.into(), steps: 60, lr: 1e-2, warmup: 5, ..Options::default() }
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
        // The tokens are random: no model's cross-entropy can fall below that of a uniform distribution.
        let floor = if objective == Objective::Lm { 31f64.ln() } else { 0.0 };
        let (early, late) = (mean(&curve[..5]) - floor, mean(&curve[55..]) - floor);
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
fn a_student_that_fails_leaves_the_others_on_the_same_passes() -> Result<()> {
    let teacher = teacher()?;
    let good = || trainer(&teacher, options(Objective::Fw));
    let bad = trainer(&teacher, Options { lr: 1e30, ..options(Objective::Fm) })?;
    let mut trainers = [bad, good()?, trainer(&teacher, Options { steps: 7, ..options(Objective::Fm) })?];
    let (mut steps, mut failed) = ([0; 3], Vec::new());
    let passes = side_by_side(
        &mut trainers,
        lesson,
        None,
        |progress| {
            steps[progress.trainer] = progress.entry.report.step;
            Ok(())
        },
        |i, error| {
            failed.push((i, format!("{error:#}")));
            Ok(())
        },
    )?;
    assert_eq!((passes, steps[1], steps[2]), (60, 60, 7));
    assert!(steps[0] < 60 && failed.len() == 1 && failed[0].0 == 0, "{failed:?}");
    assert!(failed[0].1.contains("diverged"), "{failed:?}");

    let mut alone = [trainer(&teacher, Options { lr: 1e30, ..options(Objective::Fm) })?];
    let passes = side_by_side(&mut alone, lesson, None, |_| Ok(()), |_, _| Ok(()))?;
    assert!(passes < 60, "with nobody left the teacher rests");
    Ok(())
}

#[test]
fn a_curriculum_changes_the_objective_and_a_weight_adds_the_divergence() -> Result<()> {
    let teacher = teacher()?;
    let curriculum = Options { curriculum: "fm:0.5,kl:0.5".parse()?, ..options(Objective::Fm) };
    let weighted = Options { kl_weight: 1.0, ..options(Objective::Fm) };
    assert_eq!((curriculum.label(), weighted.label()), ("fm:0.5,kl:0.5".to_owned(), "fm+kl".to_owned()));
    let mut trainers = [options(Objective::Fm), curriculum, weighted, options(Objective::Kl)]
        .into_iter()
        .map(|options| trainer(&teacher, options))
        .collect::<Result<Vec<_>>>()?;
    let curves = losses(&mut trainers)?;
    assert_eq!(curves[0][..30], curves[1][..30], "the first half is flow matching");
    assert!(curves[0][30] != curves[1][30]);
    let sum = curves[0][0] + curves[3][0];
    assert!((curves[2][0] - sum).abs() < 1e-5 * sum, "{} is not {sum}", curves[2][0]);
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
        (Options { kl_steps: 0, ..Options::default() }, "kl_steps"),
        (Options { kl_weight: f64::NAN, ..Options::default() }, "kl_weight"),
        (Options { betas: (1.0, 0.9), ..Options::default() }, "beta1"),
    ] {
        assert!(trainer(&teacher, options).err().unwrap().to_string().contains(name));
    }
    Ok(())
}

/// Two variables, and the gradients of a sum whose gradients they are given.
fn gradients(values: &[[f32; 2]; 2], wanted: &[[f32; 2]; 2]) -> Result<(Vec<(String, Var)>, GradStore)> {
    let variable = |x: &[f32; 2]| Var::new(x, &Device::Cpu);
    let parameters = vec![("a".to_owned(), variable(&values[0])?), ("b".to_owned(), variable(&values[1])?)];
    let terms = parameters
        .iter()
        .zip(wanted)
        .map(|((_, w), g)| (w.as_tensor() * &Tensor::new(g, &Device::Cpu)?)?.sum_all());
    let terms: Vec<Tensor> = terms.collect::<candle_core::Result<_>>()?;
    let loss = (&terms[0] + &terms[1])?;
    Ok((parameters, loss.backward()?))
}

#[test]
fn gradient_descent_follows_its_formula() -> Result<()> {
    let (parameters, store) = gradients(&[[1.0, 2.0], [3.0, 4.0]], &[[3.0, 0.0], [0.0, 4.0]])?;
    let mut sgd = Sgd::new(&parameters, 0.5)?;
    // The norm 5 is clipped to 2.5: g = (1.5, 0), (0, 2), then v = 1.5·g.
    assert_eq!(sgd.step(&store, 0.1, Some(2.5))?, 5.0);
    sgd.step(&store, 0.1, Some(2.5))?;
    let expected = [[1.0 - 0.1 * 1.5 * 2.5, 2.0], [3.0, 4.0 - 0.1 * 2.0 * 2.5]];
    for ((_, parameter), expected) in parameters.iter().zip(expected) {
        for (found, expected) in parameter.to_vec1::<f32>()?.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }
    Ok(())
}

#[test]
fn optimizers_refuse_what_they_cannot_use_and_change_nothing() -> Result<()> {
    let (parameters, store) = gradients(&[[1.0, 2.0], [3.0, 4.0]], &[[1.0, 1.0], [f32::NAN, 0.0]])?;
    let mut optimizers: [Box<dyn Optimizer>; 2] =
        [Box::new(Sgd::new(&parameters, 0.0)?), Box::new(AdamW::new(&parameters, AdamWOptions::default())?)];
    for optimizer in &mut optimizers {
        let error = optimizer.step(&store, 0.1, None).unwrap_err().to_string();
        assert_eq!(error, "the gradient's norm is NaN");
        assert_eq!(parameters[0].1.to_vec1::<f32>()?, [1.0, 2.0]);
    }
    let (_, strangers) = gradients(&[[0.0; 2]; 2], &[[1.0; 2]; 2])?;
    let error = optimizers[0].step(&strangers, 0.1, None).unwrap_err().to_string();
    assert_eq!(error, "parameter a received no gradient");
    let twice = [parameters[0].clone(), parameters[0].clone()];
    assert_eq!(Sgd::new(&twice, 0.0).err().unwrap().to_string(), "parameter a is given twice");
    assert!(Sgd::new(&parameters, 1.0).err().unwrap().to_string().contains("momentum = 1"));
    Ok(())
}

#[test]
fn parts_of_a_batch_train_the_same_losses() -> Result<()> {
    let teacher = teacher()?;
    for method in [Objective::Fm, Objective::Fw, Objective::Regression] {
        let few = || Options { steps: 4, ..options(method) };
        let mut pair = [
            trainer(&teacher, few())?,
            trainer(&teacher, Options { accumulate: 4, recompute: true, ..few() })?,
        ];
        let curves = losses(&mut pair)?;
        for (whole, parts) in curves[0].iter().zip(&curves[1]) {
            assert!((whole - parts).abs() < 1e-4 * whole, "{method}: {whole} and {parts}");
        }
    }
    let error = losses(&mut [trainer(&teacher, Options { accumulate: 3, ..options(Objective::Fm) })?]);
    assert!(format!("{:#}", error.unwrap_err()).contains("accumulate = 3 does not divide the batch of 4"));
    Ok(())
}

#[test]
fn a_restored_training_goes_on_bitwise_with_every_optimizer() -> Result<()> {
    let teacher = teacher()?;
    for optimizer in [Rule::AdamW, Rule::Muon] {
        let own = || Options { steps: 12, optimizer, ema: Some(0.8), ..options(Objective::Fw) };
        let mut whole = [trainer(&teacher, own())?];
        let expected = losses(&mut whole)?;
        let mut first = [trainer(&teacher, own())?];
        let stopped = together(&mut first, lesson, None, |p| {
            anyhow::ensure!(p.entry.report.step < 5, "killed");
            Ok(())
        });
        assert!(stopped.is_err());
        let saved = first[0].descent().tensors()?.into_iter().collect();
        let mut second = [trainer(&teacher, own())?];
        second[0].descent_mut().restore(&saved)?;
        assert_eq!(second[0].steps_taken(), 5);
        assert_eq!(losses(&mut second)?, expected);
        for ((name, a), (_, b)) in
            whole[0].student.velocity.parameters().iter().zip(second[0].student.velocity.parameters())
        {
            let flat = |x: &Tensor| x.flatten_all().and_then(|x| x.to_vec1::<f32>());
            assert_eq!(flat(a)?, flat(b)?, "{name}");
        }
        let mut broken = saved;
        broken.remove("history");
        assert!(second[0].descent_mut().restore(&broken).unwrap_err().to_string().contains("no history"));
    }
    Ok(())
}

#[test]
fn the_teacher_records_no_graph_and_stops_at_the_last_boundary() -> Result<()> {
    let teacher = teacher()?;
    // Whatever runs the layer behind the block gets NaN.
    let poison = teacher.layer(3).map(&mut |w| w.affine(f64::NAN, 0.0))?;
    let teacher = Arc::new(teacher.with_layers([&teacher.layers()[..3], &[poison]].concat()));
    let trainers = [trainer(&teacher, options(Objective::Fw))?];
    let pass = super::targets::TeacherPass::of(&teacher, Lesson::Tokens(batch(0)?), &trainers, 0)?;
    let targets = pass.targets(trainers[0].student.block)?;
    for x in [&targets.x0, &targets.x1] {
        assert!(!x.track_op());
        assert!(x.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite());
    }
    assert!(targets.logits.is_none());
    Ok(())
}

#[test]
fn latents_on_disk_train_as_the_teacher_does() -> Result<()> {
    let teacher = teacher()?;
    let text =
        crate::data::TokenSet { tokens: (0..600u32).map(|i| i * 11 % 31).collect(), documents: 1, bytes: 0 };
    let folder = tempfile::tempdir()?;
    let what =
        LatentOptions { boundaries: vec![1, 3], seq_len: 12, windows: None, dtype: DType::F32, batch: 8 };
    let cache = cache_latents(&teacher, &text, folder.path(), &what, |_, _| Ok(()))?;
    let own = || Options { steps: 6, kl_weight: 0.5, ..options(Objective::Fm) };
    let train = |cached: bool| {
        let mut curve = Vec::new();
        let lesson = |step: usize| {
            let batch = cache.batch(step as u64, 4, 9)?;
            Ok(if cached { Lesson::Latents(vec![1, 3], batch) } else { Lesson::Tokens(batch.ids) })
        };
        together(&mut [trainer(&teacher, own())?], lesson, None, |p| {
            curve.push(p.entry.report.loss);
            Ok(())
        })?;
        anyhow::Ok(curve)
    };
    for (cached, fresh) in train(true)?.into_iter().zip(train(false)?) {
        assert!((cached - fresh).abs() < 1e-5 * fresh, "{cached} and {fresh}");
    }
    let elsewhere = together(
        &mut [trainer(&teacher, own())?],
        |step| Ok(Lesson::Latents(vec![0, 3], cache.batch(step as u64, 4, 9)?)),
        None,
        |_| Ok(()),
    );
    assert!(elsewhere.unwrap_err().to_string().contains("no latents at boundary 1, only at [0, 3]"));
    Ok(())
}

#[test]
fn half_precision_trains_nearly_the_same_losses() -> Result<()> {
    let teacher = teacher()?;
    let half = || Options { dtype: Some(DType::BF16), ..options(Objective::Fw) };
    let mut pair = [trainer(&teacher, options(Objective::Fw))?, trainer(&teacher, half())?];
    let curves = losses(&mut pair)?;
    assert_ne!(curves[0], curves[1]);
    for (exact, half) in curves[0].iter().zip(&curves[1]) {
        assert!((exact - half).abs() < 0.1 * exact, "{exact} and {half}");
    }
    assert!(pair[1].student.velocity.parameters().iter().all(|(_, v)| v.dtype() == DType::F32));
    Ok(())
}
