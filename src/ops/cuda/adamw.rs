//! One AdamW update of many tensors.

use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Result, Tensor, Var};

use super::memory::{Buffer, address, device};
use super::module::launch;
use crate::ops::adamw::Update;

/// Tensors of one launch, as in adamw.cu.
const TENSORS: usize = 48;
/// Blocks of a launch: a few for each multiprocessor of a large card.
const BLOCKS: usize = 528;
const BLOCK: (u32, u32, u32) = (512, 1, 1);

/// Addresses and lengths of a launch's tensors, laid out as in adamw.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Table {
    parameters: [u64; TENSORS],
    gradients: [u64; TENSORS],
    first: [u64; TENSORS],
    second: [u64; TENSORS],
    lengths: [i64; TENSORS],
    count: i32,
}

// SAFETY: plain numbers in the kernel's layout.
unsafe impl DeviceRepr for Table {}

/// One parameter with its gradient and moments.
pub struct ClippedSlot<'a> {
    pub parameter: &'a Var,
    pub gradient: Tensor,
    pub first: &'a Var,
    pub second: &'a Var,
}

/// Updates all parameters as [`crate::ops::adamw::adamw`] does, gradients scaled down to the global norm `clip` on the
/// device. `others` is the squared norm of further gradients, which are updated elsewhere and clipped with these.
/// Returns the norm of all (1) before clipping, without waiting for it; where it is not finite, nothing is updated.
pub fn clipped_adamw(
    slots: &[ClippedSlot<'_>],
    update: &Update,
    others: f64,
    clip: f64,
) -> Result<Option<Tensor>> {
    let tensors: Vec<&Tensor> = slots
        .iter()
        .flat_map(|s| [s.parameter.as_tensor(), &s.gradient, s.first.as_tensor(), s.second.as_tensor()])
        .collect();
    let Some(device) = device(&tensors) else { return Ok(None) };
    if tensors.iter().any(|t| t.dtype() != DType::F32) {
        return Ok(None);
    }
    let tables: Vec<Table> = slots.chunks(TENSORS).map(table).collect::<Result<_>>()?;
    let grid = (BLOCKS as u32, 1, 1);
    let partial = Buffer::new(&device, tables.len() * BLOCKS, DType::F32)?;
    for (i, table) in tables.iter().enumerate() {
        launch!(
            device,
            ADAMW,
            "adamw_squares",
            grid,
            BLOCK,
            0,
            *table,
            partial.address()? + (4 * i * BLOCKS) as u64
        );
    }
    let state = Buffer::new(&device, 2, DType::F32)?;
    launch!(
        device,
        ADAMW,
        "adamw_norm",
        (1, 1, 1),
        (256, 1, 1),
        0,
        partial.address()?,
        state.address()?,
        (tables.len() * BLOCKS) as i32,
        others as f32,
        clip as f32
    );
    let (c1, c2) = update.corrections();
    let (keep, rate) = ((1.0 - update.lr * update.weight_decay) as f32, (update.lr / c1) as f32);
    for table in tables {
        launch!(
            device,
            ADAMW,
            "adamw_step",
            grid,
            BLOCK,
            0,
            table,
            state.address()?,
            update.beta1 as f32,
            update.beta2 as f32,
            keep,
            rate,
            (1.0 / c2) as f32,
            update.eps as f32
        );
    }
    state.tensor().narrow(0, 0, 1).map(Some)
}

fn table(slots: &[ClippedSlot<'_>]) -> Result<Table> {
    let mut table = Table {
        parameters: [0; TENSORS],
        gradients: [0; TENSORS],
        first: [0; TENSORS],
        second: [0; TENSORS],
        lengths: [0; TENSORS],
        count: slots.len() as i32,
    };
    for (i, slot) in slots.iter().enumerate() {
        table.parameters[i] = address(slot.parameter)?;
        table.gradients[i] = address(&slot.gradient)?;
        table.first[i] = address(slot.first)?;
        table.second[i] = address(slot.second)?;
        table.lengths[i] = slot.parameter.elem_count() as i64;
    }
    Ok(table)
}
