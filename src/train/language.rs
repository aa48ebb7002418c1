//! Loss and gradient of a language model, with the logits made some rows at a time.

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use crate::ops::{
    self,
    divergence::{check_targets, comparable},
};
use crate::pythia::Pythia;

/// Logits held at a time: a matrix of all B·T × V would be the largest tensor of a step by far.
const LOGITS: usize = 1 << 25;

/// The mean next-token cross-entropy of a batch in nats, times `weight`: a scalar on the model's device, and its
/// gradient. The weight is the batch's share where several batches make one step.
///
/// The model's weights are f32 variables; layers compute in `dtype` on casts of them, and every gradient arrives at
/// the variables in f32. Forward and backward run in pieces joined by hand: the embedding, whose gradient is
/// [`ops::embedding_gradient`]; the layers, on a [`Tape`](crate::pythia::Tape); the final norm; and the head, row block by row
/// block.
///
/// # Shapes
/// `ids` (B, T + 1) on the CPU: the first T tokens of a row are read, the last T predicted.
///
/// # Errors
/// Rows of fewer than two tokens, and ids outside the vocabulary.
pub fn language_gradient(
    master: &Pythia,
    dtype: DType,
    ids: &Tensor,
    weight: f64,
) -> Result<(Tensor, GradStore)> {
    let tokens = ids.dim(1)?;
    ensure!(tokens >= 2, "training windows need at least two tokens, these have {tokens}");
    let read = ids.narrow(1, 0, tokens - 1)?;
    let ends = master.with_layers(Vec::new()).map(|weight| weight.to_dtype(dtype))?;

    let (tape, width) = (master.record(&ends.embed(&read)?)?, master.config.hidden_size);
    let behind = Var::from_tensor(&tape.output)?;
    let last = ends.final_norm(behind.as_tensor())?.reshape(((), width))?;

    let next = ids.narrow(1, 1, tokens - 1)?.flatten_all()?;
    check_targets(&next, master.config.vocab_size)?;
    let next = next.to_device(master.device())?;
    let head = head(ends.unembed_weight(), &last.detach(), &next, weight)?;

    let mut gradients = ops::graft(&last, &head.loss, &head.input)?.backward()?;
    let slope = gradients.remove(&behind).context("the last layer received no gradient")?;
    let grad = tape.backward(&slope, master, &mut gradients)?;
    let embedding =
        ops::embedding_gradient(&read.flatten_all()?, &grad.reshape(((), width))?, master.config.vocab_size)?;
    if master.config.tie_word_embeddings {
        gradients.insert(master.embed_weight(), (embedding + head.weight)?);
    } else {
        gradients.insert(master.embed_weight(), embedding);
        gradients.insert(master.unembed_weight(), head.weight);
    }
    Ok((head.loss, gradients))
}

/// What the unembedding contributes.
struct Head {
    /// The weighted mean cross-entropy, a scalar in f32.
    loss: Tensor,
    /// (N, D), in the input's dtype.
    input: Tensor,
    /// (V, D), f32.
    weight: Tensor,
}

/// # Shapes
/// `weight` (V, D), `input` (N, D), `next` (N).
fn head(weight: &Tensor, input: &Tensor, next: &Tensor, share: f64) -> Result<Head> {
    let (rows, vocabulary) = (input.dim(0)?, weight.dim(0)?);
    let each = share / rows as f64;
    #[cfg(feature = "cuda")]
    if let Some(found) = ops::cuda::unembedding(input, &weight.detach(), next, each)? {
        let loss = (found.nats.sum_all()? * each)?;
        return Ok(Head { loss, input: found.input, weight: found.weight });
    }
    let leaf = Var::from_tensor(&weight.detach())?;
    let device = input.device();
    let mut loss = Tensor::zeros((), DType::F32, device)?;
    let mut sum = Tensor::zeros(weight.shape(), DType::F32, device)?;
    let mut inputs = Vec::new();
    let block = (LOGITS / vocabulary).max(1);
    for first in (0..rows).step_by(block) {
        let count = block.min(rows - first);
        let x = Var::from_tensor(&input.narrow(0, first, count)?)?;
        let logits = comparable(&ops::linear(&x, &leaf, None)?)?;
        let nats = ops::cross_entropy_of_known(&logits, &next.narrow(0, first, count)?)?;
        let part = (nats.sum_all()? * each)?;
        let mut gradients = part.backward()?;
        loss = (loss + part.detach())?;
        let d_weight = gradients.remove(&leaf).context("the unembedding received no gradient")?;
        sum = (sum + d_weight.to_dtype(DType::F32)?)?;
        inputs.push(gradients.remove(&x).context("the final norm received no gradient")?);
    }
    Ok(Head { loss, input: Tensor::cat(&inputs, 0)?, weight: sum })
}
