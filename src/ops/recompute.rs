//! Activation checkpointing (Chen et al., arXiv 1604.06174): what a function computes inside is not kept for the
//! backward pass but computed again there.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, Layout, MetalStorage, Result, Shape, Storage, Tensor, Var, bail,
};

/// The function of an input and of parameters that is computed twice.
type Function = Arc<dyn Fn(&Tensor, &[Tensor]) -> Result<Tensor> + Send + Sync>;

/// The parameters of functions that are to be recomputed, joined to one tensor: candle's custom operations have few
/// operands.
#[derive(Clone)]
pub struct Recompute {
    flat: Tensor,
    shapes: Arc<Vec<Shape>>,
}

impl Recompute {
    /// Takes parameters of one dtype; gradients reach them as if they were used directly.
    pub fn new(parameters: &[Tensor]) -> Result<Self> {
        let flat: Vec<Tensor> = parameters.iter().map(Tensor::flatten_all).collect::<Result<_>>()?;
        let shapes = parameters.iter().map(|parameter| parameter.shape().clone()).collect();
        Ok(Self { flat: Tensor::cat(&flat, 0)?, shapes: Arc::new(shapes) })
    }

    /// `f(x, parameters)`, of which only x and the result are kept.
    pub fn call(
        &self,
        x: &Tensor,
        f: impl Fn(&Tensor, &[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Result<Tensor> {
        let result = f(&x.detach(), &self.split(&self.flat.detach())?)?.detach();
        let offset = result.layout().start_offset();
        let result =
            if result.is_contiguous() && offset == 0 { result } else { result.force_contiguous()? };
        let op = Twice { f: Arc::new(f), parameters: self.clone(), result: Mutex::new(Some(result)) };
        x.apply_op2(&self.flat, op)
    }

    /// The parameters in their shapes, as views of the joined tensor.
    fn split(&self, flat: &Tensor) -> Result<Vec<Tensor>> {
        let mut start = 0;
        let part = |shape: &Shape| {
            let count = shape.elem_count();
            start += count;
            flat.narrow(0, start - count, count)?.reshape(shape)
        };
        self.shapes.iter().map(part).collect()
    }
}

struct Twice {
    f: Function,
    parameters: Recompute,
    /// What the first computation gave, until the graph has taken it.
    result: Mutex<Option<Tensor>>,
}

impl Twice {
    fn take<R>(&self, clone: impl FnOnce(&Storage, &Layout) -> Result<R>) -> Result<(R, Shape)> {
        let Some(result) = self.result.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("recompute: the operation ran twice")
        };
        let (storage, layout) = result.storage_and_layout();
        Ok((clone(&storage, layout)?, layout.shape().clone()))
    }
}

impl CustomOp2 for Twice {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Cpu(storage) => storage.try_clone(layout),
            _ => bail!("recompute: the result lies on another device"),
        })
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Cuda(storage) => storage.try_clone(layout),
            _ => bail!("recompute: the result lies on another device"),
        })
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Metal(storage) => storage.try_clone(layout),
            _ => bail!("recompute: the result lies on another device"),
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        flat: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let leaf = |tensor: &Tensor| Var::from_tensor(&tensor.detach());
        let input = leaf(x)?;
        let parameters =
            self.parameters.split(&flat.detach())?.iter().map(leaf).collect::<Result<Vec<_>>>()?;
        let operands: Vec<Tensor> =
            parameters.iter().map(|parameter| parameter.as_tensor().clone()).collect();
        // The gradient of ⟨y, grad⟩ with respect to y is grad itself.
        let mut gradients = ((self.f)(&input, &operands)? * grad)?.sum_all()?.backward()?;
        let of_parameter = |parameter: &Var| match gradients.get(parameter) {
            Some(gradient) => gradient.flatten_all(),
            None => parameter.zeros_like()?.flatten_all(),
        };
        let flat = parameters.iter().map(of_parameter).collect::<Result<Vec<_>>>()?;
        let flat = Tensor::cat(&flat, 0)?;
        Ok((x.track_op().then(|| gradients.remove(&input)).flatten(), Some(flat)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{agrees, random};

    fn f(x: &Tensor, p: &[Tensor]) -> Result<Tensor> {
        crate::ops::linear(x, &p[0], Some(&p[1]))?.tanh()?.broadcast_mul(&p[2])
    }

    #[test]
    fn value_and_gradients_are_those_of_the_function() -> Result<()> {
        let var = |shape: &[usize], seed| Var::from_tensor(&random(shape, seed)?);
        let (x, w, b, s) = (var(&[2, 3, 4], 1)?, var(&[4, 4], 2)?, var(&[4], 3)?, var(&[4], 4)?);
        let parameters: Vec<Tensor> = [&w, &b, &s].map(|v| v.as_tensor().clone()).to_vec();
        let plain = f(&f(&x, &parameters)?, &parameters)?;
        let recompute = Recompute::new(&parameters)?;
        let twice = recompute.call(&recompute.call(&x, f)?, f)?;
        agrees(&twice, &plain, 1e-7)?;
        let (expected, found) = (plain.sqr()?.sum_all()?.backward()?, twice.sqr()?.sum_all()?.backward()?);
        for v in [&x, &w, &b, &s] {
            let (Some(found), Some(expected)) = (found.get(v), expected.get(v)) else {
                panic!("no gradient")
            };
            agrees(found, expected, 1e-6)?;
        }
        Ok(())
    }

    #[test]
    fn inputs_without_a_graph_and_views_are_fine() -> Result<()> {
        let w = Var::from_tensor(&random(&[4, 4], 2)?)?;
        let recompute = Recompute::new(&[w.as_tensor().clone()])?;
        let x = random(&[2, 4], 1)?;
        let g = |x: &Tensor, p: &[Tensor]| x.matmul(&p[0])?.narrow(1, 1, 2)?.t();
        let y = recompute.call(&x, g)?;
        agrees(&y, &g(&x, &[w.as_tensor().clone()])?, 1e-7)?;
        assert!(y.sum_all()?.backward()?.get(&w).is_some());
        Ok(())
    }
}
