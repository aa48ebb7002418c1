//! What a model refuses, with a message for the user.

use anyhow::{Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

use super::Pythia;

impl Pythia {
    /// The flat u32 ids, if all lie in the vocabulary.
    pub(super) fn check_ids(&self, ids: &Tensor) -> Result<Tensor> {
        let dtype = ids.dtype();
        ensure!(
            matches!(dtype, DType::U32 | DType::I64),
            "token ids must be u32 or i64, got {}",
            dtype.as_str()
        );
        let flat = ids.flatten_all()?;
        let values = flat.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        let vocabulary = self.config.vocab_size;
        if let Some(id) = values.iter().find(|id| !(0..vocabulary as i64).contains(id)) {
            bail!("token id {id} is outside the model's vocabulary 0..={}", vocabulary - 1);
        }
        Ok(flat.to_dtype(DType::U32)?)
    }

    /// Whether a sequence of `tokens` fits the context.
    pub(super) fn check_length(&self, tokens: usize) -> Result<()> {
        let most = self.config.max_position_embeddings;
        ensure!(tokens <= most, "{tokens} tokens are more than the model's context of {most}");
        Ok(())
    }

    /// Whether layers `from..to` exist.
    pub(super) fn check_boundaries(&self, from: usize, to: usize) -> Result<()> {
        let last = self.layers.len();
        for boundary in [from, to] {
            ensure!(
                boundary <= last,
                "boundary {boundary} does not exist: the model has boundaries 0..={last}"
            );
        }
        ensure!(from <= to, "cannot run backwards from boundary {from} to boundary {to}");
        Ok(())
    }

    /// The number of tokens of latents, if they have the model's shape and dtype.
    pub(super) fn check_latents(&self, x: &Tensor) -> Result<usize> {
        let width = self.config.hidden_size;
        let [_, tokens, d] = x.dims() else {
            bail!("latents must have the shape (batch, tokens, {width}), got {:?}", x.dims());
        };
        ensure!(*d == width, "latents must have the shape (batch, tokens, {width}), got {:?}", x.dims());
        ensure!(x.elem_count() > 0, "there are no latents: the shape is {:?}", x.dims());
        let (theirs, ours) = (x.dtype().as_str(), self.dtype().as_str());
        ensure!(theirs == ours, "latents are {theirs}, but the model computes in {ours}");
        Ok(*tokens)
    }
}
