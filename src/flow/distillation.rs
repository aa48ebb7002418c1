//! Distillation of the next-token distribution through the frozen layers behind the block.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};

use super::{Field, walk};
use crate::ode::Method;
use crate::ops;
use crate::pythia::Pythia;

/// Elements of the logits held at a time. A student's B × T × V logits never exist at once.
const LOGITS: usize = 1 << 23;

/// The times `i/k` of k equal steps, the same for every example.
///
/// # Shapes
/// k + 1 tensors (1).
pub fn equal_times(k: usize, device: &Device) -> Result<Vec<Tensor>> {
    ensure!(k >= 1, "an integration needs at least one step");
    (0..=k).map(|i| Ok(Tensor::new(&[i as f32 / k as f32], device)?)).collect()
}

/// `KL(teacher ‖ student)` of the next token in nats, mean over tokens, of a student that walks x0 over
/// `times` and continues in the teacher's layers n..L. The gradient reaches everything that u is made of.
///
/// # Shapes
/// `x0` (B, T, D); `times` tensors (B) or (1); `logits` (B·T, V) of the teacher; result a scalar.
pub fn distillation_loss(
    u: &impl Field,
    teacher: &Pythia,
    n: usize,
    x0: &Tensor,
    logits: &Tensor,
    times: &[Tensor],
    method: Method,
) -> Result<Tensor> {
    let x1 = walk(u, x0, times, method)?;
    divergence(teacher, n, &x1, logits)
}

/// `KL(teacher ‖ student)` of latents at boundary n, as in [`distillation_loss`].
///
/// The logits are made and differentiated block by block, with respect to the final norm's output h. The
/// result is the KL plus `h·g − detach(h·g)`, which is zero and whose gradient is g.
///
/// # Shapes
/// `x1` (B, T, D); `logits` (B·T, V); result a scalar.
pub fn divergence(teacher: &Pythia, n: usize, x1: &Tensor, logits: &Tensor) -> Result<Tensor> {
    let h = last_hidden(teacher, n, x1)?;
    let rows = (LOGITS / teacher.config.vocab_size).max(1);
    let (kl, g) = unembedded(teacher, &h.detach(), logits, rows)?;
    let linear = (h.to_dtype(DType::F32)? * g)?.sum_all()?;
    Ok(((&linear - linear.detach())? + kl)?)
}

/// The teacher's logits for latents of its own at boundary n.
///
/// # Shapes
/// `x1` (B, T, D), result (B·T, V) in the teacher's dtype.
pub fn teacher_logits(teacher: &Pythia, n: usize, x1: &Tensor) -> Result<Tensor> {
    Ok(ops::linear(&last_hidden(teacher, n, x1)?, teacher.unembed_weight(), None)?)
}

/// From boundary n to the input of the unembedding, (B·T, D).
fn last_hidden(teacher: &Pythia, n: usize, x1: &Tensor) -> Result<Tensor> {
    let config = &teacher.config;
    let x = teacher.run(&x1.to_dtype(teacher.dtype())?, n, config.num_hidden_layers)?;
    Ok(teacher.final_norm(&x)?.reshape(((), config.hidden_size))?)
}

/// The mean KL of hidden states h (N, D) and its gradient with respect to them, in f32; logits of `block`
/// rows exist at a time.
fn unembedded(teacher: &Pythia, h: &Tensor, logits: &Tensor, block: usize) -> Result<(Tensor, Tensor)> {
    let (rows, _) = logits.dims2()?;
    ensure!(
        h.dim(0)? == rows,
        "the teacher's logits are of {rows} positions, the student's of {}",
        h.dim(0)?
    );
    let mut sums = Vec::new();
    let mut slopes = Vec::new();
    for first in (0..rows).step_by(block) {
        let count = block.min(rows - first);
        let h = Var::from_tensor(&h.narrow(0, first, count)?)?;
        let student = ops::linear(&h, teacher.unembed_weight(), None)?.to_dtype(DType::F32)?;
        let target = logits.narrow(0, first, count)?.to_dtype(DType::F32)?;
        let kl = (ops::kl_divergence(&target, &student)?.sum_all()? / rows as f64)?;
        let gradients = kl.backward()?;
        let slope = gradients.get(&h).context("the KL has no gradient with respect to the hidden states")?;
        slopes.push(slope.to_dtype(DType::F32)?);
        sums.push(kl.detach());
    }
    let kl = Tensor::stack(&sums, 0)?.sum_all()?;
    Ok((kl, Tensor::cat(&slopes, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, random};
    use crate::pythia::Config;

    #[test]
    fn blocks_of_logits_change_nothing() -> Result<()> {
        let config = Config { hidden_size: 16, num_attention_heads: 2, vocab_size: 31, ..tiny() };
        let teacher = Pythia::random(config, 7, DType::F32, &Device::Cpu)?;
        let (h, p) = (random(&[11, 16], 1)?, (random(&[11, 31], 2)? * 3.0)?);
        let (whole, slope) = unembedded(&teacher, &h, &p, 11)?;
        let (parts, pieces) = unembedded(&teacher, &h, &p, 4)?;
        agrees(&parts, &whole, 1e-6)?;
        agrees(&pieces, &slope, 1e-6)?;
        let q = ops::linear(&h, teacher.unembed_weight(), None)?;
        agrees(&whole, &ops::kl_divergence(&p, &q)?.mean_all()?, 1e-6)?;
        Ok(())
    }

    fn tiny() -> Config {
        Config { intermediate_size: 24, num_hidden_layers: 1, initializer_range: 0.3, ..Config::default() }
    }
}
