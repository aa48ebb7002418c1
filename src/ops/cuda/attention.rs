//! Rotary causal attention over the packed projection.

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::graph::record1;
use super::hopper;
use super::memory::{Buffer, address, capability, device, name};
use super::module::{ATTENTION, ATTENTION_F32, Source, launch, launch_from};
use super::rotary::turn;
use crate::ops::Rotary;

/// Head sizes that kernels are compiled for; a smaller head is padded to the next.
const HEADS: [usize; 5] = [16, 32, 64, 96, 128];
/// Rows of a tile.
const TILE: usize = 64;

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
    pub device: CudaDevice,
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
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

    /// Factor of the slopes: 1 / √C.
    pub fn factor(&self) -> f32 {
        1.0 / (self.channels as f32).sqrt()
    }

    /// Factor of the scores in base 2: log₂e / √C.
    pub fn scale(&self) -> f32 {
        std::f32::consts::LOG2_E * self.factor()
    }

    fn bf16(&self) -> bool {
        self.kind == "bf16"
    }

    /// Whether the kernels with Hopper's matrix instructions fit.
    fn hopper(&self, addresses: &[u64]) -> bool {
        let fits = self.bf16() && self.channels == 64 && self.wide(addresses) == 1;
        fits && cfg!(lft_hopper) && capability(&self.device) == (9, 0)
    }

    /// Where the other kernels are.
    fn source(&self) -> Source {
        if self.bf16() { ATTENTION } else { ATTENTION_F32 }
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
        let device = &self.device;
        let out = Buffer::new(device, (self.batch, self.tokens, self.heads * self.channels), turned.dtype())?;
        let norm = Buffer::new(device, (self.batch, self.heads, self.tokens), DType::F32)?;
        let qkv = address(turned)?;
        if self.hopper(&[qkv]) {
            hopper::forward(self, qkv, out.address()?, norm.address()?)?;
        } else {
            launch_from!(
                device,
                self.source(),
                format!("attention_{}_{}", self.kind, self.padded),
                self.grid(),
                self.block(),
                self.shared(1, 2, if self.bf16() { 0 } else { 1 }),
                qkv,
                out.address()?,
                norm.address()?,
                self.tokens as i32,
                self.heads as i32,
                self.channels as i32,
                self.scale(),
                self.wide(&[qkv])
            );
        }
        Ok((out, norm.tensor()))
    }

    /// Gradient of the turned projection.
    pub fn backward(&self, turned: &Tensor, out: &Tensor, grad: &Tensor, norm: &Tensor) -> Result<Tensor> {
        let packed = Buffer::new(&self.device, turned.shape(), turned.dtype())?;
        let inner = Buffer::new(&self.device, (self.batch, self.heads, self.tokens), DType::F32)?;
        let given = Given {
            qkv: address(turned)?,
            out: address(out)?,
            grad: address(grad)?,
            norm: address(norm)?,
            inner: inner.address()?,
            packed: packed.address()?,
        };
        if self.hopper(&[given.qkv, given.out, given.grad]) {
            hopper::backward(self, &given)?;
        } else {
            self.inner(&given)?;
            self.side("keys", 2, &given)?;
            self.side("queries", 1, &given)?;
        }
        Ok(packed.tensor())
    }

    /// Writes Σ grad⊙out of every row.
    fn inner(&self, given: &Given) -> Result<()> {
        let (device, rows) = (&self.device, self.batch * self.tokens * self.heads);
        launch!(
            device,
            ATTENTION_INNER,
            format!("attention_inner_{}", self.kind),
            (rows.div_ceil(8) as u32, 1, 1),
            (256, 1, 1),
            0,
            given.grad,
            given.out,
            given.inner,
            rows as i64,
            self.tokens as i32,
            self.heads as i32,
            self.channels as i32
        );
        Ok(())
    }

    /// Writes the gradients of the queries, or of the keys and values, with so many tiles of weights in shared memory.
    fn side(&self, side: &str, weights: usize, given: &Given) -> Result<()> {
        let device = &self.device;
        launch_from!(
            device,
            self.source(),
            format!("attention_{side}_{}_{}", self.kind, self.padded),
            self.grid(),
            self.block(),
            self.shared(2, 2, weights),
            given.qkv,
            given.grad,
            given.norm,
            given.inner,
            given.packed,
            self.tokens as i32,
            self.heads as i32,
            self.channels as i32,
            self.scale(),
            self.factor(),
            self.wide(&[given.qkv, given.grad])
        );
        Ok(())
    }
}

/// Addresses that a backward reads and writes.
pub(super) struct Given {
    pub qkv: u64,
    pub out: u64,
    pub grad: u64,
    pub norm: u64,
    /// (B, H, T), written on the way.
    pub inner: u64,
    pub packed: u64,
}
