//! The loss of a language model on held-out text.

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};

use super::reference::{blocks, sum};
use crate::ops;
use crate::pythia::Pythia;

/// Mean next-token cross-entropy in nats over windows of token ids, without recording a graph. `watch` is told the
/// tokens done, and may end the work by an error.
///
/// # Shapes
/// each tensor (B, T + 1): the first T tokens of a window are read, the last T predicted.
///
/// # Errors
/// If there are no windows or they have fewer than two tokens.
pub fn language_loss(
    model: &Pythia,
    windows: &[Tensor],
    mut watch: impl FnMut(usize) -> Result<()>,
) -> Result<f64> {
    ensure!(!windows.is_empty(), "a validation needs at least one window of tokens");
    let width = model.config.hidden_size;
    let (mut nats, mut count) = (0.0, 0);
    for ids in windows {
        let tokens = ids.dim(1)?;
        ensure!(tokens >= 2, "validation windows need at least two tokens, these have {tokens}");
        let last = model.hidden(&ids.narrow(1, 0, tokens - 1)?, model.layers().len())?;
        let last = model.final_norm(&last)?.reshape(((), width))?;
        let next = ids.narrow(1, 1, tokens - 1)?.flatten_all()?.to_device(model.device())?;
        for (first, rows) in blocks(last.dim(0)?) {
            let logits = ops::linear(&last.narrow(0, first, rows)?, model.unembed_weight(), None)?;
            let next = next.narrow(0, first, rows)?;
            nats += sum(&ops::cross_entropy(&logits.to_dtype(DType::F32)?, &next)?)?;
        }
        count += last.dim(0)?;
        watch(count)?;
    }
    Ok(nats / count as f64)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn agrees_with_the_perplexity_of_logits() -> Result<()> {
        let teacher = Pythia::load("data/teacher", DType::F32, &Device::Cpu)?;
        let ids = Tensor::arange(100u32, 142, &Device::Cpu)?.reshape((2, 21))?;
        let mut seen = Vec::new();
        let found = language_loss(&teacher, &[ids.narrow(0, 0, 1)?, ids.narrow(0, 1, 1)?], |tokens| {
            seen.push(tokens);
            Ok(())
        })?;
        assert_eq!(seen, [20, 40]);
        let logits = teacher.logits(&ids.narrow(1, 0, 20)?)?;
        let expected = crate::eval::perplexity(&logits, &ids.narrow(1, 1, 20)?)?.ln();
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
        Ok(())
    }
}
