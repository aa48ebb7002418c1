//! Finding compiled kernels and launching them.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute;
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule, CudaStream};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::{Result, bail};
use std::sync::Arc;

/// One compiled source file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source {
    name: &'static str,
    image: &'static [u8],
}

macro_rules! sources {
    ($($constant:ident = $name:literal;)+) => {
        $(pub(super) const $constant: Source = Source {
            name: $name,
            image: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin")),
        };)+
    };
}

sources! {
    ADAMW = "adamw";
    ATTENTION = "attention";
    ATTENTION_F32 = "attention_f32";
    ATTENTION_HOPPER = "attention_hopper";
    ATTENTION_HOPPER_BACKWARD = "attention_hopper_backward";
    ATTENTION_INNER = "attention_inner";
    ATTENTION_ONE = "attention_one";
    DECODE = "decode";
    DIVERGENCE = "divergence";
    EMBEDDING = "embedding";
    FIELD = "field";
    LAYER_NORM = "layer_norm";
    LOW_RANK = "low_rank";
    POINTWISE = "pointwise";
    REDUCE = "reduce";
}

/// Shared memory that a block gets without asking.
const PLAIN_SHARED_BYTES: u32 = 48 * 1024;

#[derive(Default)]
struct Loaded {
    modules: HashMap<(usize, &'static str), Arc<CudaModule>>,
    functions: HashMap<(usize, String), CudaFunction>,
}

static LOADED: LazyLock<Mutex<Loaded>> = LazyLock::new(Mutex::default);

/// The kernel of that name on the stream's device, ready for so much shared memory; loaded at its first use.
pub(super) fn function(stream: &CudaStream, source: Source, name: &str, shared: u32) -> Result<CudaFunction> {
    let context = stream.context();
    let device = context.ordinal();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(function) = loaded.functions.get(&(device, name.to_owned())) {
        return Ok(function.clone());
    }
    let module = match loaded.modules.get(&(device, source.name)) {
        Some(module) => module.clone(),
        None => {
            let module = context.load_module(Ptx::from_binary(source.image.to_vec())).map_err(|why| {
                candle_core::Error::msg(format!(
                    "the CUDA kernels of this build do not run on this card ({why}); build with CUDA_COMPUTE_CAP set to its \
                     compute capability"
                ))
            })?;
            loaded.modules.insert((device, source.name), module.clone());
            module
        }
    };
    let Ok(function) = module.load_function(name) else { bail!("there is no CUDA kernel {name}") };
    if shared > PLAIN_SHARED_BYTES {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, shared as i32).w()?;
    }
    loaded.functions.insert((device, name.to_owned()), function.clone());
    Ok(function)
}

/// `launch!(device, SOURCE, "kernel", grid, block, shared bytes, arguments…)`: grid and block are (x, y, z).
macro_rules! launch {
    ($device:expr, $source:ident, $($rest:tt)+) => {
        $crate::ops::cuda::module::launch_from!($device, $crate::ops::cuda::module::$source, $($rest)+)
    };
}

/// The same where the source is chosen at run time.
macro_rules! launch_from {
    ($device:expr, $source:expr, $name:expr, $grid:expr, $block:expr, $shared:expr, $($argument:expr),+ $(,)?) => {{
        use candle_core::cuda_backend::WrapErr;
        use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
        let stream = $device.cuda_stream();
        let shared: u32 = $shared;
        let function = $crate::ops::cuda::module::function(&stream, $source, &$name, shared)?;
        let mut builder = stream.launch_builder(&function);
        $(
            let argument = $argument;
            builder.arg(&argument);
        )+
        let config = LaunchConfig { grid_dim: $grid, block_dim: $block, shared_mem_bytes: shared };
        // SAFETY: the arguments are those of the kernel, and its callers keep the memory they point to alive: it is
        // freed in the order of this one stream.
        unsafe { builder.launch(config) }.w()?;
    }};
}

pub(super) use {launch, launch_from};
