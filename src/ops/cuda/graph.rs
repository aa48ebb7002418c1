//! Entering what a kernel computed into candle's graph, with a hand-written backward.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::memory::Buffer;

/// The result `output` of an operation on `inputs`. `backward(inputs, output, gradient)` returns their gradients; the
/// gradient that it is given is contiguous. Nothing is recorded where no variable stands upstream.
macro_rules! recorder {
    ($record:ident, $op:ident, $apply:ident, $count:tt, [$($rest:ident),*], [$($layout:ident),*]) => {
        pub(super) fn $record<B>(inputs: [&Tensor; $count], name: &'static str, output: Buffer, backward: B) -> Result<Tensor>
        where
            B: Fn([&Tensor; $count], &Tensor, &Tensor) -> Result<[Option<Tensor>; $count]> + Send + Sync + 'static,
        {
            if !inputs.iter().any(|x| x.track_op()) {
                return Ok(output.tensor());
            }
            let [first, $($rest),*] = inputs;
            first.$apply($($rest,)* Recorded { name, output: Mutex::new(Some(output)), backward })
        }

        impl<B> $op for Recorded<B>
        where
            B: Fn([&Tensor; $count], &Tensor, &Tensor) -> Result<[Option<Tensor>; $count]>,
        {
            fn name(&self) -> &'static str {
                self.name
            }

            fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, $($rest: &CpuStorage, $layout: &Layout),*) -> Result<(CpuStorage, Shape)> {
                $(let _ = ($rest, $layout);)*
                bail!("{}: a CUDA operation was given a tensor of the CPU", self.name)
            }

            fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, $($rest: &CudaStorage, $layout: &Layout),*) -> Result<(CudaStorage, Shape)> {
                $(let _ = ($rest, $layout);)*
                self.take()
            }

            recorder!(@bwd $count);
        }
    };
    (@bwd 1) => {
        fn bwd(&self, a: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
            let [a] = (self.backward)([a], y, &grad.contiguous()?)?;
            Ok(a)
        }
    };
    (@bwd 2) => {
        fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
            let [a, b] = (self.backward)([a, b], y, &grad.contiguous()?)?;
            Ok((a, b))
        }
    };
    (@bwd 3) => {
        fn bwd(
            &self,
            a: &Tensor,
            b: &Tensor,
            c: &Tensor,
            y: &Tensor,
            grad: &Tensor,
        ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
            let [a, b, c] = (self.backward)([a, b, c], y, &grad.contiguous()?)?;
            Ok((a, b, c))
        }
    };
}

struct Recorded<B> {
    name: &'static str,
    output: Mutex<Option<Buffer>>,
    backward: B,
}

impl<B> Recorded<B> {
    /// The result, which was computed before the operation was recorded.
    fn take(&self) -> Result<(CudaStorage, Shape)> {
        match self.output.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(output) => Ok((output.storage, output.shape)),
            None => bail!("{}: the result was taken already", self.name),
        }
    }
}

recorder!(record1, CustomOp1, apply_op1, 1, [], []);
recorder!(record2, CustomOp2, apply_op2, 2, [second], [second_layout]);
recorder!(record3, CustomOp3, apply_op3, 3, [second, third], [second_layout, third_layout]);
