//! A layer's weights for the field's operation, and where their gradients gather.
//!
//! candle would add the weights' gradients of several evaluations one after the other, each time through tensors of their
//! size. Here every evaluation's backward adds its part in place. The evaluations hang on a token, which hangs on the
//! weights: candle comes to it when all of them are done, and it hands the sums on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};
use gemm::Parallelism;
use rayon::prelude::*;

use super::super::kernel::{self, GRAIN, Matrix, Right, Split, matmul, product, split, with_all};
use super::super::linear::Map;
use super::modulation::Norms;

/// The weights of a layer, and the sum of their gradients during a backward pass. Clones share both.
#[derive(Clone)]
pub struct Weights {
    /// Weight and bias of the two norms; of the packed projection, the attention's output and the MLP's two maps each the
    /// weight (O, I) and the bias (O) where there is one.
    tensors: Arc<Vec<Tensor>>,
    parts: [Part; 4],
    token: Tensor,
    sink: Arc<Sink>,
}

/// Where one map is found.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub outputs: usize,
    pub inputs: usize,
    weight: usize,
    bias: Option<usize>,
}

impl Weights {
    /// The weights and biases of the norms and of the four maps.
    pub fn new(norms: [(&Tensor, &Tensor); 2], maps: [(&Tensor, Option<&Tensor>); 4]) -> Result<Self> {
        let mut tensors: Vec<Tensor> =
            norms.into_iter().flat_map(|(weight, bias)| [weight.clone(), bias.clone()]).collect();
        let mut place = |tensor: &Tensor| {
            tensors.push(tensor.clone());
            tensors.len() - 1
        };
        let mut parts = [Part { outputs: 0, inputs: 0, weight: 0, bias: None }; 4];
        for (part, (weight, bias)) in parts.iter_mut().zip(maps) {
            let (outputs, inputs) = weight.dims2()?;
            *part = Part { outputs, inputs, weight: place(weight), bias: bias.map(&mut place) };
        }
        let sink = Arc::new(Sink::default());
        let mut token = Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu)?;
        // On other devices the operation does not apply.
        if tensors.iter().all(|tensor| tensor.device().is_cpu()) {
            for (index, weight) in tensors.iter().enumerate().filter(|(_, weight)| weight.track_op()) {
                token = hang(&token, weight, HandOn { sink: sink.clone(), index })?;
            }
        }
        let tensors = Arc::new(tensors.iter().map(Tensor::detach).collect());
        Ok(Self { tensors, parts, token, sink })
    }

    /// Whether the kernels can read them.
    pub(super) fn apply(&self) -> bool {
        self.tensors.iter().all(|tensor| kernel::applies(&[tensor]))
    }

    /// Whether they are those of a layer of this width, whose packed projection has so many outputs.
    pub(super) fn fits(&self, width: usize, packed: usize) -> bool {
        let [qkv, dense, up, down] = self.parts;
        (qkv.inputs, dense.outputs, up.inputs, down.outputs) == (width, width, width, width)
            && (qkv.outputs, dense.inputs, down.inputs) == (packed, packed / 3, up.outputs)
    }

    /// What evaluations hang on.
    pub(super) fn token(&self) -> &Tensor {
        &self.token
    }

    /// Calls `body` with the elements of all weights.
    pub(super) fn read<R>(&self, body: impl FnOnce(View<'_>) -> Result<R>) -> Result<R> {
        with_all(&self.tensors, |slices| body(View { slices, parts: self.parts }))
    }

    /// What this thread's backward pass has gathered so far, for one more evaluation to add to.
    pub(super) fn gathered(&self) -> Gathered {
        let gathered = self.sink.passes().remove(&thread::current().id());
        gathered.unwrap_or_else(|| Gathered {
            evaluations: 0,
            wanted: self.token.track_op(),
            tensors: self.tensors.len(),
            lanes: Vec::new(),
        })
    }

    /// Leaves the sums for the next evaluation, or for the token. The token's gradient counts the evaluations.
    pub(super) fn hand_on(&self, token: &Tensor, mut gathered: Gathered) -> Result<Option<Tensor>> {
        if !token.track_op() {
            return Ok(None);
        }
        gathered.evaluations += 1;
        self.sink.passes().insert(thread::current().id(), gathered);
        token.ones_like().map(Some)
    }
}

/// The elements of a layer's weights.
pub(super) struct View<'a> {
    slices: &'a [&'a [f32]],
    parts: [Part; 4],
}

impl<'a> View<'a> {
    pub fn part(&self, i: usize) -> Part {
        self.parts[i]
    }

    pub fn norms(&self) -> Norms<'a> {
        std::array::from_fn(|i| self.slices[i])
    }

    /// Map i.
    pub fn map<'s>(&'s self, i: usize, splits: &'s Splits) -> Map<'s> {
        let Part { outputs, inputs, weight, bias } = self.parts[i];
        let bias = bias.map(|bias| self.slices[bias]);
        Map { weight: self.slices[weight], split: splits[i].as_ref(), bias, outputs, inputs }
    }

    /// `grad·W` of map i.
    pub fn input_slope(&self, i: usize, splits: &Splits, grad: &[f32], products: Parallelism) -> Vec<f32> {
        let Part { outputs, inputs, weight, .. } = self.parts[i];
        let size = (grad.len() / outputs, outputs, inputs);
        let matrix = Matrix::rows(self.slices[weight], inputs);
        let right = Right { matrix, split: splits[i].as_ref(), bias: None };
        product(size, Matrix::rows(grad, outputs), right, products)
    }

    /// How many sums of gradients so many tasks make side by side; it depends on the shapes alone.
    pub fn lanes(&self, tasks: usize) -> usize {
        let elements: usize = self.parts.iter().map(|part| part.outputs * part.inputs).sum();
        let lanes = (LANE_BYTES / (size_of::<f32>() * elements)).clamp(1, MOST_LANES);
        tasks.div_ceil(tasks.div_ceil(lanes))
    }

    /// The weights split for the tile unit, transposed as the forward reads them or as they are, where tasks share them.
    pub fn splits(&self, tasks: usize, transposed: bool) -> Splits {
        self.parts.map(|Part { outputs, inputs, weight, .. }| {
            let matrix = Matrix::rows(self.slices[weight], inputs);
            match (tasks > 1, transposed) {
                (false, _) => None,
                (true, true) => split((inputs, outputs), matrix.t()),
                (true, false) => split((outputs, inputs), matrix),
            }
        })
    }
}

/// The four maps' weights split for the tile unit, those that were.
pub(super) type Splits = [Option<Split>; 4];

/// Most sums of a weight's gradient that are made side by side.
const MOST_LANES: usize = 8;
/// Bytes that the sums may take together, if there are several.
const LANE_BYTES: usize = 64 << 20;

/// What a backward pass has gathered: sums of gradients made side by side, each by one task at a time.
pub(super) struct Gathered {
    evaluations: usize,
    /// Whether anyone wants them.
    wanted: bool,
    /// Number of weights.
    tensors: usize,
    lanes: Vec<Gradients>,
}

impl Gathered {
    /// So many sums.
    pub fn lanes(&mut self, count: usize) -> &mut [Gradients] {
        let (wanted, tensors) = (self.wanted, self.tensors);
        let empty = || Gradients { wanted, sums: vec![Vec::new(); tensors] };
        self.lanes.resize_with(count.max(self.lanes.len()), empty);
        &mut self.lanes[..count]
    }

    /// Takes the sums of one weight out, added in their order.
    fn take(&mut self, index: usize) -> Vec<f32> {
        let mut lanes = self.lanes.iter_mut().map(|lane| std::mem::take(&mut lane.sums[index]));
        let mut total = lanes.next().unwrap_or_default();
        for sum in lanes {
            total.resize(total.len().max(sum.len()), 0.0);
            let blocks = total.par_chunks_mut(GRAIN).zip(sum.par_chunks(GRAIN));
            blocks.for_each(|(total, sum)| total.iter_mut().zip(sum).for_each(|(t, x)| *t += x));
        }
        total
    }
}

/// Sums of gradients, in the order of the weights.
pub(super) struct Gradients {
    wanted: bool,
    /// Empty where nothing was added yet.
    sums: Vec<Vec<f32>>,
}

impl Gradients {
    /// Adds `gradᵀ·input`, the gradient of map i's weight.
    pub fn weight(
        &mut self,
        weights: &View<'_>,
        i: usize,
        (input, grad): (&[f32], &[f32]),
        products: Parallelism,
    ) {
        if !self.wanted {
            return;
        }
        let Part { outputs, inputs, weight, .. } = weights.parts[i];
        let size = (outputs, input.len() / inputs, inputs);
        let (left, right) = (Matrix::rows(grad, outputs).t(), Matrix::rows(input, inputs));
        let sum = &mut self.sums[weight];
        if sum.is_empty() {
            *sum = product(size, left, right, products);
        } else {
            matmul(size, (1.0, 1.0), left, right, sum, inputs, products);
        }
    }

    /// Adds the gradient of map i's bias, where it has one.
    pub fn bias(&mut self, weights: &View<'_>, i: usize, gradient: &[f32]) {
        if let Some(bias) = weights.parts[i].bias {
            self.add(bias, gradient);
        }
    }

    /// Adds the gradients of the norms' weights and biases.
    pub fn norms(&mut self, gradients: [Vec<f32>; 4]) {
        gradients.iter().enumerate().for_each(|(i, gradient)| self.add(i, gradient));
    }

    fn add(&mut self, i: usize, gradient: &[f32]) {
        let sum = &mut self.sums[i];
        sum.resize(gradient.len(), 0.0);
        sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
    }
}

/// The sums by the thread whose backward pass they belong to: candle walks a graph on one thread, and two threads may
/// walk graphs that share a token.
#[derive(Default)]
struct Sink(Mutex<HashMap<ThreadId, Gathered>>);

impl Sink {
    fn passes(&self) -> MutexGuard<'_, HashMap<ThreadId, Gathered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the token depend on one more weight.
fn hang(token: &Tensor, weight: &Tensor, hand_on: HandOn) -> Result<Tensor> {
    if token.track_op() { token.apply_op2(weight, hand_on) } else { weight.apply_op1(hand_on) }
}

/// Gives one weight its sum.
struct HandOn {
    sink: Arc<Sink>,
    index: usize,
}

impl HandOn {
    fn take(&self, weight: &Tensor, grad: &Tensor, last: bool) -> Result<Option<Tensor>> {
        let (mut passes, thread) = (self.sink.passes(), thread::current().id());
        let counted = grad.to_vec1::<f32>()?[0] as usize;
        let gathered = match passes.get_mut(&thread) {
            Some(gathered) if gathered.evaluations == counted => gathered,
            // What an earlier pass that failed left behind would be counted twice.
            _ => {
                passes.remove(&thread);
                bail!(
                    "field: this backward pass follows one that failed on the same graph; begin with a new forward"
                )
            }
        };
        let sum = gathered.take(self.index);
        if last {
            passes.remove(&thread);
        }
        Tensor::from_vec(sum, weight.shape(), weight.device()).map(Some)
    }
}

impl CustomOp2 for HandOn {
    fn name(&self) -> &'static str {
        "field_weights"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), 1.into()))
    }

    fn bwd(
        &self,
        _token: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), self.take(weight, grad, false)?))
    }
}

impl CustomOp1 for HandOn {
    fn name(&self) -> &'static str {
        "field_weights"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), 1.into()))
    }

    fn bwd(&self, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.take(weight, grad, true)
    }
}
