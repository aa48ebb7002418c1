//! Rotary causal attention over the packed projection.

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::graph::record1;
use super::memory::{Buffer, address, capability, device, name};
use super::module::launch;
use super::rotary::turn;
use crate::ops::Rotary;

/// Head sizes that kernels are compiled for; a smaller head is padded to the next.
const HEADS: [usize; 5] = [16, 32, 64, 96, 128];
/// Rows of a tile.
const TILE: usize = 64;
/// Rows that a block of the kernel for Hopper owns, and its shared memory: the queries, two tiles each of keys and
/// values, and what aligns them.
const HOPPER_ROWS: usize = 128;
const HOPPER_SHARED: u32 = (128 * HOPPER_ROWS + 4 * 128 * TILE + 1024) as u32;

/// See [`crate::ops::attention::causal`].
pub fn causal(qkv: &Tensor, rotary: &Rotary, heads: usize) -> Result<Option<Tensor>> {
    let (Some(device), Some(kind)) = (device(&[qkv, rotary.tables()[0]]), name(qkv.dtype())) else {
        return Ok(None);
    };
    let Some(shape) = Shape::of(&device, qkv.dims3()?, heads, kind) else { return Ok(None) };
    let turned = qkv.detach().copy()?;
    turn(&turned, rotary, heads, 1.0)?;
    let (out, norm) = shape.forward(&turned)?;
    let rotary = rotary.clone();
    record1([qkv], "causal_attention", out, move |_, out, grad| {
        let packed = shape.backward(&turned, out, grad, &norm)?;
        turn(&packed, &rotary, heads, -1.0)?;
        Ok([Some(packed)])
    })
    .map(Some)
}

/// The sizes of one attention, and the kernels that fit them.
pub(super) struct Shape {
    device: CudaDevice,
    batch: usize,
    tokens: usize,
    heads: usize,
    channels: usize,
    /// Channels that the kernels work with.
    padded: usize,
    kind: &'static str,
}

impl Shape {
    /// For a packed projection of those dimensions and that kind; `None` where heads are too large.
    pub fn of(
        device: &CudaDevice,
        (batch, tokens, width): (usize, usize, usize),
        heads: usize,
        kind: &'static str,
    ) -> Option<Self> {
        let channels = width / (3 * heads);
        let padded = HEADS.into_iter().find(|&size| size >= channels)?;
        Some(Self { device: device.clone(), batch, tokens, heads, channels, padded, kind })
    }

    /// Examples B and tokens T.
    pub fn sequences(&self) -> (usize, usize) {
        (self.batch, self.tokens)
    }

    /// Factor of the scores in base 2: log₂e / √C.
    fn scale(&self) -> f32 {
        std::f32::consts::LOG2_E / (self.channels as f32).sqrt()
    }

    fn bf16(&self) -> bool {
        self.kind == "bf16"
    }

    /// Whether the kernel with Hopper's matrix instructions fits.
    fn hopper(&self) -> bool {
        self.bf16() && self.channels == 64 && cfg!(lft_hopper) && capability(&self.device) == (9, 0)
    }

    /// Rows that a block owns.
    fn rows(&self) -> usize {
        if self.bf16() && self.padded <= 64 { 2 * TILE } else { TILE }
    }

    fn grid(&self) -> (u32, u32, u32) {
        (self.tokens.div_ceil(self.rows()) as u32, (self.batch * self.heads) as u32, 1)
    }

    fn block(&self) -> (u32, u32, u32) {
        (if self.bf16() { 128 } else { 256 }, 1, 1)
    }

    /// Bytes of shared memory for so many tiles of own rows and so many that stream by.
    fn shared(&self, own: usize, streaming: usize, weights: usize) -> u32 {
        let bytes = if self.bf16() {
            2 * (self.padded + 8) * (own * self.rows() + 2 * streaming * TILE) + weights * 4 * 2 * TILE
        } else {
            4 * ((self.padded + 1) * TILE * (own + streaming) + weights * TILE * (TILE + 1))
        };
        bytes as u32
    }

    /// Whether rows can be copied 16 bytes at a time.
    fn wide(&self, addresses: &[u64]) -> i32 {
        i32::from(self.channels.is_multiple_of(8) && addresses.iter().all(|a| a % 16 == 0))
    }

    /// Output (B, T, H·C) and the rows' norms (B, H, T).
    pub fn forward(&self, turned: &Tensor) -> Result<(Buffer, Tensor)> {
        let (device, kind, padded) = (&self.device, self.kind, self.padded);
        let out = Buffer::new(device, (self.batch, self.tokens, self.heads * self.channels), turned.dtype())?;
        let norm = Buffer::new(device, (self.batch, self.heads, self.tokens), DType::F32)?;
        let (grid, block) = (self.grid(), self.block());
        let arguments = (address(turned)?, out.address()?, norm.address()?);
        let (tokens, heads, channels) = (self.tokens as i32, self.heads as i32, self.channels as i32);
        let (scale, wide) = (self.scale(), self.wide(&[arguments.0]));
        if self.hopper() && wide == 1 {
            let grid = (self.tokens.div_ceil(HOPPER_ROWS) as u32, grid.1, 1);
            launch!(
                device,
                ATTENTION_HOPPER,
                "attention_hopper",
                grid,
                (256, 1, 1),
                HOPPER_SHARED,
                arguments.0,
                arguments.1,
                arguments.2,
                tokens,
                heads,
                channels,
                scale,
                wide
            );
        } else if self.bf16() {
            let shared = self.shared(1, 2, 0);
            launch!(
                device,
                ATTENTION,
                format!("attention_{kind}_{padded}"),
                grid,
                block,
                shared,
                arguments.0,
                arguments.1,
                arguments.2,
                tokens,
                heads,
                channels,
                scale,
                wide
            );
        } else {
            let shared = self.shared(1, 2, 1);
            launch!(
                device,
                ATTENTION_F32,
                format!("attention_{kind}_{padded}"),
                grid,
                block,
                shared,
                arguments.0,
                arguments.1,
                arguments.2,
                tokens,
                heads,
                channels,
                scale,
                wide
            );
        }
        Ok((out, norm.tensor()))
    }

    /// Gradient of the turned projection.
    pub fn backward(&self, turned: &Tensor, out: &Tensor, grad: &Tensor, norm: &Tensor) -> Result<Tensor> {
        let (device, kind, padded) = (&self.device, self.kind, self.padded);
        let packed = Buffer::new(device, turned.shape(), turned.dtype())?;
        let inner = Buffer::new(device, (self.batch, self.heads, self.tokens), DType::F32)?;
        let rows = self.batch * self.tokens * self.heads;
        let (tokens, heads, channels) = (self.tokens as i32, self.heads as i32, self.channels as i32);
        launch!(
            device,
            ATTENTION_INNER,
            format!("attention_inner_{kind}"),
            (rows.div_ceil(8) as u32, 1, 1),
            (256, 1, 1),
            0,
            address(grad)?,
            address(out)?,
            inner.address()?,
            rows as i64,
            tokens,
            heads,
            channels
        );
        let wide = self.wide(&[address(turned)?, address(grad)?]);
        let (scale, factor) = (self.scale(), 1.0 / (self.channels as f32).sqrt());
        for (side, weights) in [("keys", 2), ("queries", 1)] {
            let (grid, block, shared) = (self.grid(), self.block(), self.shared(2, 2, weights));
            let name = format!("attention_{side}_{kind}_{padded}");
            let [qkv, grad, norm, inner] =
                [address(turned)?, address(grad)?, address(norm)?, inner.address()?];
            let d = packed.address()?;
            if self.bf16() {
                launch!(
                    device, ATTENTION, name, grid, block, shared, qkv, grad, norm, inner, d, tokens, heads,
                    channels, scale, factor, wide
                );
            } else {
                launch!(
                    device,
                    ATTENTION_F32,
                    name,
                    grid,
                    block,
                    shared,
                    qkv,
                    grad,
                    norm,
                    inner,
                    d,
                    tokens,
                    heads,
                    channels,
                    scale,
                    factor,
                    wide
                );
            }
        }
        Ok(packed.tensor())
    }
}
