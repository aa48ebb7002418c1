//! Losses of the next-token distribution, through the frozen layers behind the block.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor, Var};

use crate::ops::{
    self,
    divergence::{check_targets, comparable},
};
use crate::pythia::Pythia;

/// Elements of the logits held at a time on the CPU and on a GPU, which needs larger pieces to be busy. A
/// student's B × T × V logits never exist at once.
const LOGITS: (usize, usize) = (1 << 23, 1 << 26);

/// `KL(teacher ‖ student)` of the next token in nats, mean over tokens, of a student whose latents at boundary
/// n are `x1`. The gradient runs through the frozen layers n..L into whatever `x1` was made of.
///
/// # Shapes
/// `x1` (B, T, D); `logits` (B·T, V) of the teacher; result a scalar.
pub fn divergence(teacher: &Pythia, n: usize, x1: &Tensor, logits: &Tensor) -> Result<Tensor> {
    let h = last_hidden(teacher, n, x1)?.flatten(0, 1)?;
    let positions = logits.dim(0)?;
    ensure!(
        h.dim(0)? == positions,
        "the teacher's logits are of {positions} positions, the student's of {}",
        h.dim(0)?
    );
    unembedded(teacher, &h, rows(teacher), |student, first, count| {
        let target = comparable(&logits.narrow(0, first, count)?)?;
        if target.dtype() == student.dtype() {
            return Ok(ops::kl_divergence(&target, student)?);
        }
        Ok(ops::kl_divergence(&target.to_dtype(DType::F32)?, &student.to_dtype(DType::F32)?)?)
    })
}

/// The language-modelling loss of such a student: the mean cross-entropy of the tokens that follow.
///
/// # Shapes
/// `x1` (B, T, D); `ids` (B, T), of which those from the second on are predicted; result a scalar.
pub fn language_loss(teacher: &Pythia, n: usize, x1: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (_, tokens) = ids.dims2()?;
    ensure!(tokens >= 2, "a language-modelling loss needs windows of at least two tokens");
    let h = last_hidden(teacher, n, x1)?.narrow(1, 0, tokens - 1)?.flatten(0, 1)?;
    let next = ids.narrow(1, 1, tokens - 1)?.flatten_all()?.to_dtype(DType::U32)?;
    check_targets(&next, teacher.config.vocab_size)?;
    let next = next.to_device(h.device())?;
    unembedded(teacher, &h, rows(teacher), |student, first, count| {
        Ok(ops::cross_entropy_of_known(student, &next.narrow(0, first, count)?)?)
    })
}

/// The teacher's logits for latents of its own at boundary n.
///
/// # Shapes
/// `x1` (B, T, D), result (B·T, V) in the teacher's dtype.
pub fn teacher_logits(teacher: &Pythia, n: usize, x1: &Tensor) -> Result<Tensor> {
    let h = last_hidden(teacher, n, x1)?.flatten(0, 1)?;
    Ok(ops::linear(&h, teacher.unembed_weight(), None)?)
}

/// From boundary n to the input of the unembedding, (B, T, D).
fn last_hidden(teacher: &Pythia, n: usize, x1: &Tensor) -> Result<Tensor> {
    let x = teacher.run(&x1.to_dtype(teacher.dtype())?, n, teacher.config.num_hidden_layers)?;
    teacher.final_norm(&x)
}

fn rows(teacher: &Pythia) -> usize {
    let elements = if teacher.device().is_cpu() { LOGITS.0 } else { LOGITS.1 };
    (elements / teacher.config.vocab_size).max(1)
}

/// The mean over positions of `loss(logits, first, count)`, one value a position, for hidden states h (N, D).
///
/// The logits are made and differentiated `block` positions at a time, with respect to h.
fn unembedded(
    teacher: &Pythia,
    h: &Tensor,
    block: usize,
    loss: impl Fn(&Tensor, usize, usize) -> Result<Tensor>,
) -> Result<Tensor> {
    let positions = h.dim(0)?;
    let states = h.detach();
    let (mut sums, mut slopes) = (Vec::new(), Vec::new());
    for first in (0..positions).step_by(block) {
        let count = block.min(positions - first);
        let states = Var::from_tensor(&states.narrow(0, first, count)?)?;
        let logits = comparable(&ops::linear(&states, teacher.unembed_weight(), None)?)?;
        let sum = (loss(&logits, first, count)?.sum_all()? / positions as f64)?;
        let gradients = sum.backward()?;
        let slope = gradients.get(&states).context("the loss does not depend on the hidden states")?;
        slopes.push(slope.to_dtype(DType::F32)?);
        sums.push(sum.detach());
    }
    let value = Tensor::stack(&sums, 0)?.sum_all()?;
    Ok(ops::graft(h, &value, &Tensor::cat(&slopes, 0)?)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::check::{agrees, random};
    use crate::pythia::Config;

    fn teacher() -> Result<Pythia> {
        let config = Config {
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            vocab_size: 31,
            initializer_range: 0.3,
            ..Config::default()
        };
        Pythia::random(config, 7, DType::F32, &Device::Cpu)
    }

    #[test]
    fn blocks_of_logits_change_nothing() -> Result<()> {
        let teacher = teacher()?;
        let (h, p) = (Var::from_tensor(&random(&[11, 16], 1)?)?, (random(&[11, 31], 2)? * 3.0)?);
        let kl = |q: &Tensor, first, count| Ok(ops::kl_divergence(&p.narrow(0, first, count)?, q)?);
        let exact = ops::kl_divergence(&p, &ops::linear(&h, teacher.unembed_weight(), None)?)?.mean_all()?;
        let slope = exact.backward()?.get(&h).unwrap().clone();
        for block in [4, 11, 100] {
            let loss = unembedded(&teacher, &h, block, kl)?;
            agrees(&loss, &exact, 1e-6)?;
            agrees(loss.backward()?.get(&h).unwrap(), &slope, 1e-6)?;
        }
        Ok(())
    }

    #[test]
    fn the_language_loss_is_the_cross_entropy_of_what_follows() -> Result<()> {
        let teacher = teacher()?;
        let ids = Tensor::new(&[[1u32, 5, 9, 30], [7, 7, 0, 3]], &Device::Cpu)?;
        let x1 = teacher.hidden(&ids, 1)?;
        let logits = teacher.logits(&ids)?.narrow(1, 0, 3)?.reshape((6, 31))?;
        let next = Tensor::new(&[5u32, 9, 30, 7, 0, 3], &Device::Cpu)?;
        let expected = ops::cross_entropy(&logits, &next)?.mean_all()?;
        agrees(&language_loss(&teacher, 1, &x1, &ids)?, &expected, 1e-6)?;
        Ok(())
    }
}
