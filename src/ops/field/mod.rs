//! One time-conditioned layer as a single operation with a hand-written backward, in f32 on the processor; the cards' is
//! `ops::cuda::field`.
//!
//! Composed of separate operations, every intermediate result would cost candle a gradient tensor that is cleared, added
//! to and read again, one element at a time; here the slopes go from kernel to kernel, many of them in the memory of what
//! they are the slopes of.

mod gates;
mod modulation;
mod norms;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::attention_kernel::{Attended, Sizes};
use super::kernel::{self, elements, with_elements};
use super::linear::affine;
use super::{Activation, Rotary};
use modulation::Modulation;
pub use weights::Weights;
use weights::{Gathered, View};

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

/// What the backward needs of the forward.
struct Saved {
    modulation: Modulation,
    /// The two norms' results (B·T, D).
    normal: [Vec<f32>; 2],
    /// The packed projection (B·T, 3·D), queries and keys turned.
    turned: Vec<f32>,
    /// The attention's result in front of its output projection (B·T, D).
    attended: Attended,
    /// The two branches (B·T, D).
    branches: [Vec<f32>; 2],
    /// The MLP's hidden values in front of the activation.
    hidden: Vec<f32>,
}

impl Evaluation {
    fn forward(&self, x: &[f32], projection: &[f32]) -> Result<(Vec<f32>, Saved)> {
        let on_x = self.on_x.then_some(x);
        self.weights.read(|weights| {
            let modulation = Modulation::new(projection, weights.norms(), &self.factors);
            let normal = norms::forward(x, &modulation, self.eps);
            let mut turned = map(&weights, 0, &normal[0]);
            self.sizes.turn(&mut turned, &self.rotary, 1.0)?;
            let attended = self.sizes.attend(&turned);
            let attention = map(&weights, 1, &attended.mixed);
            let hidden = map(&weights, 2, &normal[1]);
            let mlp = map(&weights, 3, &self.activation.of(&hidden));
            let branches = [attention, mlp];
            let u = gates::forward(&branches, &modulation, on_x);
            Ok((u, Saved { modulation, normal, turned, attended, branches, hidden }))
        })
    }

    /// The slopes of x and of the projection; those of the weights are added to what was gathered.
    fn backward(
        &self,
        (x, projection, grad): (&[f32], &[f32], &[f32]),
        saved: Saved,
        gathered: &mut Gathered,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let Saved { modulation, normal: [first, second], turned, attended, branches, hidden } = saved;
        self.weights.read(|weights| {
            let mut slopes = modulation.zeros();
            let [d_attention, d_mlp] = gates::backward(branches, grad, &modulation, &mut slopes);
            gathered.bias(&weights, 1, || slopes.branch_sums(&modulation, 0));
            gathered.bias(&weights, 3, || slopes.branch_sums(&modulation, 1));

            let (mut active, mut d_hidden) = (hidden, weights.input_slope(3, &d_mlp));
            let inner = weights.part(3).inputs;
            let d_bias = self.activation.backward_in_place(&mut active, &mut d_hidden, inner);
            gathered.bias(&weights, 2, || d_bias);
            gathered.weight(&weights, 3, &active, &d_mlp);
            drop((active, d_mlp));
            gathered.weight(&weights, 2, &second, &d_hidden);
            let d_second = weights.input_slope(2, &d_hidden);
            drop((second, d_hidden));

            gathered.weight(&weights, 1, &attended.mixed, &d_attention);
            let d_mixed = weights.input_slope(1, &d_attention);
            drop(d_attention);
            let mut d_packed = self.sizes.slopes(&turned, &attended, &d_mixed);
            drop((turned, attended, d_mixed));
            self.sizes.turn(&mut d_packed, &self.rotary, -1.0)?;
            gathered.bias(&weights, 0, || kernel::column_sums(&d_packed, 3 * self.width));
            gathered.weight(&weights, 0, &first, &d_packed);
            let d_first = weights.input_slope(0, &d_packed);

            let on_x = self.on_x.then_some(grad);
            let dx = norms::backward(x, [d_first, d_second], on_x, (&modulation, self.eps), &mut slopes);
            let (d_projection, d_norms) = slopes.backward(projection, weights.norms(), &self.factors);
            gathered.norms(d_norms);
            Ok((dx, d_projection))
        })
    }
}

fn map(weights: &View<'_>, i: usize, input: &[f32]) -> Vec<f32> {
    let part = weights.part(i);
    affine(input, weights.weight(i), weights.bias(i), (part.outputs, part.inputs))
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
        let (u, saved) = self.forward(elements(x, x_layout)?, elements(projection, projection_layout)?)?;
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
            // The first backward consumes what the forward left behind; another one makes it anew.
            let saved = match self.saved.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(saved) => saved,
                None => self.forward(x_data, projection_data)?.1,
            };
            self.backward((x_data, projection_data, grad), saved, &mut gathered)
        })?;
        let slope =
            |of: &Tensor, values| of.track_op().then(|| Tensor::from_vec(values, of.shape(), of.device()));
        let (dx, d_projection) = (slope(x, dx).transpose()?, slope(projection, d_projection).transpose()?);
        Ok((dx, d_projection, self.weights.hand_on(token, gathered)?))
    }
}
