//! One time-conditioned layer as a single operation with a hand-written backward, in f32 on the processor; the cards' is
//! `ops::cuda::field`.
//!
//! Composed of separate operations, every intermediate result would cost candle a gradient tensor that is cleared, added
//! to and read again, one element at a time; here the slopes go from kernel to kernel, many of them in the memory of what
//! they are the slopes of, and each task takes its sequences through all kernels.

mod gates;
mod modulation;
mod norms;
mod task;
#[cfg(test)]
mod tests;
mod weights;

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::attention_kernel::Sizes;
use super::kernel::{self, elements, with_elements};
use super::sequences::{Sequences, among_threads, inside};
use super::{Activation, Rotary};
use modulation::Modulation;
use task::Task;
pub use weights::Weights;
use weights::{Gathered, Gradients, Splits, View};

/// What every evaluation of a field shares.
#[derive(Clone)]
pub struct Setting {
    /// Tables of the rotary embedding.
    pub rotary: Rotary,
    /// Heads H.
    pub heads: usize,
    /// The eps of the norms.
    pub eps: f64,
    /// Non-linearity of the MLP.
    pub activation: Activation,
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

/// `factor·length⊙u(x) [+ x]` with `u = α₁⊙Attn(mod₁(x)) + α₂⊙MLP(mod₂(x))` and `mod_i(x) = LN_i(x)⊙(1+γ_i) + β_i`;
/// `None` where the operation does not cover its operands: other dtypes and devices, lengths that are trained, longer
/// sequences than the rotary tables.
///
/// # Shapes
/// `x` (B, T, D); `projection` (G, 6·D) with γ₁, β₁, γ₂, β₂, α₁, α₂ and G either B or 1; result (B, T, D).
pub fn field(
    x: &Tensor,
    projection: &Tensor,
    weights: &Weights,
    sum: &Sum,
    setting: &Setting,
) -> Result<Option<Tensor>> {
    let (x, (batch, tokens, width)) = (x.contiguous()?, x.dims3()?);
    let groups = projection.dim(0)?;
    let [cos, sin] = setting.rotary.tables();
    let lengths =
        sum.length.as_ref().is_none_or(|length| length.elem_count() == groups && !length.track_op());
    let channels = width / setting.heads.max(1);
    let whole = weights.fits(width, 3 * setting.heads * channels) && (groups == batch || groups == 1);
    if !lengths
        || !whole
        || tokens > setting.rotary.positions()
        || !kernel::applies(&[&x, projection, cos, sin])
        || !weights.apply()
    {
        return Ok(None);
    }
    let factors = match &sum.length {
        Some(length) => length.flatten_all()?.to_vec1::<f32>()?,
        None => vec![1.0; groups],
    };
    let evaluation = Evaluation {
        rotary: setting.rotary.clone(),
        sizes: Sizes { tokens, heads: setting.heads, channels },
        eps: setting.eps as f32,
        activation: setting.activation,
        weights: weights.clone(),
        factors: factors.iter().map(|length| length * sum.factor as f32).collect(),
        on_x: sum.on_x,
        width,
        keep: x.track_op() || projection.track_op() || weights.token().track_op(),
        saved: Mutex::new(None),
    };
    x.apply_op3(projection, weights.token(), evaluation).map(Some)
}

/// One evaluation.
struct Evaluation {
    rotary: Rotary,
    sizes: Sizes,
    eps: f32,
    activation: Activation,
    weights: Weights,
    /// factor·length of each group.
    factors: Vec<f32>,
    on_x: bool,
    width: usize,
    /// Whether a backward may follow.
    keep: bool,
    saved: Mutex<Option<Saved>>,
}

/// What the backward needs of the forward: the rows that norms and gates multiply by, and what each task left behind.
struct Saved {
    modulation: Modulation,
    tasks: Vec<task::Saved>,
}

impl Evaluation {
    /// The result, and what the backward needs of each task where one may follow.
    fn forward(&self, x: &[f32], projection: &[f32]) -> Result<(Vec<f32>, Saved)> {
        self.weights.read(|weights| {
            let modulation = Modulation::new(projection, weights.norms(), &self.factors);
            let (sequences, block) = self.sequences(x);
            let splits = weights.splits(sequences.tasks(), true);
            let layer = (&weights, &splits, sequences.products());
            let mut u = Vec::with_capacity(x.len());
            let blocks = u.spare_capacity_mut()[..x.len()].par_chunks_mut(block).zip(x.par_chunks(block));
            let one = |(i, (u, x)): (usize, (&mut [MaybeUninit<f32>], &[f32]))| {
                self.task(layer, modulation.of_task(i, sequences.of_a_task())).forward(x, u)
            };
            let tasks: Vec<_> = blocks.enumerate().map(one).collect::<Result<_>>()?;
            // SAFETY: the tasks have written every element.
            unsafe { u.set_len(x.len()) };
            Ok((u, Saved { modulation, tasks: tasks.into_iter().flatten().collect() }))
        })
    }

    /// The slopes of x and of the projection; those of the weights are added to what was gathered.
    fn backward(
        &self,
        (x, projection, grad): (&[f32], &[f32], &[f32]),
        Saved { modulation, tasks }: Saved,
        gathered: &mut Gathered,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        self.weights.read(|weights| {
            let (sequences, block) = self.sequences(x);
            let splits = weights.splits(sequences.tasks(), false);
            let count = weights.lanes(tasks.len());
            let in_a_lane = tasks.len().div_ceil(count);
            let layer = (&weights, &splits, inside(count));
            let mut dx = Vec::with_capacity(x.len());
            let places = dx.spare_capacity_mut()[..x.len()].par_chunks_mut(block * in_a_lane);
            let lanes = gathered.lanes(count).par_iter_mut().zip(grouped(tasks, in_a_lane));
            // A lane takes its tasks one after the other, so that its sums are formed in their order.
            let one = |(lane, (dx, (gradients, tasks))): (usize, Lane<'_>)| {
                let tasks = tasks.into_iter().zip(dx.chunks_mut(block)).enumerate();
                let one = |(i, (saved, dx)): (usize, (task::Saved, &mut [MaybeUninit<f32>]))| {
                    let i = lane * in_a_lane + i;
                    let task = self.task(layer, modulation.of_task(i, sequences.of_a_task()));
                    let (x, grad) = (&x[i * block..][..dx.len()], &grad[i * block..][..dx.len()]);
                    task.backward((x, grad), saved, gradients, dx)
                };
                tasks.map(one).collect::<Result<Vec<_>>>()
            };
            let slopes: Vec<Vec<Modulation>> =
                places.zip(lanes).enumerate().map(one).collect::<Result<_>>()?;
            // SAFETY: the tasks have written every element.
            unsafe { dx.set_len(x.len()) };
            let slopes = Modulation::gather(slopes.into_iter().flatten().collect(), modulation.groups());
            let (d_projection, d_norms) = slopes.backward(projection, weights.norms(), &self.factors);
            gathered.lanes(1)[0].norms(d_norms);
            Ok((dx, d_projection))
        })
    }

    /// How the rows of x are shared out, and the elements of a task.
    fn sequences(&self, x: &[f32]) -> (Sequences, usize) {
        let tokens = self.sizes.tokens;
        let sequences = Sequences { batch: x.len() / (tokens * self.width), tokens, width: self.width };
        (sequences, sequences.rows() * self.width)
    }

    fn task<'a>(
        &'a self,
        (weights, splits, products): (&'a View<'a>, &'a Splits, Parallelism),
        modulation: Modulation,
    ) -> Task<'a> {
        let Self { sizes, eps, activation, on_x, keep, .. } = *self;
        let rotary = &self.rotary;
        Task { weights, splits, modulation, rotary, sizes, eps, activation, on_x, keep, products }
    }
}

/// Where a lane of the backward writes the slope of x, where it sums gradients, and what the forward left behind.
type Lane<'a> = (&'a mut [MaybeUninit<f32>], (&'a mut Gradients, Vec<task::Saved>));

/// The items in groups of so many, in their order.
fn grouped<T>(items: Vec<T>, size: usize) -> Vec<Vec<T>> {
    let mut items = items.into_iter().peekable();
    let mut groups = Vec::new();
    while items.peek().is_some() {
        groups.push(items.by_ref().take(size).collect());
    }
    groups
}

impl CustomOp3 for Evaluation {
    fn name(&self) -> &'static str {
        "field"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        projection: &CpuStorage,
        projection_layout: &Layout,
        _token: &CpuStorage,
        _token_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, projection) = (elements(x, x_layout)?, elements(projection, projection_layout)?);
        let (u, saved) = among_threads(|| self.forward(x, projection))?;
        if self.keep {
            *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        }
        Ok((CpuStorage::F32(u), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        projection: &Tensor,
        token: &Tensor,
        _u: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let mut gathered = self.weights.gathered();
        let (dx, d_projection) = with_elements([x, projection, &grad], |[x_data, projection_data, grad]| {
            among_threads(|| {
                // The first backward consumes what the forward left behind; another one makes it anew.
                let saved = match self.saved.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    Some(saved) => saved,
                    None => self.forward(x_data, projection_data)?.1,
                };
                self.backward((x_data, projection_data, grad), saved, &mut gathered)
            })
        })?;
        let slope =
            |of: &Tensor, values| of.track_op().then(|| Tensor::from_vec(values, of.shape(), of.device()));
        let (dx, d_projection) = (slope(x, dx).transpose()?, slope(projection, d_projection).transpose()?);
        Ok((dx, d_projection, self.weights.hand_on(token, gathered)?))
    }
}
