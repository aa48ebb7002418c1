//! The fastest of cuBLASLt's algorithms for a large product.
//!
//! cuBLASLt guesses. On a card at its power limit another of its proposals can be a sixth faster than its first. They are timed
//! when a product of that shape is asked for the first time, on its own operands. Only those take part that give the same bits as
//! the first: what a clock says must not change what a seed gives.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublaslt::sys::cublasLtMatmulAlgo_t;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::{CudaDevice, DType, Device, Result, Tensor};

use crate::ops::cuda::activation::elementwise;
use crate::ops::cuda::memory::{Buffer, address};
use crate::ops::cuda::module::launch;

/// Algorithms take turns so many times, so that a change of the card's clock hits them all.
const ROUNDS: usize = 5;
/// Products of a turn.
const REPEATS: usize = 4;
/// A gain below this share is noise.
const WORTH: f32 = 0.02;

/// The fastest of `proposals` for a product of `n` elements of `dtype`; `queue` computes it with an algorithm into a device
/// address. The first proposal where there is no memory to try the others.
pub(super) fn fastest(
    device: &CudaDevice,
    (n, dtype): (usize, DType),
    proposals: &[cublasLtMatmulAlgo_t],
    queue: impl Fn(&cublasLtMatmulAlgo_t, u64) -> Result<()>,
) -> Result<cublasLtMatmulAlgo_t> {
    let first = proposals[0];
    let (Ok(expected), Ok(found)) = (Buffer::new(device, n, dtype), Buffer::new(device, n, dtype)) else {
        return Ok(first);
    };
    let (expected, found) = (expected.address()?, found.address()?);
    queue(&first, expected)?;
    let mut alike = vec![(first, Vec::new())];
    for algorithm in &proposals[1..] {
        if queue(algorithm, found).is_ok() && equal(device, expected, found, n * dtype.size_in_bytes())? {
            alike.push((*algorithm, Vec::new()));
        }
    }
    for _ in 0..ROUNDS {
        for (algorithm, times) in &mut alike {
            times.push(milliseconds(device, || queue(algorithm, found))?);
        }
    }
    let median = |times: &[f32]| {
        let mut times = times.to_vec();
        times.sort_by(f32::total_cmp);
        times[times.len() / 2]
    };
    let limit = median(&alike[0].1) * (1.0 - WORTH);
    let times = alike.iter().map(|(algorithm, times)| (*algorithm, median(times)));
    let best = times.filter(|(_, time)| *time < limit).min_by(|a, b| a.1.total_cmp(&b.1));
    Ok(best.map_or(first, |(algorithm, _)| algorithm))
}

/// Whether so many bytes, a multiple of four, are the same at two device addresses.
fn equal(device: &CudaDevice, a: u64, b: u64, bytes: usize) -> Result<bool> {
    let different = Tensor::zeros(1, DType::U32, &Device::Cuda(device.clone()))?;
    let (grid, block) = elementwise(bytes / 4, 1);
    launch!(device, POINTWISE, "differ", grid, block, 0, a, b, address(&different)?, (bytes / 4) as i64);
    Ok(different.to_vec1::<u32>()? == [0])
}

fn milliseconds(device: &CudaDevice, work: impl Fn() -> Result<()>) -> Result<f32> {
    let stream = device.cuda_stream();
    let event = || stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).w();
    let (start, end) = (event()?, event()?);
    start.record(&stream).w()?;
    (0..REPEATS).try_for_each(|_| work())?;
    end.record(&stream).w()?;
    start.elapsed_ms(&end).w()
}
