//! One task of an evaluation: whole sequences on their way through the layer, and back.

use std::mem::MaybeUninit;

use candle_core::Result;
use gemm::Parallelism;

use super::super::attention_kernel::{Attended, Sizes};
use super::super::kernel::column_sums;
use super::super::linear::affine;
use super::super::{Activation, Rotary};
use super::modulation::Modulation;
use super::weights::View;
use super::{gates, norms};

/// What a task needs to know. R: its rows.
pub(super) struct Task<'a> {
    pub weights: &'a View<'a>,
    /// Of the task's own sequences.
    pub modulation: Modulation,
    pub rotary: &'a Rotary,
    pub sizes: Sizes,
    pub eps: f32,
    pub activation: Activation,
    pub on_x: bool,
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

/// What a backward leaves behind.
pub(super) struct Slopes {
    /// Those of the rows that norms and gates multiply by.
    pub modulation: Modulation,
    /// What the gradients of the four maps are made of.
    pub maps: [MapSlope; 4],
}

/// A map's input (R, I), the slope of its result (R, O), and the sums of that one's columns.
pub(super) struct MapSlope {
    pub input: Vec<f32>,
    pub grad: Vec<f32>,
    pub sums: Vec<f32>,
}

impl Task<'_> {
    /// Writes the result for the rows of x.
    pub fn forward(&self, x: &[f32], u: &mut [MaybeUninit<f32>]) -> Result<Saved> {
        let Self { modulation, sizes, .. } = self;
        let normal = norms::forward(x, modulation, self.eps);
        let mut turned = self.map(0, &normal[0]);
        sizes.turn(&mut turned, self.rotary, 1.0)?;
        let attended = sizes.attend(&turned);
        let attention = self.map(1, &attended.mixed);
        let hidden = self.map(2, &normal[1]);
        let mlp = self.map(3, &self.activation.of(&hidden));
        let branches = [attention, mlp];
        gates::forward(u, &branches, modulation, self.on_x.then_some(x));
        Ok(Saved { normal, turned, attended, branches, hidden })
    }

    /// Writes the slope of x, given x and the slope of the result.
    pub fn backward(
        &self,
        (x, grad): (&[f32], &[f32]),
        saved: Saved,
        dx: &mut [MaybeUninit<f32>],
    ) -> Result<Slopes> {
        let Self { weights, modulation, sizes, .. } = self;
        let Saved { normal: [first, second], turned, attended, branches, hidden } = saved;
        let mut slopes = modulation.zeros();
        let [d_attention, d_mlp] = gates::backward(branches, grad, modulation, &mut slopes);
        let [attention_sums, mlp_sums] = [0, 1].map(|branch| slopes.branch_sums(modulation, branch));

        let (mut active, mut d_hidden) = (hidden, weights.input_slope(3, &d_mlp, self.products));
        let inner = weights.part(3).inputs;
        let hidden_sums = self.activation.backward_in_place(&mut active, &mut d_hidden, inner);
        let d_second = weights.input_slope(2, &d_hidden, self.products);

        let d_mixed = weights.input_slope(1, &d_attention, self.products);
        let mut d_packed = sizes.slopes(&turned, &attended, &d_mixed);
        drop((turned, d_mixed));
        sizes.turn(&mut d_packed, self.rotary, -1.0)?;
        let packed_sums = column_sums(&d_packed, weights.part(0).outputs);
        let d_first = weights.input_slope(0, &d_packed, self.products);

        let branches = [d_first, d_second];
        let on_x = self.on_x.then_some(grad);
        norms::backward((x, on_x), branches, (modulation, self.eps), &mut slopes, dx);
        let map = |input, grad, sums| MapSlope { input, grad, sums };
        let maps = [
            map(first, d_packed, packed_sums),
            map(attended.mixed, d_attention, attention_sums),
            map(second, d_hidden, hidden_sums),
            map(active, d_mlp, mlp_sums),
        ];
        Ok(Slopes { modulation: slopes, maps })
    }

    fn map(&self, i: usize, input: &[f32]) -> Vec<f32> {
        let (weights, part) = (self.weights, self.weights.part(i));
        affine(input, weights.weight(i), weights.bias(i), (part.outputs, part.inputs), self.products)
    }
}
