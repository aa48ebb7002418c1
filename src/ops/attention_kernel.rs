//! CPU kernel of rotary causal attention, forward and backward.
//!
//! One task is one head of one example. It reads queries, keys and values where they lie in the packed projection and
//! writes where its results belong. Queries go in blocks of rows, so that a task holds `QUERIES × T` scores at a time and
//! never T × T; the backward makes them anew from the logarithm of each row's sum.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::kernel::{Matrix, Shared, elements, lane_max, lane_sum, matmul, multiply, with_elements};
use super::math::exp;
use super::rotary::{Rotary, turn};
use super::simd::vectorised;

/// Query rows of one block.
const QUERIES: usize = 64;
/// Elements of the widest vector register.
const VECTOR: usize = 16;
/// Rows of a task that turns.
const ROWS: usize = 64;

/// Sizes of packed projections (B, T, H·3·C) and of what attention makes of them (B, T, H·C).
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub tokens: usize,
    pub heads: usize,
    pub channels: usize,
}

/// What attention gives.
pub(super) struct Attended {
    /// (B, T, H·C).
    pub mixed: Vec<f32>,
    /// (B, H, T): of each row of scores the logarithm of the sum of its exponentials.
    pub log_sums: Vec<f32>,
}

impl Sizes {
    fn packed_width(self) -> usize {
        3 * self.heads * self.channels
    }

    fn mixed_width(self) -> usize {
        self.heads * self.channels
    }

    /// Examples and heads of packed rows, one task each.
    fn tasks(self, packed: &[f32]) -> usize {
        packed.len() / (3 * self.channels * self.tokens)
    }

    /// Turns queries and keys of packed rows by the angles of their positions; `direction` −1 turns back.
    pub fn turn(self, packed: &mut [f32], rotary: &Rotary, direction: f32) -> Result<()> {
        let (c, width, half) = (self.channels, self.packed_width(), rotary.rotated() / 2);
        with_elements(rotary.tables(), |[cos, sin]| {
            packed.par_chunks_mut(ROWS * width).enumerate().for_each(|(block, rows)| {
                for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                    let position = (block * ROWS + i) % self.tokens;
                    let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
                    for head in row.chunks_exact_mut(3 * c) {
                        turn(&mut head[..c], cos, sin, direction);
                        turn(&mut head[c..2 * c], cos, sin, direction);
                    }
                }
            });
            Ok(())
        })
    }

    /// Attention over packed rows whose queries and keys are turned.
    pub fn attend(self, turned: &[f32]) -> Attended {
        let mut mixed = Vec::with_capacity(turned.len() / 3);
        let mut log_sums = vec![0f32; self.tasks(turned) * self.tokens];
        // SAFETY: the capacity is that of the result, which is written whole.
        unsafe {
            self.write(turned, &mut log_sums, Shared(mixed.as_mut_ptr()));
            mixed.set_len(turned.len() / 3);
        }
        Attended { mixed, log_sums }
    }

    /// The same into memory that is there: the result, and what it takes to make it.
    pub fn attend_into(self, turned: &[f32], log_sums: &mut [f32], mixed: &mut [f32]) {
        assert_eq!(3 * mixed.len(), turned.len(), "attention: room for the result");
        // SAFETY: there is room for the result.
        unsafe { self.write(turned, log_sums, Shared(mixed.as_mut_ptr())) }
    }

    /// # Safety
    /// `mixed` has room for a third of the elements of `turned`. They are all written.
    unsafe fn write(self, turned: &[f32], log_sums: &mut [f32], mixed: Shared<f32>) {
        assert_eq!(log_sums.len(), self.tasks(turned) * self.tokens, "attention: a sum for every row");
        log_sums.par_chunks_mut(self.tokens).enumerate().for_each_init(
            || self.scratch(),
            |scores, (task, log_sums)| {
                let head = Head::of(self, turned, task);
                // SAFETY: a task writes the columns of its own head in the rows of its own example, for which there is
                // room.
                unsafe { head.forward(scores, log_sums, mixed.at(self.mixed_start(task))) };
            },
        );
    }

    /// The slope of the packed rows whose queries and keys are turned, given that of the result.
    pub fn slopes(self, turned: &[f32], attended: &Attended, grad: &[f32]) -> Vec<f32> {
        let mut packed = Vec::with_capacity(turned.len());
        let place = Shared(packed.as_mut_ptr());
        let log_sums = attended.log_sums.par_chunks(self.tokens).enumerate();
        log_sums.for_each_init(
            || (self.scratch(), self.scratch()),
            |(weights, slopes), (task, log_sums)| {
                let head = Head::of(self, turned, task);
                let start = self.mixed_start(task);
                let (mixed, grad) = (&attended.mixed[start..], &grad[start..]);
                // SAFETY: a task writes the columns of its own head in the rows of its own example, all inside the
                // capacity.
                unsafe {
                    let out = place.at(self.packed_start(task));
                    head.backward((weights, slopes), log_sums, (mixed, grad), out);
                }
            },
        );
        // SAFETY: the tasks have written every element.
        unsafe { packed.set_len(turned.len()) };
        packed
    }

    /// Scores of one block of queries.
    fn scratch(self) -> Vec<f32> {
        vec![0.0; QUERIES.min(self.tokens) * self.tokens]
    }

    fn packed_start(self, task: usize) -> usize {
        task / self.heads * self.tokens * self.packed_width() + task % self.heads * 3 * self.channels
    }

    fn mixed_start(self, task: usize) -> usize {
        task / self.heads * self.tokens * self.mixed_width() + task % self.heads * self.channels
    }
}

/// One head of one example: rows (T, C) of queries, keys and values, as far apart as packed rows.
struct Head<'a> {
    sizes: Sizes,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

impl<'a> Head<'a> {
    fn of(sizes: Sizes, turned: &'a [f32], task: usize) -> Self {
        let (rows, c) = (&turned[sizes.packed_start(task)..], sizes.channels);
        assert!(rows.len() >= (sizes.tokens - 1) * sizes.packed_width() + 3 * c, "attention: rows too short");
        Self { sizes, q: rows, k: &rows[c..], v: &rows[2 * c..] }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.sizes.channels as f32).sqrt()
    }

    /// Rows of packed width.
    fn rows(&self, data: &'a [f32]) -> Matrix<'a> {
        Matrix { data, row_stride: self.sizes.packed_width(), col_stride: 1 }
    }

    /// The same from query `first` on.
    fn queries(&self, first: usize) -> Matrix<'a> {
        self.rows(&self.q[first * self.sizes.packed_width()..])
    }

    /// Scores of queries `first..last` over keys `0..last`, rows `last` apart.
    fn scores(&self, first: usize, last: usize, scores: &mut [f32]) {
        let (size, factors) = ((last - first, self.sizes.channels, last), (0.0, self.scale()));
        matmul(size, factors, self.queries(first), self.rows(self.k).t(), scores, last, Parallelism::None);
    }

    /// Writes the head's columns of the result and the logarithms of its sums.
    ///
    /// # Safety
    /// `out` has room for T rows as far apart as the result's, whose first C elements nobody else uses.
    unsafe fn forward(&self, scores: &mut [f32], log_sums: &mut [f32], out: *mut f32) {
        let Sizes { tokens, channels: c, .. } = self.sizes;
        let stride = self.sizes.mixed_width();
        let mut norms = [0f32; QUERIES];
        for first in (0..tokens).step_by(QUERIES) {
            let last = (first + QUERIES).min(tokens);
            let rows = last - first;
            self.scores(first, last, scores);
            let (log_sums, norms) = (&mut log_sums[first..last], &mut norms[..rows]);
            causal_exp(&mut scores[..rows * last], first, log_sums, norms);
            let weights = Matrix::rows(scores, last);
            // SAFETY: the caller's promise; values reach over the rows, as `of` has checked.
            unsafe {
                let out = out.add(first * stride);
                let size = (rows, last, c);
                multiply(size, (0.0, 1.0), weights, self.rows(self.v).into(), out, stride, Parallelism::None);
                for (i, norm) in norms.iter().enumerate() {
                    let row = std::slice::from_raw_parts_mut(out.add(i * stride), c);
                    row.iter_mut().for_each(|x| *x *= norm);
                }
            }
        }
    }

    /// Writes the slopes of the head's queries, keys and values, given its result and the slope of that.
    ///
    /// # Safety
    /// `out` has room for T rows as far apart as packed ones, whose first 3·C elements nobody else uses.
    unsafe fn backward(
        &self,
        (weights, slopes): (&mut [f32], &mut [f32]),
        log_sums: &[f32],
        (mixed, grad): (&[f32], &[f32]),
        out: *mut f32,
    ) {
        let Sizes { tokens, channels: c, .. } = self.sizes;
        let (wide, stride) = (self.sizes.mixed_width(), self.sizes.packed_width());
        let mut inner = [0f32; QUERIES];
        // The last block sees all keys, so that those before it add to what is there.
        for first in (0..tokens).step_by(QUERIES).rev() {
            let last = (first + QUERIES).min(tokens);
            let (rows, keep) = (last - first, if last == tokens { 0.0 } else { 1.0 });
            self.scores(first, last, weights);
            causal_weights(&mut weights[..rows * last], first, &log_sums[first..last]);
            let (mixed, grad) = (&mixed[first * wide..], &grad[first * wide..]);
            for (i, inner) in inner[..rows].iter_mut().enumerate() {
                *inner = lane_sum([&mixed[i * wide..][..c], &grad[i * wide..][..c]], |[o, g]| o * g);
            }
            let g = Matrix::rows(grad, wide);
            matmul((rows, c, last), (0.0, 1.0), g, self.rows(self.v).t(), slopes, last, Parallelism::None);
            score_slopes(&weights[..rows * last], &mut slopes[..rows * last], &inner[..rows]);
            let (w, s) = (Matrix::rows(weights, last), Matrix::rows(slopes, last));
            let (q, k, scale) = (self.queries(first), self.rows(self.k), self.scale());
            // SAFETY: the caller's promise; the products above have checked how far the operands reach.
            unsafe {
                let [d_q, d_k, d_v] = [out.add(first * stride), out.add(c), out.add(2 * c)];
                multiply((last, rows, c), (keep, 1.0), w.t(), g.into(), d_v, stride, Parallelism::None);
                multiply((rows, last, c), (0.0, scale), s, k.into(), d_q, stride, Parallelism::None);
                multiply((last, rows, c), (keep, scale), s.t(), q.into(), d_k, stride, Parallelism::None);
            }
        }
    }
}

vectorised! {
    /// Turns rows of scores of queries `first..` into exponentials over the keys up to their own, 0 behind them, relative
    /// to each row's largest; gives what normalises each row, and the logarithm of its sum.
    fn causal_exp[](scores: &mut [f32], first: usize, log_sums: &mut [f32], norms: &mut [f32]) {
        let last = scores.len() / norms.len();
        let rows = scores.chunks_exact_mut(last).zip(log_sums).zip(norms);
        for (i, ((row, log_sum), norm)) in rows.enumerate() {
            // The keys that a row may see are topped up to whole vectors with scores that weigh nothing.
            let seen = first + i + 1;
            let whole = seen.next_multiple_of(VECTOR).min(last);
            row[seen..whole].fill(f32::NEG_INFINITY);
            let max = lane_max(&row[..whole]);
            let sum = exponentials(&mut row[..whole], max);
            (*log_sum, *norm) = (max + sum.ln(), 1.0 / sum);
            row[seen..].fill(0.0);
        }
    }
}

/// Turns every x into `e^(x − max)`, and gives the sum.
#[inline(always)]
fn exponentials(row: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0f32; VECTOR];
    let (blocks, rest) = row.as_chunks_mut::<VECTOR>();
    for block in blocks {
        for (x, lane) in block.iter_mut().zip(&mut lanes) {
            *x = exp(*x - max);
            *lane += *x;
        }
    }
    rest.iter_mut().for_each(|x| *x = exp(*x - max));
    lane_sum([&lanes], |[x]| x) + rest.iter().sum::<f32>()
}

vectorised! {
    /// The same weights, normalised, from the logarithms of the sums.
    fn causal_weights[](scores: &mut [f32], first: usize, log_sums: &[f32]) {
        let last = scores.len() / log_sums.len();
        for (i, (row, log_sum)) in scores.chunks_exact_mut(last).zip(log_sums).enumerate() {
            let seen = first + i + 1;
            let whole = seen.next_multiple_of(VECTOR).min(last);
            row[..whole].iter_mut().for_each(|x| *x = exp(*x - log_sum));
            row[seen..].fill(0.0);
        }
    }
}

vectorised! {
    /// Turns the slopes of the weights w into those of the scores, `w⊙(s − Σ w⊙s)`, given the sums.
    fn score_slopes[](weights: &[f32], slopes: &mut [f32], inner: &[f32]) {
        let width = weights.len() / inner.len();
        for ((w, s), inner) in weights.chunks_exact(width).zip(slopes.chunks_exact_mut(width)).zip(inner) {
            s.iter_mut().zip(w).for_each(|(s, w)| *s = w * (*s - inner));
        }
    }
}

/// Attention over a packed projection as an operation of its own.
pub(super) struct Fused {
    rotary: Rotary,
    sizes: Sizes,
    /// Whether a backward may follow.
    keep: bool,
    saved: Mutex<Option<Saved>>,
}

/// What the backward needs: the packed rows, turned, and the forward's result.
type Saved = (Vec<f32>, Attended);

impl Fused {
    pub fn new(qkv: &Tensor, rotary: &Rotary, heads: usize, channels: usize) -> Result<Self> {
        let sizes = Sizes { tokens: qkv.dims3()?.1, heads, channels };
        Ok(Self { rotary: rotary.clone(), sizes, keep: qkv.track_op(), saved: Mutex::new(None) })
    }

    fn run(&self, qkv: &[f32]) -> Result<Saved> {
        let mut turned = qkv.to_vec();
        self.sizes.turn(&mut turned, &self.rotary, 1.0)?;
        let attended = self.sizes.attend(&turned);
        Ok((turned, attended))
    }
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "causal_attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, tokens, width) = layout.shape().dims3()?;
        let (turned, attended) = self.run(elements(qkv, layout)?)?;
        let shape = (batch, tokens, width / 3).into();
        if !self.keep {
            return Ok((CpuStorage::F32(attended.mixed), shape));
        }
        let mixed = attended.mixed.clone();
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some((turned, attended));
        Ok((CpuStorage::F32(mixed), shape))
    }

    fn bwd(&self, qkv: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let packed = with_elements([qkv, &grad], |[qkv, grad]| {
            let (turned, attended) = match self.saved.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(saved) => saved,
                None => self.run(qkv)?,
            };
            let mut packed = self.sizes.slopes(&turned, &attended, grad);
            self.sizes.turn(&mut packed, &self.rotary, -1.0)?;
            Ok(packed)
        })?;
        Tensor::from_vec(packed, qkv.shape(), qkv.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::attention::{causal, composed};
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn kernel_and_definition_agree() -> Result<()> {
        for (batch, tokens, heads, channels, rotated) in
            [(1, 1, 1, 4, 2), (2, 65, 2, 8, 8), (1, 200, 3, 6, 0), (2, 64, 4, 32, 8)]
        {
            let rotary = Rotary::new(rotated, 10_000.0, 256, &Device::Cpu)?;
            let qkv = (random(&[batch, tokens, heads * 3 * channels], 1)? * 3.0)?;
            agrees(&causal(&qkv, &rotary, heads)?, &composed(&qkv, &rotary, heads)?, 1e-5)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_match_finite_differences() -> Result<()> {
        let rotary = Rotary::new(4, 10_000.0, 128, &Device::Cpu)?;
        gradients_agree(&[(random(&[2, 5, 2 * 3 * 6], 1)? * 2.0)?], |v| causal(&v[0], &rotary, 2))
    }

    #[test]
    fn gradients_match_across_query_blocks() -> Result<()> {
        let rotary = Rotary::new(2, 10_000.0, 128, &Device::Cpu)?;
        gradients_agree(&[random(&[1, QUERIES + 6, 3 * 2], 1)?], |v| causal(&v[0], &rotary, 1))
    }

    #[test]
    fn too_many_tokens_are_refused() -> Result<()> {
        let rotary = Rotary::new(2, 10_000.0, 4, &Device::Cpu)?;
        let error = causal(&random(&[1, 5, 6], 1)?, &rotary, 1).unwrap_err().to_string();
        assert!(error.contains("4 positions"), "{error}");
        Ok(())
    }
}
