//! The slopes of a walk, from kernel to kernel.

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::{Base, Layer, Saved, Stage};
use crate::ops::cuda::memory::{Buffer, address};
use crate::ops::cuda::mlp::Gradients;
use crate::ops::cuda::module::launch;
use crate::ops::cuda::reduce::{Chunks, write_column_sums};
use crate::ops::cuda::rotary::turn;

/// Where the gradients of the flat weights are gathered.
struct Weights {
    flat: u64,
    /// Whether an earlier stage has left its own there.
    add: bool,
}

impl Weights {
    /// Where the gradient of the weights from `start` on goes.
    fn at(&self, start: usize) -> (u64, bool) {
        (self.flat + 4 * start as u64, self.add)
    }
}

impl Layer {
    /// The gradients of x where it is wanted, of the projection and of the flat weights.
    pub(super) fn backward(
        &self,
        projection: &Tensor,
        grad: &Tensor,
        saved: Vec<Saved>,
        of_x: bool,
    ) -> Result<[Option<Tensor>; 3]> {
        let device = grad.device().as_cuda_device()?;
        let d_flat = Buffer::new(device, self.maps.flat.shape(), DType::F32)?;
        let d_projection = Buffer::new(device, projection.shape(), DType::F32)?;
        // `waiting` is a slope that passes a stage by, from the result behind it to what it evaluates.
        let (mut grad, mut waiting) = (grad.clone(), None);
        for (i, (stage, saved)) in self.stages.iter().zip(saved).enumerate().rev() {
            let weights = Weights { flat: d_flat.address()?, add: i + 1 < self.stages.len() };
            let projections = [address(projection)?, d_projection.address()?].map(|at| self.of_stage(at, i));
            let passed = waiting.take();
            if stage.base == Base::Previous {
                waiting = Some(grad.clone());
            }
            let slopes = (&grad, passed.as_ref(), of_x || i > 0);
            if let Some(before) = self.stage_backward((stage, &saved), slopes, projections, &weights)? {
                grad = before;
            }
        }
        Ok([of_x.then_some(grad), Some(d_projection.tensor()), Some(d_flat.tensor())])
    }

    /// The slope of what a stage evaluates, where it is `wanted`: by way of the field, of its base where that is the same, and
    /// `passed`.
    fn stage_backward(
        &self,
        (stage, saved): (&Stage, &Saved),
        (grad, passed, wanted): (&Tensor, Option<&Tensor>, bool),
        [projection, d_projection]: [u64; 2],
        weights: &Weights,
    ) -> Result<Option<Tensor>> {
        let (device, x, modulation) = (grad.device().as_cuda_device()?, &saved.x, &saved.modulation);
        let (d, rows) = (self.width, self.rows);
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
                chunks.fold_all(device, &partial, (first, d, 4 * d), weights.at(bias))?;
            }
        }

        let d_second = self.mlp_backward(device, &d_mlp, saved, weights)?;
        let d_mixed = self.slope(device, 1, &saved.mixed, &d_attention, weights)?;
        let d_packed = self.shape.backward(&saved.turned, &saved.mixed, &d_mixed, &saved.norm)?;
        turn(&d_packed, &self.setting.rotary, self.setting.heads, -1.0)?;
        if let Some(bias) = self.maps.parts[0].bias {
            write_column_sums(&d_packed, self.maps.parts[0].outputs, weights.at(bias))?;
        }
        let d_first = self.slope(device, 0, &saved.normal[0], &d_packed, weights)?;

        let dx = wanted.then(|| Buffer::new(device, x.shape(), DType::F32)).transpose()?;
        let chunks = Chunks::of_rows(rows, self.groups);
        let partial = chunks.partial(device, 4 * d)?;
        let (widest, vector) = match d {
            0..=1024 => (1024, 4),
            1025..=2048 => (2048, 4),
            _ => (8192, 8),
        };
        launch!(
            device,
            FIELD,
            format!("field_norms_backward_{}_w{widest}", self.kind),
            chunks.grid(),
            (d.div_ceil(32 * vector) as u32 * 32, 1, 1),
            0,
            address(x)?,
            address(modulation)?,
            address(&d_first)?,
            address(&d_second)?,
            if stage.base == Base::Own { address(grad)? } else { 0 },
            passed.map_or(Ok(0), address)?,
            dx.as_ref().map_or(Ok(0), Buffer::address)?,
            partial.address()?,
            d as i32,
            chunks.group_rows as i32,
            chunks.rows as i32,
            chunks.count as i32,
            self.setting.eps as f32
        );
        chunks.fold_part(device, &partial, (0, 4 * d, 4 * d), row(0)?, 6 * d)?;
        let [w1, b1, w2, b2] = self.norms(address(&self.maps.flat)?);
        let [d_w1, d_b1, d_w2, d_b2] = self.norms(weights.flat);
        launch!(
            device,
            FIELD,
            "field_modulation_backward",
            (d.div_ceil(32) as u32, 1, 1),
            (32, 8, 1),
            0,
            projection,
            w1,
            b1,
            w2,
            b2,
            stage.lengths()?,
            stage.factor as f32,
            d_modulation.address()?,
            d_projection,
            d_w1,
            d_b1,
            d_w2,
            d_b2,
            d as i32,
            self.groups as i32,
            i32::from(weights.add)
        );
        Ok(dx.map(Buffer::tensor))
    }

    /// From the slope of the MLP branch to that of its normalised input.
    fn mlp_backward(
        &self,
        device: &CudaDevice,
        d_mlp: &Tensor,
        saved: &Saved,
        weights: &Weights,
    ) -> Result<Tensor> {
        let [up, down] = [self.maps.parts[2], self.maps.parts[3]];
        let gradients = Gradients {
            input: &saved.normal[1],
            up: weights.at(up.weight),
            up_bias: up.bias.map(|bias| weights.at(bias)),
            down: weights.at(down.weight),
        };
        self.mlp()?.backward(device, &saved.hidden, d_mlp, Some(&gradients))
    }

    /// Writes the weight's gradient of map `i` and returns the slope of its input.
    fn slope(
        &self,
        device: &CudaDevice,
        i: usize,
        input: &Tensor,
        grad: &Tensor,
        weights: &Weights,
    ) -> Result<Tensor> {
        let map = self.maps.map(i, self.rows);
        map.write_weight_gradient(device, input, grad, DType::F32, weights.at(self.maps.parts[i].weight))?;
        map.input_gradient(device, &self.maps.weight(i)?, grad)
    }
}
