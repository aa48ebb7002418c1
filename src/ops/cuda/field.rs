//! One time-conditioned layer as a single operation with a hand-written backward.
//!
//! Composed of separate operations, every intermediate result would cost candle a gradient tensor that is cleared, added
//! to and read again; here the slopes go from kernel to kernel.

mod backward;

use std::sync::{Mutex, PoisonError};

use candle_core::{CudaDevice, DType, Result, Tensor, bail};

use super::activation::elementwise;
use super::attention::Shape;
use super::graph::record3;
use super::maps::Maps;
use super::memory::{Buffer, address, device, name};
use super::mlp::Mlp;
use super::module::launch;
use super::rotary::turn;
use crate::ops::{Activation, Rotary};

/// Elements of a row that a block of the norms' backward can hold.
const WIDEST: usize = 8192;
/// Rows of a block of the norms' kernels, one warp each.
const ROWS: usize = 4;

/// What every evaluation of a field shares.
#[derive(Clone)]
pub struct FieldSetting {
    pub rotary: Rotary,
    pub heads: usize,
    pub eps: f64,
}

/// What an evaluation is added to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Nothing: the result is the scaled velocity alone.
    Nothing,
    /// What it evaluates: an Euler step.
    Own,
    /// What the evaluation in front of it evaluates: the second half of a midpoint step.
    Previous,
}

/// How an evaluation is scaled and what it is added to.
#[derive(Clone)]
pub struct Stage {
    /// One factor (G) for each group of examples.
    pub length: Option<Tensor>,
    /// One factor for all.
    pub factor: f64,
    pub base: Base,
}

/// Evaluations of a field one after another, each of what the one in front of it gives: `base + factor·length⊙u(x)` with
/// `u = α₁⊙Attn(mod₁(x)) + α₂⊙MLP(mod₂(x))`, `mod_i(x) = LN_i(x)⊙(1+γ_i) + β_i` and exact GELU; the branches are computed in
/// the dtype of the rounded maps. The last result.
///
/// As one operation the weights' gradients of all evaluations are summed where they are made.
///
/// # Shapes
/// `x` (B, T, D) f32; `projection` (S·G, 6·D) f32 with γ₁, β₁, γ₂, β₂, α₁, α₂ of each of the S stages and G either B or 1;
/// result (B, T, D) f32.
pub fn walk(
    x: &Tensor,
    projection: &Tensor,
    maps: &Maps,
    stages: &[Stage],
    setting: &FieldSetting,
) -> Result<Option<Tensor>> {
    let mut operands = vec![x, projection, &maps.flat, &maps.rounded];
    operands.extend(stages.iter().flat_map(|stage| &stage.length));
    let (Some(device), Some(kind)) = (device(&operands), name(maps.rounded.dtype())) else {
        return Ok(None);
    };
    let (batch, tokens, width) = x.dims3()?;
    let aligned = |start: usize| start.is_multiple_of(8);
    let placed = maps.parts.iter().all(|part| aligned(part.weight) && part.bias.is_none_or(aligned));
    let lengths = || stages.iter().flat_map(|stage| &stage.length);
    let single = [x, projection].into_iter().chain(lengths()).all(|t| t.dtype() == DType::F32);
    let groups = projection.dim(0)? / stages.len().max(1);
    let fit = lengths().all(|length| length.elem_count() == groups);
    if !single || !fit || width % 8 != 0 || width > WIDEST || !placed || address(x)? % 16 != 0 {
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
        stages: stages.to_vec(),
    };
    let keep = [x, projection, &maps.flat].iter().any(|operand| operand.track_op());
    let (end, saved) = layer.walk(&device, x, projection, keep)?;
    let saved = Mutex::new(Some(saved));
    let recorded = record3([x, projection, &maps.flat], "field", end, move |[x, projection, _], _, grad| {
        // The first backward frees what the forward left behind as it goes; another one would make it anew.
        let saved = match saved.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(saved) => saved,
            None => layer.walk(x.device().as_cuda_device()?, x, projection, true)?.1,
        };
        layer.backward(projection, grad, saved, x.track_op())
    });
    recorded.map(Some)
}

/// The evaluations of one walk.
struct Layer {
    maps: Maps,
    setting: FieldSetting,
    shape: Shape,
    kind: &'static str,
    rows: usize,
    width: usize,
    groups: usize,
    stages: Vec<Stage>,
}

/// What the backward needs of the forward.
struct Saved {
    /// What was evaluated.
    x: Tensor,
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

    fn mlp(&self) -> Result<Mlp> {
        let map = |i| candle_core::Result::Ok((self.maps.weight(i)?, self.maps.bias(i)?));
        Ok(Mlp { up: map(2)?, down: map(3)?, activation: Activation::Gelu })
    }

    /// Addresses of the norms' weights and biases in a vector that is laid out as the flat one.
    fn norms(&self, flat: u64) -> [u64; 4] {
        self.maps.norms.map(|start| flat + 4 * start as u64)
    }

    /// Address of the i-th stage's projection or of its gradient.
    fn of_stage(&self, projections: u64, i: usize) -> u64 {
        projections + (4 * i * self.groups * 6 * self.width) as u64
    }

    /// The end of the walk and, where they are to be kept, what each stage leaves for its backward.
    fn walk(
        &self,
        device: &CudaDevice,
        x: &Tensor,
        projection: &Tensor,
        keep: bool,
    ) -> Result<(Buffer, Vec<Saved>)> {
        let (mut saved, mut previous, mut x) = (Vec::new(), None, x.detach());
        for (i, stage) in self.stages.iter().enumerate() {
            let base = match stage.base {
                Base::Nothing => None,
                Base::Own => Some(x.clone()),
                Base::Previous => previous.take(),
            };
            let modulation = self.modulation(device, self.of_stage(address(projection)?, i), stage)?;
            let (next, left) = self.forward(device, &x, base.as_ref(), modulation)?;
            if keep {
                saved.push(left);
            }
            if i + 1 == self.stages.len() {
                return Ok((next, saved));
            }
            previous = Some(std::mem::replace(&mut x, next.tensor()));
        }
        bail!("a walk needs at least one stage")
    }

    fn modulation(&self, device: &CudaDevice, projection: u64, stage: &Stage) -> Result<Tensor> {
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
            projection,
            w1,
            b1,
            w2,
            b2,
            stage.lengths()?,
            stage.factor as f32,
            modulation.address()?,
            self.width as i32
        );
        Ok(modulation.tensor())
    }

    fn forward(
        &self,
        device: &CudaDevice,
        x: &Tensor,
        base: Option<&Tensor>,
        modulation: Tensor,
    ) -> Result<(Buffer, Saved)> {
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
            address(&modulation)?,
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
        let hidden = self.buffer(device, self.maps.parts[2].outputs)?;
        let mlp = self.mlp()?.forward(device, &normal[1], Some(&hidden), None)?.tensor();
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
            address(&modulation)?,
            base.map_or(Ok(0), address)?,
            u.address()?,
            x.elem_count() as i64,
            self.width as i32,
            self.group_rows()
        );
        let (x, branches) = (x.clone(), [attention, mlp]);
        Ok((u, Saved { x, modulation, normal, turned, mixed, norm, branches, hidden }))
    }
}

impl Stage {
    fn lengths(&self) -> Result<u64> {
        self.length.as_ref().map_or(Ok(0), address)
    }
}
