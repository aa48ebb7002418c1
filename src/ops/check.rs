//! Test helpers: seeded tensors, agreement, and finite differences in f64.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng};

/// A tensor of standard uniform values in −1..1, f32.
pub fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// Asserts max|a − b| ≤ tolerance · max(1, max|b|).
pub fn agrees(a: &Tensor, b: &Tensor, tolerance: f64) -> Result<()> {
    assert_eq!(a.dims(), b.dims());
    let flat = |x: &Tensor| x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (a, b) = (flat(a)?, flat(b)?);
    let scale = b.iter().fold(1f64, |m, x| m.max(x.abs()));
    let worst = a.iter().zip(&b).fold(0f64, |m, (x, y)| m.max((x - y).abs()));
    assert!(worst <= tolerance * scale, "differs by {worst:e}, allowed {:e}", tolerance * scale);
    assert!(a.iter().all(|x| x.is_finite()));
    Ok(())
}

/// Asserts that the f32 gradients of Σ c⊙f(x) agree with central differences of the f64 definition to 1e-4.
pub fn gradients_agree(operands: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    let vars: Vec<Var> = operands.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tracked)?;
    let weights = random(y.dims(), 99)?;
    let grads = (&y * &weights)?.sum_all()?.backward()?;
    let weights = weights.to_dtype(DType::F64)?;
    let exact: Vec<Tensor> = operands.iter().map(|x| x.to_dtype(DType::F64)).collect::<Result<_>>()?;
    let loss = |x: &[Tensor]| (f(x)? * &weights)?.sum_all()?.to_scalar::<f64>();
    for (i, var) in vars.iter().enumerate() {
        let Some(grad) = grads.get(var) else { panic!("operand {i} received no gradient") };
        let numeric = differences(&exact, i, &loss)?;
        agrees(grad, &numeric, 1e-4)?;
    }
    Ok(())
}

fn differences(operands: &[Tensor], i: usize, loss: &impl Fn(&[Tensor]) -> Result<f64>) -> Result<Tensor> {
    const H: f64 = 1e-5;
    let base = operands[i].flatten_all()?.to_vec1::<f64>()?;
    let mut numeric = Vec::with_capacity(base.len());
    for j in 0..base.len() {
        let at = |delta: f64| {
            let mut moved = base.clone();
            moved[j] += delta;
            let mut all = operands.to_vec();
            all[i] = Tensor::from_vec(moved, operands[i].shape(), &Device::Cpu)?;
            loss(&all)
        };
        numeric.push((at(H)? - at(-H)?) / (2.0 * H));
    }
    Tensor::from_vec(numeric, operands[i].shape(), &Device::Cpu)
}
