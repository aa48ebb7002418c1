//! Layer norm, plain and modulated.

use candle_core::{DType, Result, Tensor, bail};

use super::graph::record3;
use super::memory::{Buffer, address, device, name, sixteen_bytes, vector};
use super::module::launch;
use super::reduce::Chunks;

/// Rows of a block, one warp each.
const ROWS: usize = 4;

/// The kernel's name for the dtypes of x, of scale and shift, and of the result.
fn kind(x: DType, parameters: DType, out: DType) -> Option<&'static str> {
    match (x, parameters, out) {
        (DType::F32, DType::F32, DType::F32) => Some("f32"),
        (DType::BF16, DType::BF16, DType::BF16) => Some("bf16"),
        (DType::F32, DType::F32, DType::BF16) => Some("mixed"),
        _ => None,
    }
}

/// See [`crate::ops::layer_norm`]; the result is of dtype `out`.
pub fn layer_norm(
    x: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    eps: f64,
    out: DType,
) -> Result<Option<Tensor>> {
    let Some(device) = device(&[x, scale, shift]) else { return Ok(None) };
    let Some(kind) = kind(x.dtype(), scale.dtype(), out).filter(|_| scale.dtype() == shift.dtype()) else {
        return Ok(None);
    };
    let size = Size::new(x, scale)?;
    let y = Buffer::new(&device, x.shape(), out)?;
    let addresses = [address(x)?, address(scale)?, address(shift)?, y.address()?];
    let v = vector(size.width, &addresses);
    let [x_at, scale_at, shift_at, y_at] = addresses;
    launch!(
        device,
        LAYER_NORM,
        format!("layer_norm_{kind}_v{v}"),
        size.grid(),
        (32 * ROWS as u32, 1, 1),
        0,
        x_at,
        scale_at,
        shift_at,
        y_at,
        size.rows as i32,
        size.width as i32,
        size.group_rows() as i32,
        eps as f32
    );
    record3([x, scale, shift], "layer_norm", y, move |[x, scale, shift], _, grad| {
        backward(x, scale, shift, grad, eps, kind)
    })
    .map(Some)
}

/// Two norms of one input x (B, T, D) with weights of its dtype, without history.
pub(super) fn pair(x: &Tensor, weights: &[(Tensor, Tensor); 2], eps: f64) -> Result<[Tensor; 2]> {
    let [(scale1, shift1), (scale2, shift2)] = weights;
    let (Some(device), Some(kind)) = (device(&[x, scale1, shift1, scale2, shift2]), name(x.dtype())) else {
        bail!("two layer norms at once need contiguous f32 or bf16 tensors on a CUDA card");
    };
    let size = Size::new(x, scale1)?;
    let y = [Buffer::new(&device, x.shape(), x.dtype())?, Buffer::new(&device, x.shape(), x.dtype())?];
    let [first, second] = [y[0].address()?, y[1].address()?];
    let [scale1, shift1, scale2, shift2] =
        [address(scale1)?, address(shift1)?, address(scale2)?, address(shift2)?];
    let v =
        sixteen_bytes(x.dtype(), size.width, &[address(x)?, scale1, shift1, scale2, shift2, first, second]);
    launch!(
        device,
        LAYER_NORM,
        format!("layer_norm_pair_{kind}_v{v}"),
        size.grid(),
        (32 * ROWS as u32, 1, 1),
        0,
        address(x)?,
        scale1,
        shift1,
        scale2,
        shift2,
        first,
        second,
        size.rows as i32,
        size.width as i32,
        eps as f32
    );
    Ok(y.map(Buffer::tensor))
}

/// The slopes of a pair of norms.
pub(super) struct PairBackward<'a> {
    /// Their input (B, T, D).
    pub x: &'a Tensor,
    /// Their scales (D).
    pub scales: [&'a Tensor; 2],
    /// The slopes of their results, of as many elements as x.
    pub slopes: [&'a Tensor; 2],
    pub eps: f64,
}

impl PairBackward<'_> {
    /// The slope of x, on top of `base`, which is laid out as x.
    pub fn input(&self, base: &Tensor) -> Result<Tensor> {
        self.run(base, 0)
    }

    /// The same, and the slopes of scale₁, shift₁, scale₂ and shift₂: (4, D), f32.
    pub fn input_and_weights(&self, base: &Tensor) -> Result<(Tensor, Tensor)> {
        let size = Size::new(self.x, self.scales[0])?;
        let device = self.x.device().as_cuda_device()?;
        let moments = Buffer::new(device, (size.rows, 2), DType::F32)?;
        let dx = self.run(base, moments.address()?)?;
        let [x, g1, g2] = [address(self.x)?, address(self.slopes[0])?, address(self.slopes[1])?];
        let v = sixteen_bytes(self.x.dtype(), size.width, &[x, g1, g2]);
        let chunks = Chunks::new(size.rows, size.width, 1, v);
        let partial = chunks.partial(device, 4 * size.width)?;
        launch!(
            device,
            LAYER_NORM,
            format!("layer_norm_pair_sums_{}_v{v}", self.kind()?),
            chunks.grid(),
            Chunks::BLOCK,
            0,
            x,
            g1,
            g2,
            moments.address()?,
            partial.address()?,
            size.width as i32,
            chunks.group_rows as i32,
            chunks.rows as i32,
            chunks.count as i32
        );
        let sums = chunks.fold(device, &partial, 4 * size.width, (4, size.width), DType::F32)?;
        Ok((dx, sums))
    }

    fn kind(&self) -> Result<&'static str> {
        match name(self.x.dtype()) {
            Some(kind) => Ok(kind),
            None => bail!("no kernel for layer norms of {:?}", self.x.dtype()),
        }
    }

    /// `moments` is an address for two f32 a row, or 0.
    fn run(&self, base: &Tensor, moments: u64) -> Result<Tensor> {
        let Self { x, scales, slopes, eps } = self;
        let (device, size) = (x.device().as_cuda_device()?, Size::new(x, scales[0])?);
        let dx = Buffer::new(device, x.shape(), x.dtype())?;
        let [x, first, second, g1, g2, base] = [
            address(x)?,
            address(scales[0])?,
            address(scales[1])?,
            address(slopes[0])?,
            address(slopes[1])?,
            address(base)?,
        ];
        let v = sixteen_bytes(self.x.dtype(), size.width, &[x, first, second, g1, g2, base, dx.address()?]);
        launch!(
            device,
            LAYER_NORM,
            format!("layer_norm_pair_backward_{}_v{v}", self.kind()?),
            size.grid(),
            (32 * ROWS as u32, 1, 1),
            0,
            x,
            first,
            second,
            g1,
            g2,
            base,
            dx.address()?,
            moments,
            size.rows as i32,
            size.width as i32,
            *eps as f32
        );
        Ok(dx.tensor())
    }
}

fn backward(
    x: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    grad: &Tensor,
    eps: f64,
    kind: &str,
) -> Result<[Option<Tensor>; 3]> {
    let device = x.device().as_cuda_device()?;
    let size = Size::new(x, scale)?;
    let (dx, statistics) =
        (Buffer::new(device, x.shape(), x.dtype())?, Buffer::new(device, 4 * size.rows, DType::F32)?);
    let addresses = [address(x)?, address(scale)?, address(grad)?, dx.address()?];
    let v = vector(size.width, &addresses);
    let [x_at, scale_at, grad_at, dx_at] = addresses;
    launch!(
        device,
        LAYER_NORM,
        format!("layer_norm_statistics_{kind}_v{v}"),
        size.grid(),
        (32 * ROWS as u32, 1, 1),
        0,
        x_at,
        scale_at,
        grad_at,
        statistics.address()?,
        size.rows as i32,
        size.width as i32,
        size.group_rows() as i32,
        eps as f32
    );
    let chunks = Chunks::new(size.rows, size.width, size.groups, v);
    let partial = chunks.partial(device, 2 * size.width)?;
    launch!(
        device,
        LAYER_NORM,
        format!("layer_norm_backward_{kind}_v{v}"),
        chunks.grid(),
        Chunks::BLOCK,
        0,
        x_at,
        scale_at,
        grad_at,
        statistics.address()?,
        dx_at,
        partial.address()?,
        size.width as i32,
        chunks.group_rows as i32,
        chunks.rows as i32,
        chunks.count as i32
    );
    if !scale.track_op() && !shift.track_op() {
        return Ok([Some(dx.tensor()), None, None]);
    }
    let sums = chunks.fold(device, &partial, 2 * size.width, (size.groups, 2, size.width), scale.dtype())?;
    let part = |i: usize| sums.narrow(1, i, 1)?.reshape(scale.shape());
    Ok([Some(dx.tensor()), Some(part(0)?), Some(part(1)?)])
}

struct Size {
    rows: usize,
    width: usize,
    groups: usize,
}

impl Size {
    fn new(x: &Tensor, scale: &Tensor) -> Result<Self> {
        let (batch, tokens, width) = x.dims3()?;
        Ok(Self { rows: batch * tokens, width, groups: scale.elem_count() / width })
    }

    fn group_rows(&self) -> usize {
        self.rows / self.groups
    }

    fn grid(&self) -> (u32, u32, u32) {
        (self.rows.div_ceil(ROWS) as u32, 1, 1)
    }
}
