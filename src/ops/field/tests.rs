//! The operation against its definition, composed of the other operations, and against finite differences.

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Result, Shape, Tensor, Var};

use super::{Setting, Sum, Weights, field};
use crate::ops::check::{agrees, gradients_agree, random};
use crate::ops::{self, Activation, Rotary};

/// Width, heads and hidden width of a small layer.
const SMALL: (usize, usize, usize) = (4, 2, 6);

fn setting(heads: usize, activation: Activation) -> Result<Setting> {
    Ok(Setting { rotary: Rotary::new(2, 10_000.0, 512, &Device::Cpu)?, heads, eps: 1e-5, activation })
}

/// x, projection and the twelve weights; norms near one, so that the slopes are of one size.
fn operands(
    (d, _, inner): (usize, usize, usize),
    (batch, tokens): (usize, usize),
    groups: usize,
) -> Result<Vec<Tensor>> {
    let shapes: [&[usize]; 14] = [
        &[batch, tokens, d],
        &[groups, 6 * d],
        &[d],
        &[d],
        &[d],
        &[d],
        &[3 * d, d],
        &[3 * d],
        &[d, d],
        &[d],
        &[inner, d],
        &[inner],
        &[d, inner],
        &[d],
    ];
    shapes.iter().enumerate().map(|(i, shape)| random(shape, i as u64 + 1)).collect()
}

fn weights(v: &[Tensor]) -> Result<Weights> {
    let map = |i: usize| (&v[i], Some(&v[i + 1]));
    Weights::new([(&v[2], &v[3]), (&v[4], &v[5])], [map(6), map(8), map(10), map(12)])
}

/// The definition, in any dtype.
fn composed(v: &[Tensor], x: &Tensor, sum: &Sum, setting: &Setting) -> Result<Tensor> {
    let d = x.dim(D::Minus1)?;
    let row = |i: usize| v[1].narrow(1, i * d, d);
    let norm = |branch: usize| {
        let gain = (row(2 * branch)? + 1.0)?;
        let (weight, bias) = (&v[2 + 2 * branch], &v[3 + 2 * branch]);
        let shift = (gain.broadcast_mul(bias)? + row(2 * branch + 1)?)?;
        ops::layer_norm(x, &gain.broadcast_mul(weight)?, &shift, setting.eps)
    };
    let map = |i: usize, x: &Tensor| ops::linear(x, &v[i], Some(&v[i + 1]));
    let mixed = ops::attention::causal(&map(6, &norm(0)?)?, &setting.rotary, setting.heads)?;
    let mlp = map(12, &setting.activation.apply(&map(10, &norm(1)?)?)?)?;
    let gates = Tensor::stack(&[row(4)?, row(5)?], 1)?;
    let u = (ops::gated_sum(&map(8, &mixed)?, &mlp, &gates)? * sum.factor)?;
    let u = match &sum.length {
        Some(length) => u.broadcast_mul(&length.to_dtype(u.dtype())?.reshape(((), 1, 1))?)?,
        None => u,
    };
    if sum.on_x { x + u } else { Ok(u) }
}

/// The operation where it applies, else its definition.
fn either(v: &[Tensor], weights: &Weights, x: &Tensor, sum: &Sum, setting: &Setting) -> Result<Tensor> {
    match field(x, &v[1], weights, sum, setting)? {
        Some(u) => Ok(u),
        None => composed(v, x, sum, setting),
    }
}

fn plain() -> Sum {
    Sum { length: None, factor: 1.0, on_x: false }
}

#[test]
fn operation_and_definition_agree() -> Result<()> {
    for (layer, (batch, tokens), groups) in [
        (SMALL, (2, 3), 2),
        ((12, 3, 7), (2, 70), 1),
        ((32, 2, 128), (3, 130), 3),
        ((256, 4, 1024), (1, 300), 1),
    ] {
        let v = operands(layer, (batch, tokens), groups)?;
        let length = random(&[groups], 50)?;
        for activation in [Activation::Gelu, Activation::GeluNew, Activation::Relu, Activation::Silu] {
            let setting = setting(layer.1, activation)?;
            for sum in [plain(), Sum { length: Some(length.clone()), factor: 0.5, on_x: true }] {
                let u =
                    field(&v[0], &v[1], &weights(&v)?, &sum, &setting)?.expect("operands that are covered");
                agrees(&u, &composed(&v, &v[0], &sum, &setting)?, 1e-5)?;
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_match_finite_differences() -> Result<()> {
    for groups in [1, 2] {
        let v = operands(SMALL, (2, 3), groups)?;
        let length = random(&[groups], 50)?;
        for activation in [Activation::Gelu, Activation::GeluNew, Activation::Silu] {
            let setting = setting(SMALL.1, activation)?;
            for sum in [plain(), Sum { length: Some(length.clone()), factor: 0.5, on_x: true }] {
                gradients_agree(&v, |v| either(v, &weights(v)?, &v[0], &sum, &setting))?;
            }
        }
    }
    Ok(())
}

#[test]
fn evaluations_gather_the_gradients_of_shared_weights() -> Result<()> {
    let (v, setting) = (operands(SMALL, (2, 3), 2)?, setting(SMALL.1, Activation::Gelu)?);
    let on_x = Sum { on_x: true, ..plain() };
    gradients_agree(&v, |v| {
        let weights = weights(v)?;
        let middle = either(v, &weights, &v[0], &on_x, &setting)?;
        &v[0] + either(v, &weights, &middle, &plain(), &setting)?
    })
}

/// Over many rows, so that sums are made of parts and products are large.
#[test]
fn gradients_are_those_of_the_definition_at_size() -> Result<()> {
    let layer = (64, 4, 256);
    let setting = setting(layer.1, Activation::Gelu)?;
    let vars: Vec<Var> = operands(layer, (3, 150), 3)?.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let v: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let found = field(&v[0], &v[1], &weights(&v)?, &plain(), &setting)?.expect("operands that are covered");
    let expected = composed(&v, &v[0], &plain(), &setting)?;
    let (found, expected) = (found.sqr()?.mean_all()?.backward()?, expected.sqr()?.mean_all()?.backward()?);
    for (i, var) in vars.iter().enumerate() {
        let (Some(found), Some(expected)) = (found.get(var), expected.get(var)) else {
            panic!("operand {i} received no gradient")
        };
        let largest = expected.abs()?.flatten_all()?.max(0)?;
        agrees(&found.broadcast_div(&largest)?, &expected.broadcast_div(&largest)?, 1e-4)?;
    }
    Ok(())
}

#[test]
fn passes_neither_share_nor_lose_gradients() -> Result<()> {
    let setting = setting(SMALL.1, Activation::Gelu)?;
    let v = operands(SMALL, (2, 3), 1)?;
    let w = Var::from_tensor(&v[12])?;
    let mut tracked = v.clone();
    tracked[12] = w.as_tensor().clone();
    let weights = weights(&tracked)?;
    let loss =
        || field(&v[0], &v[1], &weights, &plain(), &setting)?.expect("operands that are covered").sum_all();
    let gradient = |loss: &Tensor| -> Result<Tensor> {
        Ok(loss.backward()?.get(&w).expect("a gradient of the weight").clone())
    };
    let once = loss()?;
    let expected = gradient(&once)?;
    agrees(&gradient(&once)?, &expected, 1e-7)?;
    std::thread::scope(|scope| {
        let passes: Vec<_> = (0..4).map(|_| scope.spawn(|| gradient(&loss()?))).collect();
        passes.into_iter().try_for_each(|pass| agrees(&pass.join().expect("a pass")?, &expected, 1e-7))
    })
}

/// An operation whose backward fails.
struct Broken;

impl CustomOp1 for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        Ok((x.try_clone(layout)?, layout.shape().clone()))
    }
}

#[test]
fn what_a_failed_pass_left_behind_is_not_counted() -> Result<()> {
    let setting = setting(SMALL.1, Activation::Gelu)?;
    let vars: Vec<Var> = operands(SMALL, (2, 3), 1)?.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let v: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let weights = weights(&v)?;
    let loss =
        |x: &Tensor| field(x, &v[1], &weights, &plain(), &setting)?.expect("covered operands").sum_all();
    let expected = loss(&v[0])?.backward()?;
    // Of two evaluations one is done when the pass fails.
    assert!((loss(&v[0])? + loss(&v[0].apply_op1(Broken)?)?)?.backward().is_err());
    let error = loss(&v[0])?.backward().expect_err("a stale sum").to_string();
    assert!(error.contains("one that failed"), "{error}");
    let found = loss(&v[0])?.backward()?;
    let (Some(found), Some(expected)) = (found.get(&vars[6]), expected.get(&vars[6])) else {
        panic!("no gradient")
    };
    agrees(found, expected, 1e-7)
}

#[test]
fn what_is_not_covered_is_left_to_others() -> Result<()> {
    let (v, setting) = (operands(SMALL, (2, 3), 2)?, setting(SMALL.1, Activation::Gelu)?);
    let weights = weights(&v)?;
    let length = |length: Tensor| Sum { length: Some(length), ..plain() };
    let trained = Var::from_tensor(&random(&[2], 1)?)?;
    for (x, sum) in [
        (v[0].to_dtype(candle_core::DType::F64)?, plain()),
        (v[0].clone(), length(random(&[3], 1)?)),
        (v[0].clone(), length(trained.as_tensor().clone())),
        (random(&[2, 600, 4], 1)?, plain()),
    ] {
        assert!(field(&x, &v[1], &weights, &sum, &setting)?.is_none());
    }
    Ok(())
}
