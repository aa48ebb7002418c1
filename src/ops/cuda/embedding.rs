//! Embedding lookups and their gradient.

use candle_core::{DType, Result, Tensor};

use super::activation::elementwise;
use super::memory::{Buffer, address, device, name, sixteen_bytes};
use super::module::launch;

/// Threads of a block, each with one column.
const COLUMNS: usize = 128;

/// See [`crate::ops::embedding`]; for a weight without history.
pub fn embedding(weight: &Tensor, ids: &Tensor) -> Result<Option<Tensor>> {
    let (Some(device), Some(kind)) = (device(&[weight, ids]), name(weight.dtype())) else { return Ok(None) };
    if weight.track_op() || ids.dtype() != DType::U32 {
        return Ok(None);
    }
    let (width, count) = (weight.dim(1)?, ids.dims1()?);
    let y = Buffer::new(&device, (count, width), weight.dtype())?;
    let v = sixteen_bytes(weight.dtype(), width, &[address(weight)?, y.address()?]);
    let (grid, block) = elementwise(count * width, v);
    launch!(
        device,
        EMBEDDING,
        format!("embedding_{kind}_v{v}"),
        grid,
        block,
        0,
        address(weight)?,
        address(ids)?,
        y.address()?,
        (count * width) as i64,
        width as i32
    );
    Ok(Some(y.tensor()))
}

/// See [`crate::ops::embedding_gradient`]; the ids are those of the CPU, where their positions are sorted, so that a block
/// adds up the gradients of one id in the order of its positions.
pub fn embedding_gradient(ids: &[u32], grad: &Tensor, vocabulary: usize) -> Result<Option<Tensor>> {
    let (Some(card), Some(kind)) = (device(&[grad]), name(grad.dtype())) else { return Ok(None) };
    let width = grad.dim(1)?;
    let out = Tensor::zeros((vocabulary, width), DType::F32, grad.device())?;
    if ids.is_empty() {
        return Ok(Some(out));
    }
    let Positions { order, starts, distinct } = Positions::of(ids, vocabulary);
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

/// Positions in the order of their ids.
struct Positions {
    /// All positions, those of one id side by side and in their order.
    order: Vec<u32>,
    /// Where those of each id that occurs begin, and where the last ones end.
    starts: Vec<u32>,
    /// The ids that occur.
    distinct: Vec<u32>,
}

impl Positions {
    /// By counting, since there are few ids and many positions.
    fn of(ids: &[u32], vocabulary: usize) -> Self {
        let mut counts = vec![0u32; vocabulary];
        for &id in ids {
            counts[id as usize] += 1;
        }
        let (mut starts, mut distinct, mut place, mut total) = (Vec::new(), Vec::new(), counts, 0);
        for (id, place) in place.iter_mut().enumerate() {
            let count = std::mem::replace(place, total);
            if count > 0 {
                starts.push(total);
                distinct.push(id as u32);
            }
            total += count;
        }
        starts.push(total);
        let mut order = vec![0; ids.len()];
        for (position, &id) in ids.iter().enumerate() {
            order[place[id as usize] as usize] = position as u32;
            place[id as usize] += 1;
        }
        Self { order, starts, distinct }
    }
}
