//! What goes beyond the paper: low-rank updates, trained times, early exit, export.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::*;
use crate::pythia::Pythia;

const EXTRAS: Extras = Extras { rank: 3, learn_times: 3, plain: false };

/// A student of a tiny teacher whose field has every extra, all weights away from zero.
fn student(parallel: bool, extras: Extras) -> Result<Student> {
    let teacher = Arc::new(teacher(parallel)?);
    let field = VelocityField::extended(&teacher, Block::new(1, 3, 4)?, Init::Zero, None, 3, extras)?;
    shake(&field)?;
    Student::new(teacher, Arc::new(field))
}

#[test]
fn extras_that_are_off_or_untrained_change_nothing() -> Result<()> {
    let teacher = teacher(true)?;
    let block = Block::new(1, 3, 4)?;
    let plain = VelocityField::new(&teacher, block, Init::Teacher, None, 3)?;
    let extended = VelocityField::extended(&teacher, block, Init::Teacher, None, 3, EXTRAS)?;
    let x = random(&[2, 5, 16], 1)?;
    agrees(&extended.at(&x, 0.3)?, &plain.at(&x, 0.3)?, 1e-6)?;
    // A and B of the four matrices, s(t), and three lengths.
    let low_rank = 3 * ((16 + 48) + (16 + 16) + 2 * (16 + 40)) + 4 * 3 * (16 + 1);
    assert_eq!(extended.parameter_count(), plain.parameter_count() + low_rank + 3);
    let times = Integration::fixed(Method::Euler, 3).learned_times(&extended)?.unwrap();
    assert!(times.iter().zip([0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]).all(|(t, equal)| (t - equal).abs() < 1e-6));
    assert!(plain.learned_times(3).is_none() && extended.learned_times(2).is_none());
    Ok(())
}

#[test]
fn extras_receive_the_divergences_gradient() -> Result<()> {
    let student = student(true, EXTRAS)?;
    let teacher = &student.teacher;
    let x0 = teacher.hidden(&ids()?, 1)?;
    let logits = teacher_logits(teacher, 3, &teacher.run(&x0, 1, 3)?)?;
    let u = student.velocity.as_ref();
    let loss = || {
        let times = u.learned_times(3).unwrap()?;
        divergence(teacher, 3, &walk(u, &x0, &times, Method::Euler)?, &logits)
    };
    slopes_match_differences(u, loss)
}

#[test]
fn a_field_with_extras_comes_back_unchanged() -> Result<()> {
    let student = student(true, EXTRAS)?;
    let folder = tempfile::tempdir()?;
    student.velocity.save(folder.path(), &student.teacher.config)?;
    let loaded = VelocityField::load(folder.path(), &student.teacher)?;
    assert_eq!(loaded.extras(), EXTRAS);
    let again = Student::new(student.teacher.clone(), Arc::new(loaded))?;
    let integration = Integration::fixed(Method::Midpoint, 3);
    agrees(&again.logits(&ids()?, &integration)?, &student.logits(&ids()?, &integration)?, 0.0)?;
    Ok(())
}

#[test]
fn a_student_unrolls_into_a_model_with_its_logits() -> Result<()> {
    for (parallel, steps) in [(true, 1), (true, 2), (true, 3), (false, 1)] {
        let student = student(parallel, EXTRAS)?;
        let integration = Integration::fixed(Method::Euler, steps);
        let folder = tempfile::tempdir()?;
        student.export(folder.path(), &integration, 4000)?;
        assert!(folder.path().join("model.safetensors.index.json").is_file(), "split into shards");
        let exported = Pythia::load(folder.path().to_str().unwrap(), DType::F32, &Device::Cpu)?;
        assert_eq!(exported.config.num_hidden_layers, 2 + steps);
        agrees(&exported.logits(&ids()?)?, &student.logits(&ids()?, &integration)?, 1e-5)?;
        // A second export in one file must not be read together with the first one's shards.
        student.export(folder.path(), &Integration::fixed(Method::Euler, 1), usize::MAX)?;
        let exported = Pythia::load(folder.path().to_str().unwrap(), DType::F32, &Device::Cpu)?;
        assert_eq!(exported.config.num_hidden_layers, 3);
        assert!(!folder.path().join("model.safetensors.index.json").is_file());
    }
    Ok(())
}

#[test]
fn a_plain_field_is_a_layer_and_nothing_more() -> Result<()> {
    for parallel in [true, false] {
        let teacher = teacher(parallel)?;
        let plain = Extras { plain: true, ..Extras::default() };
        let field = VelocityField::extended(&teacher, Block::new(1, 3, 4)?, Init::Zero, Some(1), 3, plain)?;
        let x = random(&[2, 5, 16], 4)?;
        agrees(&(&x + field.at(&x, 0.7)?)?, &teacher.run(&x, 1, 2)?, 1e-5)?;
        let layer: usize = teacher.layer(1).tensors().iter().map(|(_, t)| t.elem_count()).sum();
        assert_eq!(field.parameter_count(), layer);
        let x0 = teacher.hidden(&ids()?, 1)?;
        let times = equal_times(1, &Device::Cpu)?;
        slopes_match_differences(&field, || {
            language_loss(&teacher, 3, &walk(&field, &x0, &times, Method::Euler)?, &ids()?)
        })?;
    }
    let (teacher, both) = (teacher(true)?, Extras { plain: true, rank: 2, learn_times: 0 });
    assert!(VelocityField::extended(&teacher, Block::new(1, 3, 4)?, Init::Zero, None, 3, both).is_err());
    Ok(())
}

#[test]
fn what_cannot_be_unrolled_is_refused_with_the_reason() -> Result<()> {
    let reason = |parallel, method, steps| -> Result<String> {
        let refused = student(parallel, Extras::default())?
            .unroll(&Integration { steps, ..Integration::fixed(method, 1) });
        Ok(refused.err().unwrap().to_string())
    };
    assert!(reason(true, Method::Midpoint, Some(2))?.contains("only Euler steps unroll"));
    assert!(reason(true, Method::Euler, None)?.contains("at least one step"));
    assert!(reason(false, Method::Euler, Some(2))?.contains("sequential"));
    Ok(())
}

/// From where no token stops early to where all do.
const TOLERANCES: [f64; 6] = [0.005, 0.01, 0.03, 0.1, 0.2, 0.4];

#[test]
fn early_exit_lies_between_one_step_and_all() -> Result<()> {
    let student = student(true, Extras::default())?;
    let x0 = student.teacher.hidden(&ids()?, 1)?;
    let early =
        |tolerance| student.transport_early(&x0, &EarlyExit { method: Method::Euler, steps: 4, tolerance });
    let whole = |k| student.transport(&x0, &Integration::fixed(Method::Euler, k));
    let (x1, nfe) = early(0.0)?;
    agrees(&x1, &whole(4)?.0, 1e-5)?;
    assert_eq!(nfe, 4.0);
    let (x1, nfe) = early(1e9)?;
    agrees(&x1, &whole(1)?.0, 1e-5)?;
    assert_eq!(nfe, 1.0);
    let counts: Vec<f64> = TOLERANCES.iter().map(|t| Ok(early(*t)?.1)).collect::<Result<_>>()?;
    assert!(
        counts[0] >= counts[TOLERANCES.len() - 1],
        "a large tolerance costs more than a small one: {counts:?}"
    );
    assert!(counts.iter().any(|n| 1.0 < *n && *n < 4.0), "some tokens stop between: {counts:?}");
    Ok(())
}

#[test]
fn a_token_leaves_without_a_look_at_later_ones() -> Result<()> {
    let student = student(true, Extras::default())?;
    let x0 = student.teacher.hidden(&ids()?, 1)?;
    for tolerance in TOLERANCES {
        let exit = EarlyExit { method: Method::Euler, steps: 4, tolerance };
        let (whole, _) = student.transport_early(&x0, &exit)?;
        let (start, _) = student.transport_early(&x0.narrow(1, 0, 4)?, &exit)?;
        agrees(&start, &whole.narrow(1, 0, 4)?, 1e-5)?;
    }
    Ok(())
}

#[test]
fn a_trained_field_leaves_its_export_alone() -> Result<()> {
    let student = student(true, Extras::default())?;
    let unrolled = student.unroll(&Integration::fixed(Method::Euler, 1))?;
    let before: Tensor = unrolled.logits(&ids()?)?;
    shake(&student.velocity)?;
    agrees(&unrolled.logits(&ids()?)?, &before, 0.0)?;
    assert!(!before.track_op(), "running the export records no graph");
    Ok(())
}
