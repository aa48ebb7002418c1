//! Muon: momentum made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use super::descent::refill;
use super::optimizer::{Optimizer, clipping, distinct, gradient_of, saved};
use super::orthogonal::orthogonal;
use super::{AdamW, AdamWOptions, check};
use crate::ops::adamw::squared_norm;

/// Muon's usual momentum μ.
pub const MOMENTUM: f64 = 0.95;
/// Brings an orthogonal update's root mean square to that of AdamW's, so that both take one learning rate
/// (Liu et al., arXiv 2502.16982).
const RMS: f64 = 0.2;

/// Muon for matrices, AdamW for everything else.
///
/// `M ← μM + G`, `W ← W·(1 − lr·λ) − lr·0.2·√max(rows, columns)·orthogonal(G + μM)`.
///
/// Matrices of one shape are updated in one go, so that an accelerator is given one product for all layers, not one for
/// each.
pub struct Muon {
    stacks: Vec<Stack>,
    rest: AdamW,
    momentum: f64,
    weight_decay: f64,
}

/// All matrices of one shape.
struct Stack {
    members: Vec<Member>,
    /// Momentum (members, rows, columns), f32.
    momentum: Var,
}

struct Member {
    name: String,
    parameter: Var,
    /// Its part of the momentum, in the same memory.
    momentum: Tensor,
}

impl Muon {
    /// An optimizer of named parameters. AdamW updates what is no matrix or has a name that is not `chosen`; `adamw`
    /// holds its coefficients, and the weight decay of all.
    ///
    /// # Errors
    /// If a coefficient lies outside its range or a parameter is given twice.
    pub fn new(
        parameters: &[(String, Var)],
        chosen: impl Fn(&str) -> bool,
        momentum: f64,
        adamw: AdamWOptions,
    ) -> Result<Self> {
        check::share("momentum", momentum)?;
        distinct(parameters)?;
        let (matrices, rest): (Vec<_>, Vec<_>) =
            parameters.iter().cloned().partition(|(name, parameter)| parameter.rank() == 2 && chosen(name));
        let mut groups: Vec<Vec<(String, Var)>> = Vec::new();
        for matrix in matrices {
            let alike = |group: &&mut Vec<(String, Var)>| {
                let (other, own) = (&group[0].1, &matrix.1);
                other.dims() == own.dims() && other.dtype() == own.dtype()
            };
            match groups.iter_mut().find(alike) {
                Some(group) => group.push(matrix),
                None => groups.push(vec![matrix]),
            }
        }
        let stacks = groups.into_iter().map(Stack::new).collect::<Result<_>>()?;
        let weight_decay = adamw.weight_decay;
        Ok(Self { stacks, rest: AdamW::new(&rest, adamw)?, momentum, weight_decay })
    }
}

impl Optimizer for Muon {
    fn step(&mut self, gradients: &GradStore, lr: f64, clip: Option<f64>) -> Result<f64> {
        let stacked: Vec<Tensor> =
            self.stacks.iter().map(|stack| stack.gradient(gradients)).collect::<Result<_>>()?;
        let mut square = 0.0;
        for gradient in &stacked {
            square += squared_norm(gradient)?;
        }
        let norm = self.rest.step_beside(square, gradients, lr, clip)?;
        let scale = clipping(norm, clip);
        for (stack, gradient) in self.stacks.iter().zip(stacked) {
            stack.step(&(gradient * scale)?, self.momentum, lr, 1.0 - lr * self.weight_decay)?;
        }
        Ok(norm)
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let members = self.stacks.iter().flat_map(|stack| &stack.members);
        let momentum = members.map(|member| (member.saved_as(), member.momentum.clone()));
        momentum.chain(self.rest.tensors()).collect()
    }

    fn restore(&mut self, steps: u64, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.stacks.iter().try_for_each(|stack| stack.restore(tensors))?;
        self.rest.restore(steps, tensors)
    }
}

impl Stack {
    /// Of matrices of one shape and type, at least one.
    fn new(matrices: Vec<(String, Var)>) -> Result<Self> {
        let first = &matrices[0].1;
        let (rows, columns) = first.dims2()?;
        let momentum = Var::zeros((matrices.len(), rows, columns), DType::F32, first.device())?;
        let member = |(at, (name, parameter)): (usize, (String, Var))| {
            Ok(Member { name, parameter, momentum: momentum.as_detached_tensor().get(at)? })
        };
        let members = matrices.into_iter().enumerate().map(member).collect::<Result<_>>()?;
        Ok(Self { members, momentum })
    }

    /// The members' gradients, f32.
    fn gradient(&self, gradients: &GradStore) -> Result<Tensor> {
        let of = |member: &Member| Ok(gradient_of(gradients, &member.name, &member.parameter)?.detach());
        let all: Vec<Tensor> = self.members.iter().map(of).collect::<Result<_>>()?;
        Ok(Tensor::stack(&all, 0)?.to_dtype(DType::F32)?)
    }

    /// `keep` is what the weight decay leaves of the weights.
    fn step(&self, gradient: &Tensor, momentum: f64, lr: f64, keep: f64) -> Result<()> {
        let m = self.momentum.as_detached_tensor();
        let next = ((&m * momentum)? + gradient)?;
        let nesterov = (gradient + (&next * momentum)?)?;
        self.momentum.set(&next)?;
        let (_, rows, columns) = nesterov.dims3()?;
        let rate = lr * RMS * (rows.max(columns) as f64).sqrt();
        let weights: Vec<Tensor> =
            self.members.iter().map(|member| member.parameter.as_detached_tensor()).collect();
        let weights = Tensor::stack(&weights, 0)?;
        let direction = (orthogonal(&nesterov)? * rate)?.to_dtype(weights.dtype())?;
        let moved = ((weights * keep)? - direction)?;
        for (at, member) in self.members.iter().enumerate() {
            member.parameter.set(&moved.get(at)?)?;
        }
        Ok(())
    }

    fn restore(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let momenta: Vec<&Tensor> =
            self.members.iter().map(|member| saved(tensors, &member.saved_as())).collect::<Result<_>>()?;
        let what = || format!("{} and matrices of its shape", self.members[0].saved_as());
        refill(&self.momentum, &Tensor::stack(&momenta, 0).with_context(what)?).with_context(what)
    }
}

impl Member {
    fn saved_as(&self) -> String {
        format!("m.{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::check::{agrees, random};

    #[test]
    fn it_solves_least_squares_and_moves_vectors_by_adamw() -> Result<()> {
        let (w, b) =
            (Var::zeros((4, 3), DType::F32, &Device::Cpu)?, Var::zeros(4, DType::F32, &Device::Cpu)?);
        let (x, y) = (random(&[50, 3], 1)?, random(&[3, 4], 2)?);
        let y = (x.matmul(&y)? + 0.5)?;
        let parameters = [("w".into(), w.clone()), ("b".into(), b.clone())];
        let mut muon = Muon::new(&parameters, |_| true, 0.95, AdamWOptions::default())?;
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

    /// Three matrices, two of one shape, in different places of the list.
    fn matrices() -> Result<Vec<(String, Var)>> {
        let shapes = [("a", [6, 20]), ("b", [20, 6]), ("c", [6, 20])];
        let matrix = |(at, (name, shape)): (usize, (&str, [usize; 2]))| {
            Ok((name.to_owned(), Var::from_tensor(&random(&shape, at as u64)?)?))
        };
        shapes.into_iter().enumerate().map(matrix).collect()
    }

    /// Some steps down a loss whose gradients differ from step to step.
    fn walk(muon: &mut Muon, parameters: &[(String, Var)]) -> Result<()> {
        for step in 0..4 {
            let mut loss = Tensor::zeros((), DType::F32, &Device::Cpu)?;
            for (at, (_, w)) in parameters.iter().enumerate() {
                let seed = 7 * (w.dim(0)? as u64) + step + 100 * at as u64;
                loss = (loss + (w.as_tensor() * random(w.dims(), seed)?)?.sqr()?.sum_all()?)?;
            }
            muon.step(&loss.backward()?, 0.05, None)?;
        }
        Ok(())
    }

    #[test]
    fn matrices_of_one_shape_move_as_each_does_alone() -> Result<()> {
        let decay = || AdamWOptions { weight_decay: 0.1, ..AdamWOptions::default() };
        let (stacked, alone) = (matrices()?, matrices()?);
        walk(&mut Muon::new(&stacked, |_| true, 0.95, decay())?, &stacked)?;
        for (at, (name, together)) in stacked.iter().enumerate() {
            // The others stay on the list, so that the gradients are the same, but AdamW takes them.
            let parameters = matrices()?;
            let mut muon = Muon::new(&parameters, |other| other == name, 0.95, decay())?;
            walk(&mut muon, &parameters)?;
            agrees(&parameters[at].1, together, 1e-6)?;
            let moved = (together.as_tensor() - alone[at].1.as_tensor())?.abs()?.max_all()?;
            assert!(moved.to_scalar::<f32>()? > 0.01, "{name} stayed where it was");
        }
        Ok(())
    }

    #[test]
    fn momentum_is_saved_by_matrix_and_restored() -> Result<()> {
        let parameters = matrices()?;
        let mut muon = Muon::new(&parameters, |_| true, 0.95, AdamWOptions::default())?;
        walk(&mut muon, &parameters)?;
        let mut saved: HashMap<String, Tensor> = muon.tensors().into_iter().collect();
        assert_eq!(saved["m.b"].dims(), [20, 6]);
        let mut fresh = Muon::new(&parameters, |_| true, 0.95, AdamWOptions::default())?;
        fresh.restore(4, &saved)?;
        for (name, momentum) in fresh.tensors() {
            assert_eq!(momentum.to_vec2::<f32>()?, saved[&name].to_vec2::<f32>()?, "{name}");
        }
        saved.remove("m.c");
        let error = fresh.restore(4, &saved).unwrap_err().to_string();
        assert!(error.contains("the checkpoint holds no m.c"), "{error}");
        Ok(())
    }
}
