//! One task of an evaluation: whole sequences on their way through the layer, and back.

use std::mem::MaybeUninit;

use candle_core::Result;
use gemm::Parallelism;

use super::super::attention_kernel::{Attended, Sizes};
use super::super::kernel::column_sums;
use super::super::linear::Map;
use super::super::sequences::rows_together;
use super::super::{Activation, Rotary};
use super::modulation::Modulation;
use super::weights::{Gradients, Part, Splits, View};
use super::{gates, norms};

/// What a task needs to know. R: its rows.
pub(super) struct Task<'a> {
    pub weights: &'a View<'a>,
    /// As this pass reads them.
    pub splits: &'a Splits,
    /// Of the task's own sequences.
    pub modulation: Modulation,
    pub rotary: &'a Rotary,
    pub sizes: Sizes,
    pub eps: f32,
    pub activation: Activation,
    pub on_x: bool,
    /// Whether a backward may follow.
    pub keep: bool,
    /// How its products are shared out.
    pub products: Parallelism,
}

/// What the backward needs of the forward.
pub(super) struct Saved {
    /// The two norms' results (R, D).
    normal: [Vec<f32>; 2],
    /// The packed projection (R, 3·D), queries and keys turned.
    turned: Vec<f32>,
    /// The attention's result in front of its output projection (R, D).
    attended: Attended,
    /// The two branches (R, D).
    branches: [Vec<f32>; 2],
    /// The MLP's hidden values in front of the activation.
    hidden: Vec<f32>,
}

impl Task<'_> {
    /// Writes the result for the rows of x.
    pub fn forward(&self, x: &[f32], u: &mut [MaybeUninit<f32>]) -> Result<Option<Saved>> {
        let Self { modulation, sizes, .. } = self;
        let normal = norms::forward(x, modulation, self.eps);
        let mut turned = self.map(0).of(&normal[0], self.products);
        sizes.turn(&mut turned, self.rotary, 1.0)?;
        let attended = sizes.attend(&turned);
        let attention = self.map(1).of(&attended.mixed, self.products);
        let (hidden, mlp) = self.mlp(&normal[1]);
        let branches = [attention, mlp];
        gates::forward(u, &branches, modulation, self.on_x.then_some(x));
        Ok(self.keep.then_some(Saved { normal, turned, attended, branches, hidden }))
    }

    /// The MLP's hidden values, if they are kept, and its result.
    fn mlp(&self, input: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (up, down) = (self.map(2), self.map(3));
        let rows = input.len() / up.inputs;
        let mut hidden = Vec::with_capacity(if self.keep { rows * up.outputs } else { 0 });
        let mut result = Vec::with_capacity(input.len());
        for input in input.chunks(rows_together(up.outputs).min(rows) * up.inputs) {
            let mut inner = up.of(input, self.products);
            if self.keep {
                hidden.extend_from_slice(&inner);
            }
            self.activation.in_place(&mut inner);
            result.extend_from_slice(&down.of(&inner, self.products));
        }
        (hidden, result)
    }

    /// Writes the slope of x, given x and the slope of the result, and adds those of the weights. Returns those of the rows
    /// that norms and gates multiply by.
    pub fn backward(
        &self,
        (x, grad): (&[f32], &[f32]),
        saved: Saved,
        gradients: &mut Gradients,
        dx: &mut [MaybeUninit<f32>],
    ) -> Result<Modulation> {
        let Self { weights, splits, ref modulation, sizes, products, .. } = *self;
        let Saved { normal: [first, second], turned, attended, branches, hidden } = saved;
        let mut slopes = modulation.zeros();
        let [d_attention, d_mlp] = gates::backward(branches, grad, modulation, &mut slopes);
        gradients.bias(weights, 1, &slopes.branch_sums(modulation, 0));
        gradients.bias(weights, 3, &slopes.branch_sums(modulation, 1));

        let d_second = self.mlp_backward(&second, hidden, &d_mlp, gradients);
        drop((second, d_mlp));

        gradients.weight(weights, 1, (&attended.mixed, &d_attention), products);
        let d_mixed = weights.input_slope(1, splits, &d_attention, products);
        drop(d_attention);
        let mut d_packed = sizes.slopes(&turned, &attended, &d_mixed);
        drop((turned, attended, d_mixed));
        sizes.turn(&mut d_packed, self.rotary, -1.0)?;
        gradients.bias(weights, 0, &column_sums(&d_packed, weights.part(0).outputs));
        gradients.weight(weights, 0, (&first, &d_packed), products);
        let d_first = weights.input_slope(0, splits, &d_packed, products);
        drop((first, d_packed));

        let on_x = self.on_x.then_some(grad);
        norms::backward((x, on_x), [d_first, d_second], (modulation, self.eps), &mut slopes, dx);
        Ok(slopes)
    }

    /// From the slope of the MLP's result to that of its input.
    fn mlp_backward(
        &self,
        input: &[f32],
        mut hidden: Vec<f32>,
        grad: &[f32],
        gradients: &mut Gradients,
    ) -> Vec<f32> {
        let Self { weights, splits, products, .. } = *self;
        let Part { outputs: inner, inputs: width, .. } = weights.part(2);
        let rows = rows_together(inner).min(hidden.len() / inner);
        let mut slope = Vec::with_capacity(input.len());
        let blocks = input.chunks(rows * width).zip(grad.chunks(rows * width));
        for (active, (input, grad)) in hidden.chunks_mut(rows * inner).zip(blocks) {
            let mut d_hidden = weights.input_slope(3, splits, grad, products);
            let sums = self.activation.backward_in_place(active, &mut d_hidden, inner);
            gradients.bias(weights, 2, &sums);
            gradients.weight(weights, 3, (active, grad), products);
            gradients.weight(weights, 2, (input, &d_hidden), products);
            slope.extend_from_slice(&weights.input_slope(2, splits, &d_hidden, products));
        }
        slope
    }

    fn map(&self, i: usize) -> Map<'_> {
        self.weights.map(i, self.splits)
    }
}
