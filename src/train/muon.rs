//! Muon: momentum made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

use std::collections::HashMap;

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use super::optimizer::{Gradients, Optimizer, Slots, refill_all, zeros};
use super::{AdamWOptions, check};
use crate::ops::adamw::{Update, adamw};

/// Muon's usual momentum μ.
pub const MOMENTUM: f64 = 0.95;
/// Coefficients of the quintic Newton–Schulz iteration `X ← aX + (bA + cA²)X` with `A = XXᵀ`, which drives the
/// singular values towards 1.
const QUINTIC: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
const ITERATIONS: usize = 5;
/// Brings an orthogonal update's root mean square to that of AdamW's, so that both take one learning rate
/// (Liu et al., arXiv 2502.16982).
const RMS: f64 = 0.2;

/// Muon for matrices, AdamW for everything else.
///
/// `M ← μM + G`, `W ← W·(1 − lr·λ) − lr·0.2·√max(rows, columns)·orthogonal(G + μM)`.
pub struct Muon {
    slots: Slots<Memory>,
    momentum: f64,
    adamw: AdamWOptions,
    step: u64,
}

/// Momentum of a matrix; AdamW's two moments of anything else.
struct Memory {
    m: Var,
    v: Option<Var>,
}

impl Muon {
    /// An optimizer of named parameters; `adamw` holds the coefficients of those that are no matrices, and the
    /// weight decay of all.
    ///
    /// # Errors
    /// If a coefficient lies outside its range or a parameter is given twice.
    pub fn new(parameters: &[(String, Var)], momentum: f64, adamw: AdamWOptions) -> Result<Self> {
        check::share("momentum", momentum)?;
        adamw.validate()?;
        let slots = Slots::new(parameters, |parameter| {
            let v = (parameter.rank() != 2).then(|| zeros(parameter)).transpose()?;
            Ok(Memory { m: zeros(parameter)?, v })
        })?;
        Ok(Self { slots, momentum, adamw, step: 0 })
    }

    fn memory(&self) -> impl Iterator<Item = (String, &Var)> {
        self.slots
            .named("m", |memory| Some(&memory.m))
            .chain(self.slots.named("v", |memory| memory.v.as_ref()))
    }
}

impl Optimizer for Muon {
    fn step(&mut self, gradients: &GradStore, lr: f64, clip: Option<f64>) -> Result<f64> {
        let Gradients { pairs, norm, scale } = self.slots.gradients(gradients, clip)?;
        let AdamWOptions { betas: (beta1, beta2), eps, weight_decay } = self.adamw;
        self.step += 1;
        let update = Update { lr, beta1, beta2, eps, weight_decay, step: self.step, gradient_scale: scale };
        for (slot, gradient) in pairs {
            let w = &slot.parameter;
            let Memory { m, v } = &slot.memory;
            if let Some(v) = v {
                adamw(w, gradient, m, v, &update)?;
                continue;
            }
            let gradient = (gradient.to_dtype(DType::F32)? * scale)?;
            m.set(&((m.as_tensor() * self.momentum)? + &gradient)?)?;
            let nesterov = (&gradient + (m.as_tensor() * self.momentum)?)?;
            let (rows, columns) = w.dims2()?;
            let rate = lr * RMS * (rows.max(columns) as f64).sqrt();
            let direction = (orthogonal(&nesterov)? * rate)?.to_dtype(w.dtype())?;
            w.set(&((w.as_tensor() * (1.0 - lr * weight_decay))? - direction)?.detach())?;
        }
        Ok(norm)
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        self.memory().map(|(name, memory)| (name, memory.as_detached_tensor())).collect()
    }

    fn restore(&mut self, steps: u64, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.step = steps;
        refill_all(self.memory(), tensors)
    }
}

/// Nearly `UVᵀ` of a matrix `USVᵀ`: singular values come to lie between about 0.7 and 1.2.
fn orthogonal(matrix: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    let tall = rows > columns;
    let mut x = if tall { matrix.t()?.contiguous()? } else { matrix.clone() };
    let norm = (x.sqr()?.sum_all()?.sqrt()? + 1e-7)?;
    x = x.broadcast_div(&norm)?;
    let (a, b, c) = QUINTIC;
    for _ in 0..ITERATIONS {
        let square = x.matmul(&x.t()?)?;
        let polynomial = ((&square * b)? + (square.matmul(&square)? * c)?)?;
        x = ((&x * a)? + polynomial.matmul(&x)?)?;
    }
    Ok(if tall { x.t()?.contiguous()? } else { x })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::check::random;

    #[test]
    fn updates_are_nearly_orthogonal_and_point_with_the_matrix() -> Result<()> {
        for shape in [[6, 20], [20, 6]] {
            let matrix = random(&shape, 1)?;
            let x = orthogonal(&matrix)?;
            let wide = if shape[0] < shape[1] { x.clone() } else { x.t()?.contiguous()? };
            let gram = wide.matmul(&wide.t()?)?.to_vec2::<f32>()?;
            for (i, row) in gram.iter().enumerate() {
                for (j, value) in row.iter().enumerate() {
                    let error = if i == j { value - 1.0 } else { *value };
                    assert!(error.abs() < 0.55, "entry {i}, {j} of the Gram matrix is {value}");
                }
            }
            assert!((matrix * x)?.sum_all()?.to_scalar::<f32>()? > 0.0);
        }
        Ok(())
    }

    #[test]
    fn it_solves_least_squares_and_moves_vectors_by_adamw() -> Result<()> {
        let (w, b) =
            (Var::zeros((4, 3), DType::F32, &Device::Cpu)?, Var::zeros(4, DType::F32, &Device::Cpu)?);
        let (x, y) = (random(&[50, 3], 1)?, random(&[3, 4], 2)?);
        let y = (x.matmul(&y)? + 0.5)?;
        let mut muon =
            Muon::new(&[("w".into(), w.clone()), ("b".into(), b.clone())], 0.95, AdamWOptions::default())?;
        let loss =
            || -> Result<Tensor> { Ok((x.matmul(&w.t()?)?.broadcast_add(&b)? - &y)?.sqr()?.mean_all()?) };
        let first = loss()?.to_scalar::<f32>()?;
        for step in 0..300 {
            muon.step(&loss()?.backward()?, 0.1 * (1.0 - step as f64 / 300.0), None)?;
        }
        let last = loss()?.to_scalar::<f32>()?;
        assert!(last < 1e-3 * first, "{first} → {last}");
        Ok(())
    }
}
