//! One time-conditioned layer as a single operation with a hand-written backward.
//!
//! Composed of separate operations, every intermediate result would cost candle a gradient tensor that is cleared, added
//! to and read again; here the slopes go from kernel to kernel.

use std::sync::{Mutex, PoisonError};

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::activation::{activate_into, elementwise};
use super::attention::Shape;
use super::graph::record3;
use super::linear::Map;
use super::memory::{Buffer, address, device, name};
use super::module::launch;
use super::reduce::{Chunks, write_column_sums};
use super::rotary::turn;
use crate::ops::{Activation, Rotary};

/// Rows of a block of the norms' kernels, one warp each.
const ROWS: usize = 4;

/// The layer's affine maps in one f32 vector: of the packed projection, the attention's output and the MLP's two maps,
/// each weight (O, I) followed by its bias (O) where there is one.
#[derive(Clone)]
pub struct Maps {
    /// What gradients go to.
    pub flat: Tensor,
    /// The same rounded to what the branches are computed in.
    pub rounded: Tensor,
    parts: [Part; 4],
}

#[derive(Clone, Copy)]
struct Part {
    outputs: usize,
    inputs: usize,
    weight: usize,
    bias: Option<usize>,
}

impl Maps {
    /// Gathers the maps of a layer.
    pub fn new(maps: [(&Tensor, Option<&Tensor>); 4], compute: DType) -> Result<Self> {
        let (mut pieces, mut length) = (Vec::new(), 0);
        let mut place = |tensor: &Tensor| {
            pieces.push(tensor.flatten_all()?);
            length += tensor.elem_count();
            candle_core::Result::Ok(length - tensor.elem_count())
        };
        let mut parts = [Part { outputs: 0, inputs: 0, weight: 0, bias: None }; 4];
        for (part, (weight, bias)) in parts.iter_mut().zip(maps) {
            let (outputs, inputs) = weight.dims2()?;
            *part = Part { outputs, inputs, weight: place(weight)?, bias: bias.map(&mut place).transpose()? };
        }
        let flat = Tensor::cat(&pieces, 0)?;
        let rounded = flat.detach().to_dtype(compute)?;
        Ok(Self { flat, rounded, parts })
    }

    fn weight(&self, i: usize) -> Result<Tensor> {
        let part = self.parts[i];
        self.rounded.narrow(0, part.weight, part.outputs * part.inputs)?.reshape((part.outputs, part.inputs))
    }

    fn bias(&self, i: usize) -> Result<Option<Tensor>> {
        let part = self.parts[i];
        part.bias.map(|start| self.rounded.narrow(0, start, part.outputs)).transpose()
    }

    fn map(&self, i: usize, rows: usize) -> Map {
        Map { outputs: self.parts[i].outputs, inputs: self.parts[i].inputs, rows }
    }
}

/// What every evaluation of a field shares.
#[derive(Clone)]
pub struct FieldSetting {
    pub rotary: Rotary,
    pub heads: usize,
    pub eps: f64,
}

/// `u = α₁⊙Attn(LN(x)⊙s₁ + b₁) + α₂⊙MLP(LN(x)⊙s₂ + b₂)` with exact GELU, the branches computed in the dtype of the
/// rounded maps.
///
/// # Shapes
/// `x` (B, T, D) f32; `modulation` (B or 1, 6, D) f32 with s₁, b₁, s₂, b₂, α₁, α₂; result (B, T, D) f32.
pub fn field(x: &Tensor, modulation: &Tensor, maps: &Maps, setting: &FieldSetting) -> Result<Option<Tensor>> {
    let operands = [x, modulation, &maps.flat, &maps.rounded];
    let (Some(device), Some(kind)) = (device(&operands), name(maps.rounded.dtype())) else { return Ok(None) };
    let (batch, tokens, width) = x.dims3()?;
    let aligned = |start: usize| start.is_multiple_of(8);
    let placed = maps.parts.iter().all(|part| aligned(part.weight) && part.bias.is_none_or(aligned));
    if x.dtype() != DType::F32 || modulation.dtype() != DType::F32 || width % 8 != 0 || !placed {
        return Ok(None);
    }
    if address(x)? % 16 != 0 || address(modulation)? % 16 != 0 {
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
        groups: modulation.dim(0)?,
    };
    let (u, saved) = layer.forward(&device, x, modulation)?;
    let saved = Mutex::new(Some(saved));
    let recorded = record3([x, modulation, &maps.flat], "field", u, move |[x, modulation, _], _, grad| {
        // The first backward frees what the forward left behind as it goes; another one would make it anew.
        let saved = match saved.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(saved) => saved,
            None => layer.forward(x.device().as_cuda_device()?, x, modulation)?.1,
        };
        layer.backward(x, modulation, grad, &saved)
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
}

/// What the backward needs of the forward.
struct Saved {
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

    fn forward(&self, device: &CudaDevice, x: &Tensor, modulation: &Tensor) -> Result<(Buffer, Saved)> {
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
        activate_into(&hidden, &active, Activation::Gelu)?;
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
            u.address()?,
            x.elem_count() as i64,
            self.width as i32,
            self.group_rows()
        );
        Ok((u, Saved { normal, turned, mixed, norm, branches: [attention, mlp], hidden }))
    }

    fn backward(
        &self,
        x: &Tensor,
        modulation: &Tensor,
        grad: &Tensor,
        saved: &Saved,
    ) -> Result<[Option<Tensor>; 3]> {
        let device = x.device().as_cuda_device()?;
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
            dx.address()?,
            partial.address()?,
            d as i32,
            chunks.group_rows as i32,
            chunks.rows as i32,
            chunks.count as i32
        );
        chunks.fold_part(device, &partial, (0, 4 * d, 4 * d), row(0)?, 6 * d)?;
        Ok([Some(dx.tensor()), Some(d_modulation.tensor()), Some(d_flat.tensor())])
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
