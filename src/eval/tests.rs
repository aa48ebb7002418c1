//! Evaluation of the embedded teacher against figures computed by another implementation.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::*;
use crate::data::{Quotes, TokenSet, windows};
use crate::flow::{Block, Init, Integration, Skip, Student, VelocityField};
use crate::ode::Method;
use crate::pythia::Pythia;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn teacher() -> Result<Arc<Pythia>> {
    Ok(Arc::new(Pythia::load(&format!("{ROOT}/data/teacher"), DType::F32, &Device::Cpu)?))
}

/// The first windows of the validation text, in batches of 8.
fn validation(teacher: &Pythia, count: usize) -> Result<Vec<Tensor>> {
    let vocabulary = teacher.config.vocab_size;
    let corpus = TokenSet::read(
        &[format!("{ROOT}/data/corpus/valid.txt")],
        Quotes::Kept,
        teacher.tokenizer()?,
        vocabulary,
    )?;
    let ids: Vec<u32> = windows(&corpus, 256, Some(count))?.flatten().collect();
    let all = Tensor::from_vec(ids, (count, 257), &Device::Cpu)?;
    (0..count).step_by(8).map(|i| Ok(all.narrow(0, i, 8.min(count - i))?)).collect()
}

/// Teacher perplexity and skip KLs as Hugging Face transformers has them on the same 64 windows, in f32
/// (data/teacher/README.md, by tests/interop/teacher_card.py): within half a unit of the last digit there, and 0.2 %.
#[test]
fn skipping_layers_costs_what_the_teachers_card_says() -> Result<()> {
    let teacher = teacher()?;
    let windows = validation(&teacher, 64)?;
    let reference = Reference::new(teacher, Block::new(6, 18, 24)?, &windows, |_| {})?;
    let teacher_ppl = reference.teacher_ppl()?;
    assert!((teacher_ppl - 33.05).abs() < 0.01, "teacher perplexity {teacher_ppl}");
    for (from, count, expected) in
        [(16, 1, 0.1022), (16, 2, 0.2248), (15, 3, 0.4128), (14, 4, 0.6070), (12, 6, 1.1827), (6, 12, 3.7179)]
    {
        let kl = reference.skip(&Skip { from, count })?.kl;
        assert!((kl / expected - 1.0).abs() < 0.002, "skip-{count}: KL {kl}, expected {expected}");
    }
    Ok(())
}

#[test]
fn a_perfect_replacement_has_no_divergence() -> Result<()> {
    let teacher = teacher()?;
    let reference =
        Reference::new(teacher.clone(), Block::new(6, 12, 24)?, &validation(&teacher, 2)?, |_| {})?;
    let metrics = reference.evaluate(|x0| Ok((teacher.run(x0, 6, 12)?, 7.0)))?;
    assert!(metrics.kl.abs() < 1e-6 && metrics.nmse < 1e-12, "{metrics:?}");
    assert_eq!((metrics.nfe, metrics.tokens), (7, 512));
    assert!((metrics.ppl / metrics.teacher_ppl - 1.0).abs() < 1e-6);
    assert_eq!(metrics.teacher_ppl, reference.teacher_ppl()?);
    Ok(())
}

#[test]
fn a_fresh_student_is_the_skipped_block_under_every_solver() -> Result<()> {
    let teacher = teacher()?;
    let block = Block::new(6, 12, 24)?;
    let reference = Reference::new(teacher.clone(), block, &validation(&teacher, 1)?, |_| {})?;
    let field = VelocityField::new(&teacher, block, Init::Zero, None, 0)?;
    let student = Student::new(teacher, Arc::new(field))?;
    let skipped = reference.skip(&Skip { from: 6, count: 6 })?;
    for (method, nfe) in [(Method::Euler, 2), (Method::Midpoint, 4), (Method::Rk4, 8)] {
        let metrics = reference.student(&student, &Integration::fixed(method, 2))?;
        assert!(
            (metrics.kl / skipped.kl - 1.0).abs() < 1e-5,
            "{method}: {} against {}",
            metrics.kl,
            skipped.kl
        );
        assert_eq!(metrics.nfe, nfe);
    }
    assert!(reference.skip(&Skip { from: 5, count: 2 }).is_err(), "layers outside the block");
    Ok(())
}
