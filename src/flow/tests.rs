//! The science of the room as assertions.

mod extras;

use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::ode::Method;
use crate::ops::check::{agrees, random};
use crate::pythia::{Config, Pythia, Sampling, generate};

fn teacher(parallel: bool) -> Result<Pythia> {
    let config = Config {
        hidden_size: 16,
        intermediate_size: 40,
        num_hidden_layers: 4,
        num_attention_heads: 2,
        vocab_size: 31,
        max_position_embeddings: 32,
        use_parallel_residual: parallel,
        initializer_range: 0.3,
        ..Config::default()
    };
    Pythia::random(config, 7, DType::F32, &Device::Cpu)
}

/// A field whose every weight, the adaLN projection included, is away from zero.
fn trained(teacher: &Pythia, block: Block) -> Result<VelocityField> {
    let field = VelocityField::new(teacher, block, Init::Zero, None, 3)?;
    shake(&field)?;
    Ok(field)
}

/// Adds noise to every parameter.
fn shake(field: &VelocityField) -> Result<()> {
    for (i, (_, var)) in field.parameters().iter().enumerate() {
        let noise = (random(var.dims(), 100 + i as u64)? * 0.3)?;
        var.set(&(var.as_tensor() + noise)?)?;
    }
    Ok(())
}

fn ids() -> Result<Tensor> {
    Ok(Tensor::new(&[[1u32, 5, 9, 30, 2, 2], [7, 7, 0, 3, 12, 29]], &Device::Cpu)?)
}

#[test]
fn zero_initialisation_skips_the_block() -> Result<()> {
    let teacher = Arc::new(teacher(true)?);
    let block = Block::new(1, 3, 4)?;
    let field = VelocityField::new(&teacher, block, Init::Zero, None, 1)?;
    let student = Student::new(teacher.clone(), Arc::new(field))?;
    let logits = student.logits(&ids()?, &Integration::fixed(Method::Midpoint, 2))?;
    agrees(&logits, &Skip::new(1, 2, 4)?.logits(&teacher, &ids()?)?, 1e-6)?;
    Ok(())
}

#[test]
fn teacher_initialisation_repeats_the_layers_update() -> Result<()> {
    for parallel in [true, false] {
        let teacher = teacher(parallel)?;
        let block = Block::new(2, 3, 4)?;
        let field = VelocityField::new(&teacher, block, Init::Teacher, Some(2), 1)?;
        let x = random(&[2, 5, 16], 4)?;
        // One layer, gates 1: x + u(x) is that layer.
        agrees(&(&x + field.at(&x, 0.3)?)?, &teacher.run(&x, 2, 3)?, 1e-5)?;
        let twice = VelocityField::new(&teacher, Block::new(1, 3, 4)?, Init::Teacher, Some(2), 1)?;
        if parallel {
            agrees(&twice.at(&x, 0.0)?, &(field.at(&x, 0.0)? * 2.0)?, 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn every_parameter_receives_a_gradient_under_every_objective() -> Result<()> {
    for parallel in [true, false] {
        let teacher = teacher(parallel)?;
        let field = trained(&teacher, Block::new(1, 3, 4)?)?;
        let (x0, x1) = (random(&[3, 6, 16], 1)?, random(&[3, 6, 16], 2)?);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let t = Tensor::new(&[0.1f32, 0.6, 0.9], &Device::Cpu)?;
        let times = walk_times(3, 3, &mut rng, &Device::Cpu)?;
        let losses = [
            matching_loss(&field, &x0, &x1, &t)?,
            regression_loss(&field, &x0, &x1)?,
            walking_loss(&field, &x0, &x1, &times, Method::Midpoint)?,
            hybrid_loss(&field, (&x0, &x1), &times, Method::Euler, &t, 0.5)?,
        ];
        for loss in losses {
            let gradients = loss.backward()?;
            for (name, var) in field.parameters() {
                let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} received no gradient"));
                let norm = gradient.sqr()?.sum_all()?.to_scalar::<f32>()?;
                assert!(norm.is_finite() && norm > 0.0, "the gradient of {name} is {norm}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_walks_gradient_matches_finite_differences() -> Result<()> {
    let teacher = teacher(true)?;
    let field = trained(&teacher, Block::new(1, 3, 4)?)?;
    let (x0, x1) = (random(&[2, 4, 16], 1)?, random(&[2, 4, 16], 2)?);
    let times = walk_times(2, 3, &mut ChaCha8Rng::seed_from_u64(5), &Device::Cpu)?;
    slopes_match_differences(&field, || walking_loss(&field, &x0, &x1, &times, Method::Midpoint))
}

#[test]
fn the_divergences_gradient_matches_finite_differences() -> Result<()> {
    for parallel in [true, false] {
        let teacher = teacher(parallel)?;
        let field = trained(&teacher, Block::new(1, 3, 4)?)?;
        let x0 = teacher.hidden(&ids()?, 1)?;
        let logits = teacher_logits(&teacher, 3, &teacher.run(&x0, 1, 3)?)?;
        for (method, k) in [(Method::Midpoint, 1), (Method::Euler, 3)] {
            let times = equal_times(k, &Device::Cpu)?;
            let loss = || divergence(&teacher, 3, &walk(&field, &x0, &times, method)?, &logits);
            slopes_match_differences(&field, loss)?;
        }
    }
    Ok(())
}

#[test]
fn the_divergence_is_that_of_the_students_logits() -> Result<()> {
    let teacher = Arc::new(teacher(true)?);
    let field = Arc::new(trained(&teacher, Block::new(1, 3, 4)?)?);
    let student = Student::new(teacher.clone(), field.clone())?;
    let (p, q) = (teacher.logits(&ids()?)?, student.logits(&ids()?, &Integration::fixed(Method::Euler, 3))?);
    let rows = |x: &Tensor| x.reshape(((), 31));
    let expected = crate::ops::kl_divergence(&rows(&p)?, &rows(&q)?)?.mean_all()?;
    let times = equal_times(3, &Device::Cpu)?;
    let x0 = teacher.hidden(&ids()?, 1)?;
    let found = divergence(&teacher, 3, &walk(field.as_ref(), &x0, &times, Method::Euler)?, &rows(&p)?)?;
    agrees(&found, &expected, 1e-5)?;
    Ok(())
}

/// Holds the gradient of every parameter, along a random direction, against central differences.
fn slopes_match_differences(field: &VelocityField, loss: impl Fn() -> Result<Tensor>) -> Result<()> {
    let gradients = loss()?.backward()?;
    for (name, var) in field.parameters() {
        let direction = random(var.dims(), 77)?;
        let slope = (gradients.get(var).unwrap() * &direction)?.sum_all()?.to_scalar::<f32>()?;
        let start = var.as_tensor().copy()?;
        let at = |h: f64| -> Result<f32> {
            var.set(&(&start + (&direction * h)?)?)?;
            Ok(loss()?.to_scalar::<f32>()?)
        };
        const H: f64 = 2e-3;
        let numeric = (at(H)? - at(-H)?) / (2.0 * H as f32);
        var.set(&start)?;
        let scale = slope.abs().max(0.02);
        assert!((slope - numeric).abs() < 0.03 * scale, "{name}: slope {slope}, differences {numeric}");
    }
    Ok(())
}

#[test]
fn matching_recovers_a_constant_field() -> Result<()> {
    // With u(x, t) = x1 − x0 the loss is 0 at every time; off by one it is 1.
    let (x0, x1) = (random(&[2, 3, 4], 1)?, random(&[2, 3, 4], 2)?);
    let displacement = (&x1 - &x0)?;
    let exact = |_: &Tensor, _: &Tensor| Ok(displacement.clone());
    let off = |_: &Tensor, _: &Tensor| Ok((&displacement + 1.0)?);
    let t = Tensor::new(&[0.2f32, 0.7], &Device::Cpu)?;
    assert_eq!(matching_loss(&exact, &x0, &x1, &t)?.to_scalar::<f32>()?, 0.0);
    assert!((matching_loss(&off, &x0, &x1, &t)?.to_scalar::<f32>()? - 1.0).abs() < 1e-6);
    assert!((regression_loss(&off, &x0, &x1)?.to_scalar::<f32>()? - 1.0).abs() < 1e-6);
    let times = walk_times(2, 3, &mut ChaCha8Rng::seed_from_u64(1), &Device::Cpu)?;
    assert!(walking_loss(&exact, &x0, &x1, &times, Method::Euler)?.to_scalar::<f32>()? < 1e-12);
    Ok(())
}

#[test]
fn a_walk_takes_one_solver_step_an_interval() -> Result<()> {
    // dx/dt = x: one midpoint step of length d multiplies by 1 + d + d²/2, one Euler step by 1 + d.
    let x0 = random(&[2, 3, 4], 1)?;
    let field = |x: &Tensor, _: &Tensor| Ok(x.clone());
    let times = [[0f32, 0.0], [0.25, 0.5], [1.0, 1.0]].map(|t| Tensor::new(&t, &Device::Cpu).unwrap());
    let factor = |growth: fn(f32) -> f32| {
        Tensor::new(&[[[growth(0.25) * growth(0.75)]], [[growth(0.5) * growth(0.5)]]], &Device::Cpu)
    };
    let euler = walk(&field, &x0, &times, Method::Euler)?;
    agrees(&euler, &x0.broadcast_mul(&factor(|d| 1.0 + d)?)?, 1e-6)?;
    let midpoint = walk(&field, &x0, &times, Method::Midpoint)?;
    agrees(&midpoint, &x0.broadcast_mul(&factor(|d| 1.0 + d + d * d / 2.0)?)?, 1e-6)?;
    Ok(())
}

#[test]
fn walk_times_are_sorted_and_span_the_unit_interval() -> Result<()> {
    let times = walk_times(50, 3, &mut ChaCha8Rng::seed_from_u64(2), &Device::Cpu)?;
    let columns: Vec<Vec<f32>> = times.iter().map(|t| t.to_vec1()).collect::<candle_core::Result<_>>()?;
    assert!(columns[0].iter().all(|&t| t == 0.0) && columns[3].iter().all(|&t| t == 1.0));
    assert!((0..50).all(|i| columns[1][i] <= columns[2][i]));
    assert!(columns[1].iter().any(|&t| t != columns[1][0]), "every example draws its own times");
    Ok(())
}

#[test]
fn cached_generation_equals_whole_passes() -> Result<()> {
    let teacher = Arc::new(teacher(true)?);
    let field = trained(&teacher, Block::new(1, 3, 4)?)?;
    let student = Student::new(teacher, Arc::new(field))?;
    let integration = Integration::fixed(Method::Midpoint, 2);
    let decoder = StudentDecoder { student: &student, integration };
    let sampling = Sampling { max_tokens: 8, ..Sampling::default() };
    let mut sequence = vec![3u32, 1, 4, 1];
    let generated = generate(&decoder, &sequence, &sampling, |_| Ok(()))?;
    for token in &generated {
        let ids = Tensor::from_slice(&sequence, (1, sequence.len()), &Device::Cpu)?;
        let logits = student.logits(&ids, &integration)?.squeeze(0)?;
        let last = logits.get(sequence.len() - 1)?;
        assert_eq!(last.argmax(0)?.to_scalar::<u32>()?, *token);
        sequence.push(*token);
    }
    assert_eq!(generated.len(), 8);
    Ok(())
}

#[test]
fn a_saved_field_comes_back_unchanged() -> Result<()> {
    let teacher = teacher(true)?;
    let field = trained(&teacher, Block::new(1, 3, 4)?)?;
    let folder = tempfile::tempdir()?;
    field.save(folder.path(), &teacher.config)?;
    let loaded = VelocityField::load(folder.path(), &teacher)?;
    assert_eq!(loaded.block(), field.block());
    let x = random(&[1, 4, 16], 8)?;
    assert_eq!(loaded.at(&x, 0.4)?.to_vec3::<f32>()?, field.at(&x, 0.4)?.to_vec3::<f32>()?);
    std::fs::write(folder.path().join("velocity.safetensors"), b"short")?;
    let error = format!("{:#}", VelocityField::load(folder.path(), &teacher).err().unwrap());
    assert!(error.contains("velocity.safetensors"), "{error}");
    Ok(())
}

#[test]
fn recomputed_activations_give_the_same_gradient() -> Result<()> {
    for parallel in [true, false] {
        let teacher = teacher(parallel)?;
        let field = Arc::new(trained(&teacher, Block::new(1, 3, 4)?)?);
        let (x0, x1) = (random(&[2, 4, 16], 1)?, random(&[2, 4, 16], 2)?);
        let times = walk_times(2, 3, &mut ChaCha8Rng::seed_from_u64(5), &Device::Cpu)?;
        let gradients = |recompute: bool| {
            let u = Evaluation::of(&field, recompute)?;
            walking_loss(&u, &x0, &x1, &times, Method::Midpoint)?.backward().map_err(anyhow::Error::from)
        };
        let (kept, recomputed) = (gradients(false)?, gradients(true)?);
        for (name, parameter) in field.parameters() {
            let (Some(kept), Some(found)) = (kept.get(parameter), recomputed.get(parameter)) else {
                panic!("{name} received no gradient")
            };
            agrees(found, kept, 1e-6)?;
        }
    }
    Ok(())
}
