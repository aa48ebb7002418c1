//! Attention with the matrix instructions and the copy engine of Hopper cards, for heads of 64 channels in bf16.
//!
//! The sizes here are those of the kernels in attention_hopper.cu and attention_hopper_backward.cu.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion,
    CUtensorMapSwizzle, cuTensorMapEncodeTiled,
};

use super::attention::{Given, Shape};
use super::module::launch;

/// Rows and channels of a tile, and its bytes.
const TILE: usize = 64;
const TILE_BYTES: usize = TILE * TILE * 2;

/// How a kernel divides its work.
struct Plan {
    /// Warpgroups that multiply, each with 64 rows of its own; one more fetches.
    groups: usize,
    /// Tiles that each of them keeps.
    own: usize,
    /// Steps under way at once, and the bytes of each.
    stages: usize,
    stage_bytes: usize,
}

const FORWARD: Plan = Plan { groups: 3, own: 1, stages: 4, stage_bytes: 2 * TILE_BYTES };
const QUERIES: Plan = Plan { groups: 3, own: 3, stages: 4, stage_bytes: 2 * TILE_BYTES };
const KEYS: Plan = Plan { groups: 2, own: 2, stages: 4, stage_bytes: 2 * TILE_BYTES + 2 * 4 * TILE };

impl Plan {
    fn grid(&self, shape: &Shape) -> (u32, u32, u32) {
        let blocks = shape.tokens.div_ceil(self.groups * TILE);
        ((blocks * shape.batch * shape.heads) as u32, 1, 1)
    }

    fn block(&self) -> (u32, u32, u32) {
        (128 * (self.groups as u32 + 1), 1, 1)
    }

    /// Bytes of shared memory: what aligns the tiles, the tiles, and two barriers a stage and one more.
    fn shared(&self) -> u32 {
        let barriers = 8 * (1 + 2 * self.stages);
        (1024 + self.groups * self.own * TILE_BYTES + self.stages * self.stage_bytes + barriers) as u32
    }
}

/// Writes the result and the rows' norms of the projection at `qkv`.
pub(super) fn forward(shape: &Shape, qkv: u64, out: u64, norm: u64) -> Result<()> {
    let device = &shape.device;
    launch!(
        device,
        ATTENTION_HOPPER,
        "attention_hopper",
        FORWARD.grid(shape),
        FORWARD.block(),
        FORWARD.shared(),
        Tiles::of(shape, qkv, 3)?,
        out,
        norm,
        shape.tokens as i32,
        shape.heads as i32,
        shape.scale()
    );
    Ok(())
}

/// Writes the gradient of the projection: that of the queries first, whose kernel leaves the rows' inner products behind.
pub(super) fn backward(shape: &Shape, given: &Given) -> Result<()> {
    let device = &shape.device;
    let (qkv, grad) = (Tiles::of(shape, given.qkv, 3)?, Tiles::of(shape, given.grad, 1)?);
    launch!(
        device,
        ATTENTION_HOPPER_BACKWARD,
        "attention_hopper_queries",
        QUERIES.grid(shape),
        QUERIES.block(),
        QUERIES.shared(),
        qkv,
        grad,
        Tiles::of(shape, given.out, 1)?,
        given.norm,
        given.inner,
        given.packed,
        shape.tokens as i32,
        shape.heads as i32,
        shape.scale(),
        shape.factor()
    );
    launch!(
        device,
        ATTENTION_HOPPER_BACKWARD,
        "attention_hopper_keys",
        KEYS.grid(shape),
        KEYS.block(),
        KEYS.shared(),
        qkv,
        grad,
        given.norm,
        given.inner,
        given.packed,
        shape.tokens as i32,
        shape.heads as i32,
        shape.scale(),
        shape.factor()
    );
    Ok(())
}

/// Where the copy engine finds tiles of 64 rows in a tensor (B, T, H·parts, 64) of bf16.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Tiles(CUtensorMap);

// SAFETY: kernels take the description by value, in its own layout.
unsafe impl DeviceRepr for Tiles {}

impl Tiles {
    fn of(shape: &Shape, address: u64, parts: usize) -> Result<Self> {
        let planes = (parts * shape.heads) as u64;
        let (row, tokens) = (planes * 2 * TILE as u64, shape.tokens as u64);
        let sizes = [TILE as u64, tokens, planes, shape.batch as u64];
        let strides = [row, 2 * TILE as u64, row * tokens];
        let (tile, steps) = ([TILE as u32, TILE as u32, 1, 1], [1u32; 4]);
        let mut map = MaybeUninit::uninit();
        // SAFETY: the arrays have as many elements as the rank says (one less for the strides) and are read during the
        // call; the description is written where the call succeeds, and only read then.
        unsafe {
            cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                4,
                address as *mut c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                steps.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
            .result()
            .w()?;
            Ok(Self(map.assume_init()))
        }
    }
}
