//! Embedding lookups and their gradient.

use candle_core::{DType, Device, Result, Tensor, bail};

/// One-hot elements held at a time on an accelerator.
const ONE_HOT: usize = 1 << 28;

/// The rows `W[ids]`.
///
/// # Shapes
/// `weight` (V, D); `ids` (N) of u32 below V, beside it; result (N, D).
pub fn embedding(weight: &Tensor, ids: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(rows) = super::cuda::embedding(weight, ids)? {
        return Ok(rows);
    }
    weight.index_select(ids, 0)
}

/// `dW[v] = Σ grad[i]` over the positions i whose id is v: the gradient of `W[ids]`, always in f32.
///
/// On an accelerator without a kernel for it, it is the product of a one-hot matrix, some rows at a time, and the gradient:
/// candle's own scatter walks the ids one after the other there. The order of the sum is fixed everywhere.
///
/// # Shapes
/// `ids` (N) of u32 below `vocabulary` on the CPU, `grad` (N, D) on any device, result (V, D) beside it.
pub fn embedding_gradient(ids: &Tensor, grad: &Tensor, vocabulary: usize) -> Result<Tensor> {
    let (rows, width) = grad.dims2()?;
    if ids.dims() != [rows] {
        bail!("embedding_gradient: {rows} gradients for ids of shape {:?}", ids.dims());
    }
    let (ids, grad) = (ids.contiguous()?, grad.contiguous()?);
    match grad.device() {
        Device::Cpu => {
            let zeros = Tensor::zeros((vocabulary, width), DType::F32, grad.device())?;
            zeros.index_add(&ids, &grad.to_dtype(DType::F32)?, 0)
        }
        device => {
            #[cfg(feature = "cuda")]
            if let Some(sum) = super::cuda::embedding_gradient(&ids.to_vec1::<u32>()?, &grad, vocabulary)? {
                return Ok(sum);
            }
            by_product(&ids.to_device(device)?, &grad, vocabulary, (ONE_HOT / vocabulary).max(1))
        }
    }
}

fn by_product(ids: &Tensor, grad: &Tensor, vocabulary: usize, block: usize) -> Result<Tensor> {
    let (rows, width) = grad.dims2()?;
    let known = Tensor::arange(0u32, vocabulary as u32, grad.device())?.unsqueeze(1)?;
    let mut sum = Tensor::zeros((vocabulary, width), DType::F32, grad.device())?;
    for first in (0..rows).step_by(block) {
        let count = block.min(rows - first);
        let hot = known.broadcast_eq(&ids.narrow(0, first, count)?.unsqueeze(0)?)?;
        let part = hot.to_dtype(grad.dtype())?.matmul(&grad.narrow(0, first, count)?)?;
        sum = (sum + part.to_dtype(DType::F32)?)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, random};

    #[test]
    fn both_ways_agree_with_candles_backward() -> Result<()> {
        let weight = candle_core::Var::from_tensor(&random(&[11, 5], 1)?)?;
        let ids = Tensor::new(&[3u32, 0, 3, 10, 7, 3, 0], &Device::Cpu)?;
        let grad = random(&[7, 5], 2)?;
        let store = (weight.index_select(&ids, 0)? * &grad)?.sum_all()?.backward()?;
        let Some(expected) = store.get(&weight) else { panic!("no gradient") };
        agrees(&embedding_gradient(&ids, &grad, 11)?, expected, 1e-6)?;
        agrees(&by_product(&ids, &grad, 11, 3)?, expected, 1e-6)
    }

    #[test]
    fn ids_and_gradients_must_pair() -> Result<()> {
        let ids = Tensor::new(&[1u32], &Device::Cpu)?;
        let error = embedding_gradient(&ids, &random(&[2, 3], 1)?, 4).unwrap_err().to_string();
        assert!(error.contains("2 gradients"), "{error}");
        Ok(())
    }
}
