//! A value that was differentiated by hand.

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Result, Shape, Storage, Tensor, bail,
};

/// The scalar `value`, whose gradient with respect to x is `slope`: for what is computed and differentiated piece by piece
/// without ever being whole.
///
/// # Shapes
/// `slope` like `x`, in a dtype of its own; `value` a scalar; result a scalar.
pub fn graft(x: &Tensor, value: &Tensor, slope: &Tensor) -> Result<Tensor> {
    if x.dims() != slope.dims() || value.rank() != 0 {
        bail!(
            "graft: a slope of shape {:?} for {:?}, a value of shape {:?}",
            slope.dims(),
            x.dims(),
            value.dims()
        );
    }
    x.apply_op1(Graft { value: Mutex::new(Some(value.detach())), slope: slope.detach() })
}

struct Graft {
    /// Until the graph has taken it.
    value: Mutex<Option<Tensor>>,
    slope: Tensor,
}

impl Graft {
    fn take<R>(&self, clone: impl FnOnce(&Storage, &Layout) -> Result<R>) -> Result<(R, Shape)> {
        let Some(value) = self.value.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("graft: the operation ran twice")
        };
        let (storage, layout) = value.storage_and_layout();
        Ok((clone(&storage, layout)?, layout.shape().clone()))
    }
}

impl CustomOp1 for Graft {
    fn name(&self) -> &'static str {
        "graft"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Cpu(storage) => storage.try_clone(layout),
            _ => bail!("graft: the value lies on another device"),
        })
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Cuda(storage) => storage.try_clone(layout),
            _ => bail!("graft: the value lies on another device"),
        })
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Metal(storage) => storage.try_clone(layout),
            _ => bail!("graft: the value lies on another device"),
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let slope = self.slope.broadcast_mul(&grad.to_dtype(self.slope.dtype())?)?;
        slope.to_dtype(x.dtype()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn value_and_slope_are_those_given() -> Result<()> {
        let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
        let slope = Tensor::new(&[3f32, -1.0], &Device::Cpu)?;
        let y = graft(&x, &Tensor::new(7f32, &Device::Cpu)?, &slope)?;
        let gradient = (&y * 2.0)?.backward()?.get(&x).map(Tensor::to_vec1::<f32>).transpose()?;
        assert_eq!((y.to_scalar::<f32>()?, gradient), (7.0, Some(vec![6.0, -2.0])));
        Ok(())
    }

    #[test]
    fn a_slope_of_another_shape_is_refused() -> Result<()> {
        let x = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;
        let value = Tensor::new(7f32, &Device::Cpu)?;
        assert!(graft(&x, &value, &value).is_err());
        Ok(())
    }
}
