//! Opening a device, and buffers on it.

use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUmemPool_attribute, CUmemoryPool, cuDeviceGetDefaultMemPool, cuMemPoolGetAttribute,
    cuMemPoolSetAttribute,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::cuda_backend::{CudaStorage, CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, DType, Device, Result, Shape, Storage, Tensor, bail};

/// Opens the CUDA device of that number.
///
/// All work goes through one stream, whichever thread asks for it, so memory is reused in the order of the work and
/// neither events nor synchronisation are needed; and memory once had is kept, since to give it back at every
/// synchronisation costs more than a step.
pub fn open(number: usize) -> Result<Device> {
    let _alone = alone();
    let device = Device::new_cuda_with_stream(number)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: there is one stream only.
    unsafe { cuda.disable_event_tracking() };
    let mut everything = u64::MAX;
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a u64, read during the call.
    unsafe { cuMemPoolSetAttribute(pool(cuda)?, threshold, (&raw mut everything).cast()) }.result().w()?;
    Ok(device)
}

/// Held while a device is opened and while a stream is captured: the one waits for all streams, which the driver refuses during
/// the other.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of tensors on a card since a moment, as its pool counts it.
pub struct PoolMark {
    pool: CUmemoryPool,
    before: u64,
}

impl PoolMark {
    /// Begins here, on a device that [`open`] opened. One mark at a time is meaningful: each begins the highest point anew.
    ///
    /// # Errors
    /// Another device than a CUDA card, and those of the driver.
    pub fn set(device: &Device) -> Result<Self> {
        let pool = pool(device.as_cuda_device()?)?;
        let mut nothing = 0u64;
        let high = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        // SAFETY: the attribute is a u64, read during the call.
        unsafe { cuMemPoolSetAttribute(pool, high, (&raw mut nothing).cast()) }.result().w()?;
        let current = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
        Ok(Self { pool, before: attribute(pool, current)? })
    }

    /// Bytes at the highest point since then beyond those in use before.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn peak(&self) -> Result<usize> {
        let high = attribute(self.pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?;
        Ok(high.saturating_sub(self.before) as usize)
    }
}

fn attribute(pool: CUmemoryPool, which: CUmemPool_attribute) -> Result<u64> {
    let mut value = 0u64;
    // SAFETY: the attribute is a u64, written during the call.
    unsafe { cuMemPoolGetAttribute(pool, which, (&raw mut value).cast()) }.result().w()?;
    Ok(value)
}

fn pool(device: &CudaDevice) -> Result<CUmemoryPool> {
    let mut pool = MaybeUninit::uninit();
    let number = device.cuda_stream().context().cu_device();
    // SAFETY: the pool is written where the call succeeds, and only read then.
    unsafe {
        cuDeviceGetDefaultMemPool(pool.as_mut_ptr(), number).result().w()?;
        Ok(pool.assume_init())
    }
}

/// Freshly allocated memory of a kernel's result.
pub(super) struct Buffer {
    pub storage: CudaStorage,
    pub shape: Shape,
}

impl Buffer {
    /// Memory with no particular contents.
    pub fn new(device: &CudaDevice, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        // SAFETY: kernels write every element before any is read.
        let storage = unsafe { device.alloc_uninit(&shape, dtype)? };
        Ok(Self { storage, shape })
    }

    /// Device address of the first element.
    pub fn address(&self) -> Result<u64> {
        storage_address(&self.storage, 0)
    }

    /// A tensor without history.
    pub fn tensor(self) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage), self.shape, BackpropOp::none(), false)
    }
}

/// Device address of the first element of a contiguous tensor.
pub(super) fn address(x: &Tensor) -> Result<u64> {
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cuda(storage), Some((start, _))) => storage_address(storage, start),
        _ => bail!("a CUDA kernel was given a tensor of another device, or one that is not contiguous"),
    }
}

pub(super) fn storage_address(storage: &CudaStorage, start: usize) -> Result<u64> {
    fn of<T>(slice: &CudaSlice<T>, start: usize) -> u64 {
        let (address, _guard) = slice.device_ptr(slice.stream());
        address + (start * size_of::<T>()) as u64
    }
    Ok(match &storage.slice {
        CudaStorageSlice::F32(slice) => of(slice, start),
        CudaStorageSlice::BF16(slice) => of(slice, start),
        CudaStorageSlice::U32(slice) => of(slice, start),
        _ => bail!("no CUDA kernel takes {:?}", storage.dtype()),
    })
}

/// The card's compute capability, (0, 0) where it cannot be had.
pub(super) fn capability(device: &CudaDevice) -> (i32, i32) {
    device.cuda_stream().context().compute_capability().unwrap_or((0, 0))
}

/// The CUDA device of contiguous, non-empty tensors, if that is where they all are.
pub(super) fn device(tensors: &[&Tensor]) -> Option<CudaDevice> {
    let fits = |x: &&Tensor| x.device().is_cuda() && x.is_contiguous() && x.elem_count() > 0;
    let first = tensors.first()?.device().as_cuda_device().ok()?;
    tensors.iter().all(fits).then(|| first.clone())
}

/// The dtype's name in kernels, for f32 and bf16.
pub(super) fn name(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("f32"),
        DType::BF16 => Some("bf16"),
        _ => None,
    }
}

/// Elements that a thread handles at a time: 4 where the innermost size and all addresses allow it.
pub(super) fn vector(innermost: usize, addresses: &[u64]) -> usize {
    if innermost.is_multiple_of(4) && addresses.iter().all(|a| a % 16 == 0) { 4 } else { 1 }
}

/// Elements that a thread handles at a time where all operands have one dtype: 16 bytes of them where the innermost size and all
/// addresses allow it, since less does not keep a card's memory busy; else 1.
pub(super) fn sixteen_bytes(dtype: DType, innermost: usize, addresses: &[u64]) -> usize {
    let v = 16 / dtype.size_in_bytes();
    if innermost.is_multiple_of(v) && addresses.iter().all(|a| a % 16 == 0) { v } else { 1 }
}
