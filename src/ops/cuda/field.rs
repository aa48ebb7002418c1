//! One time-conditioned layer as a single operation with a hand-written backward.
//!
//! Composed of separate operations, every intermediate result would cost candle a gradient tensor that is cleared, added
//! to and read again; here the slopes go from kernel to kernel.

use std::sync::{Mutex, PoisonError};

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::activation::{activate_into, elementwise};
use super::attention::Shape;
use super::graph::record3;
use super::maps::Maps;
use super::memory::{Buffer, address, device, name};
use super::module::launch;
use super::reduce::{Chunks, write_column_sums};
use super::rotary::turn;
use crate::ops::{Activation, Rotary};

/// Rows of a block of the norms' kernels, one warp each.
const ROWS: usize = 4;

/// What every evaluation of a field shares.
#[derive(Clone)]
pub struct FieldSetting {
    pub rotary: Rotary,
    pub heads: usize,
    pub eps: f64,
}

/// How an evaluation is scaled and what it is added to.
#[derive(Clone)]
pub struct Sum {
    /// One factor (G) for each group of examples.
    pub length: Option<Tensor>,
    /// One factor for all.
    pub factor: f64,
    /// Whether x itself is added.
    pub on_x: bool,
}

/// `factor·length⊙u(x) [+ x]` with `u = α₁⊙Attn(mod₁(x)) + α₂⊙MLP(mod₂(x))`, `mod_i(x) = LN_i(x)⊙(1+γ_i) + β_i` and exact
/// GELU; the branches are computed in the dtype of the rounded maps.
///
/// # Shapes
/// `x` (B, T, D) f32; `projection` (G, 6·D) f32 with γ₁, β₁, γ₂, β₂, α₁, α₂ and G either B or 1; result (B, T, D) f32.
pub fn field(
    x: &Tensor,
    projection: &Tensor,
    maps: &Maps,
    sum: &Sum,
    setting: &FieldSetting,
) -> Result<Option<Tensor>> {
    let mut operands = vec![x, projection, &maps.flat, &maps.rounded];
    operands.extend(&sum.length);
    let (Some(device), Some(kind)) = (device(&operands), name(maps.rounded.dtype())) else {
        return Ok(None);
    };
    let (batch, tokens, width) = x.dims3()?;
    let aligned = |start: usize| start.is_multiple_of(8);
    let placed = maps.parts.iter().all(|part| aligned(part.weight) && part.bias.is_none_or(aligned));
    let single = [x, projection].into_iter().chain(&sum.length).all(|t| t.dtype() == DType::F32);
    let groups = projection.dim(0)?;
    let lengths = sum.length.as_ref().is_none_or(|length| length.elem_count() == groups);
    if !single || !lengths || width % 8 != 0 || !placed || address(x)? % 16 != 0 {
        return Ok(None);
    }
    let Some(shape) = Shape::of(&device, (batch, tokens, maps.parts[0].outputs), setting.heads, kind) else {
        return Ok(None);
    };
    let layer = Layer {
        maps: maps.clone(),
        setting: setting.clone(),
        shape,
        kind,
        rows: batch * tokens,
        width,
        groups,
        sum: sum.clone(),
    };
    let (u, saved) = layer.forward(&device, x, projection)?;
    let saved = Mutex::new(Some(saved));
    let recorded = record3([x, projection, &maps.flat], "field", u, move |[x, projection, _], _, grad| {
        // The first backward frees what the forward left behind as it goes; another one would make it anew.
        let saved = match saved.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(saved) => saved,
            None => layer.forward(x.device().as_cuda_device()?, x, projection)?.1,
        };
        layer.backward(x, projection, grad, &saved)
    });
    recorded.map(Some)
}

/// One evaluation.
struct Layer {
    maps: Maps,
    setting: FieldSetting,
    shape: Shape,
    kind: &'static str,
    rows: usize,
    width: usize,
    groups: usize,
    sum: Sum,
}

/// What the backward needs of the forward.
struct Saved {
    /// (G, 6, D): scales and shifts of the two norms, and the scaled gates.
    modulation: Tensor,
    /// The two norms' results (B·T, D).
    normal: [Tensor; 2],
    /// The packed projection, queries and keys turned.
    turned: Tensor,
    /// The attention's result in front of its output projection, and its rows' norms.
    mixed: Tensor,
    norm: Tensor,
    /// The two branches.
    branches: [Tensor; 2],
    /// The MLP's hidden values in front of the activation.
    hidden: Tensor,
}

impl Layer {
    fn dtype(&self) -> DType {
        self.maps.rounded.dtype()
    }

    fn buffer(&self, device: &CudaDevice, width: usize) -> Result<Tensor> {
        let (batch, tokens) = self.shape.sequences();
        Ok(Buffer::new(device, (batch, tokens, width), self.dtype())?.tensor())
    }

    fn group_rows(&self) -> i32 {
        (self.rows / self.groups) as i32
    }

    fn row_grid(&self) -> ((u32, u32, u32), (u32, u32, u32)) {
        ((self.rows.div_ceil(ROWS) as u32, 1, 1), (32 * ROWS as u32, 1, 1))
    }

    fn map(&self, device: &CudaDevice, i: usize, input: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.maps.weight(i)?, self.maps.bias(i)?);
        let y = self.buffer(device, self.maps.parts[i].outputs)?;
        self.maps.map(i, self.rows).write(device, input, &weight, bias.as_ref(), None, address(&y)?)?;
        Ok(y)
    }

    /// Addresses of the norms' weights and biases in a vector that is laid out as the flat one.
    fn norms(&self, flat: u64) -> [u64; 4] {
        self.maps.norms.map(|start| flat + 4 * start as u64)
    }

    fn lengths(&self) -> Result<u64> {
        self.sum.length.as_ref().map_or(Ok(0), address)
    }

    fn modulation(&self, device: &CudaDevice, projection: &Tensor) -> Result<Tensor> {
        let modulation = Buffer::new(device, (self.groups, 6, self.width), DType::F32)?;
        let [w1, b1, w2, b2] = self.norms(address(&self.maps.flat)?);
        let grid = (self.width.div_ceil(128) as u32, self.groups as u32, 1);
        launch!(
            device,
            FIELD,
            "field_modulation",
            grid,
            (128, 1, 1),
            0,
            address(projection)?,
            w1,
            b1,
            w2,
            b2,
            self.lengths()?,
            self.sum.factor as f32,
            modulation.address()?,
            self.width as i32
        );
        Ok(modulation.tensor())
    }

    fn forward(&self, device: &CudaDevice, x: &Tensor, projection: &Tensor) -> Result<(Buffer, Saved)> {
        let modulation = &self.modulation(device, projection)?;
        let normal = [self.buffer(device, self.width)?, self.buffer(device, self.width)?];
        let (grid, block) = self.row_grid();
        launch!(
            device,
            FIELD,
            format!("field_norms_{}", self.kind),
            grid,
            block,
            0,
            address(x)?,
            address(modulation)?,
            address(&normal[0])?,
            address(&normal[1])?,
            self.rows as i32,
            self.width as i32,
            self.group_rows(),
            self.setting.eps as f32
        );
        let turned = self.map(device, 0, &normal[0])?;
        turn(&turned, &self.setting.rotary, self.setting.heads, 1.0)?;
        let (mixed, norm) = self.shape.forward(&turned)?;
        let mixed = mixed.tensor();
        let attention = self.map(device, 1, &mixed)?;
        let hidden = self.map(device, 2, &normal[1])?;
        let active = self.buffer(device, self.maps.parts[2].outputs)?;
        activate_into(&hidden, address(&active)?, Activation::Gelu)?;
        let mlp = self.map(device, 3, &active)?;
        let u = Buffer::new(device, x.shape(), DType::F32)?;
        let (grid, block) = elementwise(x.elem_count(), 4);
        launch!(
            device,
            FIELD,
            format!("field_gates_{}", self.kind),
            grid,
            block,
            0,
            address(&attention)?,
            address(&mlp)?,
            address(modulation)?,
            if self.sum.on_x { address(x)? } else { 0 },
            u.address()?,
            x.elem_count() as i64,
            self.width as i32,
            self.group_rows()
        );
        Ok((
            u,
            Saved {
                modulation: modulation.clone(),
                normal,
                turned,
                mixed,
                norm,
                branches: [attention, mlp],
                hidden,
            },
        ))
    }

    fn backward(
        &self,
        x: &Tensor,
        projection: &Tensor,
        grad: &Tensor,
        saved: &Saved,
    ) -> Result<[Option<Tensor>; 3]> {
        let (device, modulation) = (x.device().as_cuda_device()?, &saved.modulation);
        let (d, rows) = (self.width, self.rows);
        let d_flat = Buffer::new(device, self.maps.flat.shape(), DType::F32)?;
        let place = |start: usize| d_flat.address().map(|at| at + 4 * start as u64);
        let d_modulation = Buffer::new(device, (self.groups, 6, d), DType::F32)?;
        let row = |i: usize| d_modulation.address().map(|at| at + 4 * (i * d) as u64);

        let (d_attention, d_mlp) = (self.buffer(device, d)?, self.buffer(device, d)?);
        let chunks = Chunks::new(rows, d, self.groups, 4);
        let partial = chunks.partial(device, 4 * d)?;
        launch!(
            device,
            FIELD,
            format!("field_gates_backward_{}", self.kind),
            chunks.grid(),
            Chunks::BLOCK,
            0,
            address(&saved.branches[0])?,
            address(&saved.branches[1])?,
            address(modulation)?,
            address(grad)?,
            address(&d_attention)?,
            address(&d_mlp)?,
            partial.address()?,
            d as i32,
            chunks.group_rows as i32,
            chunks.rows as i32,
            chunks.count as i32
        );
        chunks.fold_part(device, &partial, (0, 2 * d, 4 * d), row(4)?, 6 * d)?;
        for (i, first) in [(1, 2 * d), (3, 3 * d)] {
            if let Some(bias) = self.maps.parts[i].bias {
                chunks.fold_all(device, &partial, (first, d, 4 * d), place(bias)?)?;
            }
        }

        let d_second = self.mlp_backward(device, &d_mlp, saved, &place)?;
        let d_mixed = self.slope(device, 1, &saved.mixed, &d_attention, &place)?;
        let d_packed = self.shape.backward(&saved.turned, &saved.mixed, &d_mixed, &saved.norm)?;
        turn(&d_packed, &self.setting.rotary, self.setting.heads, -1.0)?;
        if let Some(bias) = self.maps.parts[0].bias {
            write_column_sums(&d_packed, self.maps.parts[0].outputs, place(bias)?)?;
        }
        let d_first = self.slope(device, 0, &saved.normal[0], &d_packed, &place)?;

        let (dx, statistics) =
            (Buffer::new(device, x.shape(), DType::F32)?, Buffer::new(device, 4 * rows, DType::F32)?);
        let (grid, block) = self.row_grid();
        launch!(
            device,
            FIELD,
            format!("field_norms_statistics_{}", self.kind),
            grid,
            block,
            0,
            address(x)?,
            address(modulation)?,
            address(&d_first)?,
            address(&d_second)?,
            statistics.address()?,
            rows as i32,
            d as i32,
            self.group_rows(),
            self.setting.eps as f32
        );
        launch!(
            device,
            FIELD,
            format!("field_norms_backward_{}", self.kind),
            chunks.grid(),
            Chunks::BLOCK,
            0,
            address(x)?,
            address(modulation)?,
            address(&d_first)?,
            address(&d_second)?,
            statistics.address()?,
            if self.sum.on_x { address(grad)? } else { 0 },
            dx.address()?,
            partial.address()?,
            d as i32,
            chunks.group_rows as i32,
            chunks.rows as i32,
            chunks.count as i32
        );
        chunks.fold_part(device, &partial, (0, 4 * d, 4 * d), row(0)?, 6 * d)?;
        let d_projection = Buffer::new(device, projection.shape(), DType::F32)?;
        let [w1, b1, w2, b2] = self.norms(address(&self.maps.flat)?);
        let [d_w1, d_b1, d_w2, d_b2] = self.norms(d_flat.address()?);
        launch!(
            device,
            FIELD,
            "field_modulation_backward",
            (d.div_ceil(32) as u32, 1, 1),
            (32, 8, 1),
            0,
            address(projection)?,
            w1,
            b1,
            w2,
            b2,
            self.lengths()?,
            self.sum.factor as f32,
            d_modulation.address()?,
            d_projection.address()?,
            d_w1,
            d_b1,
            d_w2,
            d_b2,
            d as i32,
            self.groups as i32
        );
        Ok([Some(dx.tensor()), Some(d_projection.tensor()), Some(d_flat.tensor())])
    }

    /// From the slope of the MLP branch to that of its normalised input.
    fn mlp_backward(
        &self,
        device: &CudaDevice,
        d_mlp: &Tensor,
        saved: &Saved,
        place: &impl Fn(usize) -> Result<u64>,
    ) -> Result<Tensor> {
        let inner = self.maps.parts[3].inputs;
        let d_active = self.maps.map(3, self.rows).input_gradient(device, &self.maps.weight(3)?, d_mlp)?;
        let active = self.buffer(device, inner)?;
        let chunks = Chunks::new(self.rows, inner, 1, 4);
        let partial = chunks.partial(device, inner)?;
        launch!(
            device,
            FIELD,
            format!("field_gelu_backward_{}", self.kind),
            chunks.grid(),
            Chunks::BLOCK,
            0,
            address(&saved.hidden)?,
            address(&d_active)?,
            address(&active)?,
            address(&d_active)?,
            partial.address()?,
            inner as i32,
            chunks.group_rows as i32,
            chunks.rows as i32,
            chunks.count as i32
        );
        if let Some(bias) = self.maps.parts[2].bias {
            chunks.fold_all(device, &partial, (0, inner, inner), place(bias)?)?;
        }
        self.maps.map(3, self.rows).write_weight_gradient(
            device,
            &active,
            d_mlp,
            DType::F32,
            place(self.maps.parts[3].weight)?,
        )?;
        self.slope(device, 2, &saved.normal[1], &d_active, place)
    }

    /// Writes the weight's gradient of map `i` and returns the slope of its input.
    fn slope(
        &self,
        device: &CudaDevice,
        i: usize,
        input: &Tensor,
        grad: &Tensor,
        place: &impl Fn(usize) -> Result<u64>,
    ) -> Result<Tensor> {
        let map = self.maps.map(i, self.rows);
        map.write_weight_gradient(device, input, grad, DType::F32, place(self.maps.parts[i].weight)?)?;
        map.input_gradient(device, &self.maps.weight(i)?, grad)
    }
}
