//! The gradient of an embedding lookup.

use candle_core::{DType, Result, Tensor};

use super::memory::{address, device, name};
use super::module::launch;

/// Threads of a block, each with one column.
const COLUMNS: usize = 128;

/// See [`crate::ops::embedding_gradient`]; the ids are those of the CPU, where their positions are sorted, so that a block
/// adds up the gradients of one id in the order of its positions.
pub fn embedding_gradient(ids: &[u32], grad: &Tensor, vocabulary: usize) -> Result<Option<Tensor>> {
    let (Some(card), Some(kind)) = (device(&[grad]), name(grad.dtype())) else { return Ok(None) };
    let width = grad.dim(1)?;
    let out = Tensor::zeros((vocabulary, width), DType::F32, grad.device())?;
    if ids.is_empty() {
        return Ok(Some(out));
    }
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&position| ids[position as usize]);
    let (mut starts, mut distinct) = (Vec::new(), Vec::new());
    for (i, &position) in order.iter().enumerate() {
        let id = ids[position as usize];
        if distinct.last() != Some(&id) {
            starts.push(i as u32);
            distinct.push(id);
        }
    }
    starts.push(ids.len() as u32);
    let blocks = distinct.len() as u32;
    let upload = |values: Vec<u32>| Tensor::from_slice(&values, values.len(), grad.device());
    let (order, starts, distinct) = (upload(order)?, upload(starts)?, upload(distinct)?);
    launch!(
        card,
        EMBEDDING,
        format!("embedding_gradient_{kind}"),
        (blocks, width.div_ceil(COLUMNS) as u32, 1),
        (COLUMNS as u32, 1, 1),
        0,
        address(grad)?,
        address(&order)?,
        address(&starts)?,
        address(&distinct)?,
        address(&out)?,
        width as i32
    );
    Ok(Some(out))
}
