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

use super::super::kernel::{self, Matrix, matmul, product, with_all};
use super::super::sequences::inside;
use super::modulation::Norms;
use super::task::MapSlope;

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

/// Fewest rows of a weight's gradient that one task makes.
const FEWEST_ROWS: usize = 64;

impl Part {
    /// Rows of a block of the weight's gradient, so that blocks of all maps are of about one size.
    fn rows_of_a_block(self) -> usize {
        let side = self.outputs.min(self.inputs);
        (side * side / self.inputs).max(FEWEST_ROWS).min(self.outputs)
    }
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
            gradients: vec![Vec::new(); self.tensors.len()],
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

    pub fn weight(&self, i: usize) -> &'a [f32] {
        self.slices[self.parts[i].weight]
    }

    pub fn bias(&self, i: usize) -> Option<&'a [f32]> {
        self.parts[i].bias.map(|bias| self.slices[bias])
    }

    /// `grad·W` of map i.
    pub fn input_slope(&self, i: usize, grad: &[f32], products: Parallelism) -> Vec<f32> {
        let Part { outputs, inputs, .. } = self.parts[i];
        let size = (grad.len() / outputs, outputs, inputs);
        product(size, Matrix::rows(grad, outputs), Matrix::rows(self.weight(i), inputs), products)
    }
}

/// Sums of gradients, in the order of the weights.
pub(super) struct Gathered {
    evaluations: usize,
    /// Whether anyone wants them.
    wanted: bool,
    /// Empty where nothing was added yet.
    gradients: Vec<Vec<f32>>,
}

impl Gathered {
    /// Adds `Σ gradᵀ·input`, the gradients of the maps' weights, and those of their biases. The sums over the tasks of the
    /// backward are formed in the tasks' order, by threads that share out the rows of the weights.
    pub fn maps(&mut self, weights: &View<'_>, tasks: &[[MapSlope; 4]]) {
        if !self.wanted {
            return;
        }
        for (i, part) in weights.parts.iter().enumerate() {
            if let Some(bias) = part.bias {
                tasks.iter().for_each(|maps| self.add(bias, &maps[i].sums));
            }
            let sum = &mut self.gradients[part.weight];
            sum.resize(part.outputs * part.inputs, 0.0);
        }
        let mut blocks = Vec::new();
        for (index, sum) in self.gradients.iter_mut().enumerate() {
            let Some(i) = weights.parts.iter().position(|part| part.weight == index) else { continue };
            let rows = weights.parts[i].rows_of_a_block();
            let sums = sum.chunks_mut(rows * weights.parts[i].inputs).enumerate();
            blocks.extend(sums.map(|(block, sum)| (i, block * rows, sum)));
        }
        let products = inside(blocks.len());
        blocks.into_par_iter().with_max_len(1).for_each(|(i, first, sum)| {
            let Part { outputs, inputs, .. } = weights.parts[i];
            for MapSlope { input, grad, .. } in tasks.iter().map(|maps| &maps[i]) {
                let size = (sum.len() / inputs, input.len() / inputs, inputs);
                let (left, right) = (Matrix::rows(&grad[first..], outputs).t(), Matrix::rows(input, inputs));
                matmul(size, (1.0, 1.0), left, right, sum, inputs, products);
            }
        });
    }

    /// Adds the gradients of the norms' weights and biases.
    pub fn norms(&mut self, gradients: [Vec<f32>; 4]) {
        gradients.iter().enumerate().for_each(|(i, gradient)| self.add(i, gradient));
    }

    fn add(&mut self, i: usize, gradient: &[f32]) {
        let sum = &mut self.gradients[i];
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
        let sum = std::mem::take(&mut gathered.gradients[self.index]);
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
