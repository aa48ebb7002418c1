//! CPU kernel of rotary causal attention, forward and backward.
//!
//! One task is one head of one example. Queries go in blocks of rows, so that a task holds
//! `QUERIES × T` scores at a time and never T × T; the backward recomputes them.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::kernel::{Matrix, elements, lane_max, lane_sum, matmul, with_elements};
use super::math::exp;
use super::rotary::{Rotary, turn};
use super::simd::vectorised;

/// Query rows of one block.
const QUERIES: usize = 64;
/// Elements of the widest vector register.
const VECTOR: usize = 16;

pub(super) struct Fused {
    pub rotary: Rotary,
    pub heads: usize,
    pub channels: usize,
}

/// One head of one example: queries (already divided by √C), keys and values, each (T, C).
struct Head {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Fused {
    /// Copies one head out of the packed rows and turns its queries and keys.
    fn load(&self, qkv: &[f32], task: usize, tokens: usize, cos: &[f32], sin: &[f32]) -> Head {
        let (c, width) = (self.channels, 3 * self.heads * self.channels);
        let (example, head) = (task / self.heads, task % self.heads);
        let half = self.rotary.rotated() / 2;
        let scale = 1.0 / (c as f32).sqrt();
        let mut out = Head { q: vec![0.0; tokens * c], k: vec![0.0; tokens * c], v: vec![0.0; tokens * c] };
        for t in 0..tokens {
            let packed = &qkv[(example * tokens + t) * width + head * 3 * c..][..3 * c];
            let row = t * c..(t + 1) * c;
            let (cos, sin) = (&cos[t * half..][..half], &sin[t * half..][..half]);
            let q = &mut out.q[row.clone()];
            q.copy_from_slice(&packed[..c]);
            turn(q, cos, sin, 1.0);
            q.iter_mut().for_each(|x| *x *= scale);
            let k = &mut out.k[row.clone()];
            k.copy_from_slice(&packed[c..2 * c]);
            turn(k, cos, sin, 1.0);
            out.v[row].copy_from_slice(&packed[2 * c..]);
        }
        out
    }

    /// The attention weights of queries `first..last` over keys `0..last`, rows `last` apart.
    fn weights(&self, head: &Head, first: usize, last: usize, weights: &mut [f32]) {
        let c = self.channels;
        let q = Matrix::rows(&head.q[first * c..last * c], c);
        let k = Matrix::rows(&head.k[..last * c], c).t();
        matmul((last - first, c, last), (0.0, 1.0), q, k, weights, last, Parallelism::None);
        causal_softmax(&mut weights[..(last - first) * last], first, last);
    }

    /// Output rows (T, C) of one head.
    fn forward(&self, head: &Head, tokens: usize) -> Vec<f32> {
        let c = self.channels;
        let mut out = vec![0f32; tokens * c];
        let mut weights = vec![0f32; QUERIES.min(tokens) * tokens];
        for first in (0..tokens).step_by(QUERIES) {
            let last = (first + QUERIES).min(tokens);
            self.weights(head, first, last, &mut weights);
            let v = Matrix::rows(&head.v[..last * c], c);
            let w = Matrix::rows(&weights, last);
            matmul((last - first, last, c), (0.0, 1.0), w, v, &mut out[first * c..], c, Parallelism::None);
        }
        out
    }

    /// Gradients (T, C) of q, k and v of one head, given its inputs and the gradient (T, C) of its output.
    fn backward(&self, head: &Head, grad: &[f32], tokens: usize) -> Head {
        let c = self.channels;
        let mut d = Head { q: vec![0.0; tokens * c], k: vec![0.0; tokens * c], v: vec![0.0; tokens * c] };
        let size = QUERIES.min(tokens) * tokens;
        let (mut weights, mut slopes) = (vec![0f32; size], vec![0f32; size]);
        for first in (0..tokens).step_by(QUERIES) {
            let last = (first + QUERIES).min(tokens);
            let rows = last - first;
            self.weights(head, first, last, &mut weights);
            let g = Matrix::rows(&grad[first * c..last * c], c);
            let w = Matrix::rows(&weights, last);
            matmul((last, rows, c), (1.0, 1.0), w.t(), g, &mut d.v, c, Parallelism::None);
            let v = Matrix::rows(&head.v[..last * c], c);
            matmul((rows, c, last), (0.0, 1.0), g, v.t(), &mut slopes, last, Parallelism::None);
            softmax_backward(&weights[..rows * last], &mut slopes[..rows * last], last);
            let s = Matrix::rows(&slopes, last);
            let k = Matrix::rows(&head.k[..last * c], c);
            matmul((rows, last, c), (0.0, 1.0), s, k, &mut d.q[first * c..], c, Parallelism::None);
            let q = Matrix::rows(&head.q[first * c..last * c], c);
            matmul((last, rows, c), (1.0, 1.0), s.t(), q, &mut d.k, c, Parallelism::None);
        }
        d
    }

    /// Turns the gradients back to the unrotated channels and undoes the division by √C.
    fn unturn(&self, d: &mut Head, tokens: usize, cos: &[f32], sin: &[f32]) {
        let (c, half) = (self.channels, self.rotary.rotated() / 2);
        let scale = 1.0 / (c as f32).sqrt();
        for t in 0..tokens {
            let row = t * c..(t + 1) * c;
            let (cos, sin) = (&cos[t * half..][..half], &sin[t * half..][..half]);
            let q = &mut d.q[row.clone()];
            q.iter_mut().for_each(|x| *x *= scale);
            turn(q, cos, sin, -1.0);
            turn(&mut d.k[row], cos, sin, -1.0);
        }
    }
}

/// All heads of all examples, with the rotary tables cos and sin.
impl Fused {
    /// The attention's result (B, T, H·C).
    pub fn attend(&self, qkv: &[f32], tokens: usize, [cos, sin]: [&[f32]; 2]) -> Vec<f32> {
        let (c, h) = (self.channels, self.heads);
        let batch = qkv.len() / (3 * h * c * tokens);
        let run = |task| self.forward(&self.load(qkv, task, tokens, cos, sin), tokens);
        let heads: Vec<Vec<f32>> = (0..batch * h).into_par_iter().map(run).collect();
        let mut out = vec![0f32; batch * tokens * h * c];
        out.par_chunks_mut(h * c).enumerate().with_min_len(64).for_each(|(row, out)| {
            let (example, t) = (row / tokens, row % tokens);
            for (head, out) in heads[example * h..][..h].iter().zip(out.chunks_exact_mut(c)) {
                out.copy_from_slice(&head[t * c..][..c]);
            }
        });
        out
    }

    /// The slope (B, T, H·3·C) of the packed projection, given that of the result.
    pub fn slopes(&self, qkv: &[f32], grad: &[f32], tokens: usize, [cos, sin]: [&[f32]; 2]) -> Vec<f32> {
        let (c, h) = (self.channels, self.heads);
        let run = |task: usize| {
            let (example, head) = (task / h, task % h);
            let mut own = vec![0f32; tokens * c];
            for (t, row) in own.chunks_exact_mut(c).enumerate() {
                row.copy_from_slice(&grad[((example * tokens + t) * h + head) * c..][..c]);
            }
            let mut d = self.backward(&self.load(qkv, task, tokens, cos, sin), &own, tokens);
            self.unturn(&mut d, tokens, cos, sin);
            d
        };
        let heads: Vec<Head> = (0..qkv.len() / (3 * c * tokens)).into_par_iter().map(run).collect();
        let mut packed = vec![0f32; qkv.len()];
        packed.par_chunks_mut(3 * h * c).enumerate().with_min_len(64).for_each(|(row, out)| {
            let (example, t) = (row / tokens, row % tokens);
            for (head, out) in heads[example * h..][..h].iter().zip(out.chunks_exact_mut(3 * c)) {
                out[..c].copy_from_slice(&head.q[t * c..][..c]);
                out[c..2 * c].copy_from_slice(&head.k[t * c..][..c]);
                out[2 * c..].copy_from_slice(&head.v[t * c..][..c]);
            }
        });
        packed
    }
}

vectorised! {
    /// Softmax of each row of scores (rows `last` apart, of queries `first..`) over the keys up to its own.
    fn causal_softmax[](scores: &mut [f32], first: usize, last: usize) {
        for (i, row) in scores.chunks_exact_mut(last).enumerate() {
            // The keys that a row may see are topped up to whole vectors with scores that weigh nothing.
            let seen = first + i + 1;
            let whole = seen.next_multiple_of(VECTOR).min(last);
            row[seen..whole].fill(f32::NEG_INFINITY);
            softmax(&mut row[..whole]);
            row[seen..].fill(0.0);
        }
    }
}

vectorised! {
    /// Turns the slopes of the weights w into those of the scores: `w⊙(s − Σ w⊙s)`.
    fn softmax_backward[](weights: &[f32], slopes: &mut [f32], width: usize) {
        for (w, s) in weights.chunks_exact(width).zip(slopes.chunks_exact_mut(width)) {
            let inner = lane_sum([w, &*s], |[w, s]| w * s);
            s.iter_mut().zip(w).for_each(|(s, w)| *s = w * (*s - inner));
        }
    }
}

#[inline(always)]
fn softmax(x: &mut [f32]) {
    let max = lane_max(x);
    x.iter_mut().for_each(|x| *x = exp(*x - max));
    let norm = 1.0 / lane_sum([&*x], |[x]| x);
    x.iter_mut().for_each(|x| *x *= norm);
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "causal_attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = elements(qkv, layout)?;
        let (batch, tokens, _) = layout.shape().dims3()?;
        let out = with_elements(self.rotary.tables(), |tables| Ok(self.attend(qkv, tokens, tables)))?;
        Ok((CpuStorage::F32(out), (batch, tokens, self.heads * self.channels).into()))
    }

    fn bwd(&self, qkv: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (tokens, grad) = (qkv.dims3()?.1, grad.contiguous()?);
        let [cos, sin] = self.rotary.tables();
        let packed = with_elements([qkv, &grad, cos, sin], |[qkv, grad, cos, sin]| {
            Ok(self.slopes(qkv, grad, tokens, [cos, sin]))
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
