//! Candle tensors as states.

use candle_core::{DType, Device, Tensor, WithDType};

use super::error::{Error, Result};
use super::kernel;
use super::state::State;

/// Float tensors of any shape.
///
/// On the CPU, f32 and f64 tensors take one fused pass over the data. Where a gradient is tracked, and on
/// other devices and dtypes, the same sums are composed of candle operations, so that gradients flow.
impl State for Tensor {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        for (_, k) in terms {
            same_kind(self, k)?;
        }
        let tracked = self.track_op() || terms.iter().any(|(_, k)| k.track_op());
        let fused = !tracked && matches!(self.device(), Device::Cpu);
        match self.dtype() {
            DType::F32 if fused => fused_sum::<f32>(self, terms),
            DType::F64 if fused => fused_sum::<f64>(self, terms),
            _ => composed_sum(self, terms),
        }
    }

    fn error_ratio(terms: &[(f64, &Self)], y0: &Self, y1: &Self, rtol: f64, atol: f64) -> Result<f64> {
        same_kind(y0, y1)?;
        for (_, k) in terms {
            same_kind(y0, k)?;
        }
        // Half precision could not resolve the tolerances.
        let working = if y0.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let (y0, y1) = (y0.detach().to_dtype(working)?, y1.detach().to_dtype(working)?);
        let slopes = terms
            .iter()
            .map(|(_, k)| k.detach().to_dtype(working))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let terms: Vec<_> = terms.iter().map(|(c, _)| *c).zip(&slopes).collect();
        let sum = match (y0.device(), working) {
            (Device::Cpu, DType::F64) => fused_squares::<f64>(&terms, &y0, &y1, rtol, atol)?,
            (Device::Cpu, _) => fused_squares::<f32>(&terms, &y0, &y1, rtol, atol)?,
            _ => composed_squares(&terms, &y0, &y1, rtol, atol)?,
        };
        Ok(kernel::root_mean(sum, y0.elem_count()))
    }

    fn is_finite(&self) -> Result<bool> {
        same_kind(self, self)?;
        match (self.device(), self.dtype()) {
            (Device::Cpu, DType::F32) => {
                return with_slices::<f32, _>(self, &[], |x, _| kernel::all_finite(x));
            }
            (Device::Cpu, DType::F64) => {
                return with_slices::<f64, _>(self, &[], |x, _| kernel::all_finite(x));
            }
            _ => {}
        }
        // 0·x is 0 for every finite x and NaN otherwise.
        let zero = (self.detach() * 0.0)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        Ok(zero == 0.0)
    }
}

fn same_kind(state: &Tensor, term: &Tensor) -> Result<()> {
    if !state.dtype().is_float() {
        return Err(mismatch(format!("a state must hold floats, not {:?}", state.dtype())));
    }
    if state.shape() != term.shape() || state.dtype() != term.dtype() {
        return Err(mismatch(format!(
            "the velocity field returned shape {:?} {:?} for a state of shape {:?} {:?}",
            term.dims(),
            term.dtype(),
            state.dims(),
            state.dtype()
        )));
    }
    Ok(())
}

fn mismatch(message: String) -> Error {
    Error::State(candle_core::Error::Msg(message))
}

fn composed_sum(x: &Tensor, terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut sum = x.clone();
    for &(c, k) in terms {
        sum = if c == 1.0 { (sum + k)? } else { (sum + (k * c)?)? };
    }
    Ok(sum)
}

fn fused_sum<T: WithDType>(x: &Tensor, terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let sum = with_slices::<T, _>(x, terms, |x, terms| kernel::add_scaled(x, terms))?;
    Ok(Tensor::from_vec(sum, x.shape(), x.device())?)
}

fn fused_squares<T: WithDType>(
    terms: &[(f64, &Tensor)],
    y0: &Tensor,
    y1: &Tensor,
    rtol: f64,
    atol: f64,
) -> Result<f64> {
    with_slices::<T, _>(y0, terms, |y0, terms| {
        with_slices::<T, _>(y1, &[], |y1, _| kernel::error_squares(terms, y0, y1, rtol, atol))
    })?
}

fn composed_squares(terms: &[(f64, &Tensor)], y0: &Tensor, y1: &Tensor, rtol: f64, atol: f64) -> Result<f64> {
    let error = composed_sum(&y0.zeros_like()?, terms)?;
    // The smallest positive number keeps 0/0 from becoming NaN; 0·y1 shows a y1 that overflowed.
    let scale = ((y0.abs()?.maximum(&y1.abs()?)? * rtol)? + atol.max(f32::MIN_POSITIVE as f64))?;
    let ratio = ((error / scale)? + (y1 * 0.0)?)?;
    Ok(ratio.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

/// Runs `f` on the elements of `x` and of the terms, in row-major order.
fn with_slices<T: WithDType, R>(
    x: &Tensor,
    terms: &[(f64, &Tensor)],
    f: impl FnOnce(&[T], &[(T, &[T])]) -> R,
) -> Result<R> {
    let x = x.contiguous()?;
    let tensors = terms.iter().map(|(_, k)| k.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let storages: Vec<_> = tensors.iter().map(|k| k.storage_and_layout()).collect();
    let slices = terms
        .iter()
        .zip(&storages)
        .map(|((c, _), (storage, layout))| Ok((T::from_f64(*c), elements(storage, layout)?)))
        .collect::<Result<Vec<_>>>()?;
    let (storage, layout) = x.storage_and_layout();
    Ok(f(elements(&storage, layout)?, &slices))
}

fn elements<'a, T: WithDType>(
    storage: &'a candle_core::Storage,
    layout: &candle_core::Layout,
) -> Result<&'a [T]> {
    match (storage, layout.contiguous_offsets()) {
        (candle_core::Storage::Cpu(cpu), Some((start, end))) => Ok(&cpu.as_slice::<T>()?[start..end]),
        _ => Err(mismatch("the terms of a state lie on different devices".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    fn ramp(n: usize, step: f64) -> Tensor {
        let values: Vec<f64> = (0..n).map(|i| (i as f64 * step).sin()).collect();
        Tensor::from_vec(values, (n / 4, 4), &Device::Cpu).unwrap()
    }

    #[test]
    fn fused_equals_composed_for_every_dtype_and_layout() -> Result<()> {
        let (x, k, y) = (ramp(48, 0.3), ramp(48, 0.7), ramp(48, 1.1));
        for (dtype, tolerance) in
            [(DType::F64, 1e-14), (DType::F32, 1e-6), (DType::F16, 1e-2), (DType::BF16, 5e-2)]
        {
            let cast = |t: &Tensor| t.t().and_then(|t| t.to_dtype(dtype));
            let (x_, k_, y_) = (cast(&x)?, cast(&k)?, cast(&y)?);
            let terms = [(0.25, &k_), (-1.5, &y_)];
            let sum = x_.add_scaled(&terms)?;
            assert_eq!((sum.dtype(), sum.dims()), (dtype, &[4, 12][..]));
            let composed = composed_sum(&x.t()?, &[(0.25, &k.t()?), (-1.5, &y.t()?)])?;
            let gap = (sum.to_dtype(DType::F64)? - composed)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(gap < tolerance, "{dtype:?}: {gap}");

            let ratio = Tensor::error_ratio(&terms, &x_, &y_, 0.1, 0.2)?;
            let composed = composed_squares(&[(0.25, &k), (-1.5, &y)], &x, &y, 0.1, 0.2)?;
            let expected = kernel::root_mean(composed, 48);
            assert!((ratio - expected).abs() < 20.0 * tolerance, "{dtype:?}: {ratio} {expected}");
        }
        Ok(())
    }

    #[test]
    fn gradients_flow_through_sums() -> Result<()> {
        let (x, k) = (Var::from_tensor(&ramp(8, 0.3))?, Var::from_tensor(&ramp(8, 0.5))?);
        let sum = x.as_tensor().add_scaled(&[(2.0, k.as_tensor()), (0.5, x.as_tensor())])?;
        let gradients = sum.sum_all()?.backward()?;
        for (variable, expected) in [(&x, 1.5), (&k, 2.0)] {
            let gradient = gradients.get(variable).unwrap().flatten_all()?.to_vec1::<f64>()?;
            assert_eq!(gradient, vec![expected; 8]);
        }
        Ok(())
    }

    #[test]
    fn broken_values_and_wrong_kinds_are_seen() -> Result<()> {
        let x = ramp(8, 0.3);
        assert!(x.is_finite()?);
        assert!(!(&x / 0.0)?.is_finite()?);
        let overflown = (&x * 1e308)?.affine(1e10, 0.0)?;
        assert!(!Tensor::error_ratio(&[(0.0, &x)], &x, &overflown, 1e-3, 1e-3)?.is_finite());

        let shape = x.add_scaled(&[(1.0, &ramp(12, 0.3))]).unwrap_err().to_string();
        assert!(shape.contains("[3, 4]") && shape.contains("[2, 4]"), "{shape}");
        let dtype = x.add_scaled(&[(1.0, &x.to_dtype(DType::F32)?)]).unwrap_err().to_string();
        assert!(dtype.contains("F32") && dtype.contains("F64"), "{dtype}");
        assert!(x.to_dtype(DType::U32)?.is_finite().is_err());
        Ok(())
    }
}
