//! Matrix products by cuBLASLt, with a bias added on the way.

mod fastest;

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublaslt::result::{self as lt, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t,
    cublasLtMatmulAlgoGetHeuristic, cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreferenceAttributes_t as Preference,
    cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType_t,
};
use candle_core::{CudaDevice, DType, Result, bail};

use super::memory::Buffer;

/// Scratch memory that cuBLASLt may use; NVIDIA recommends this size for Hopper.
const WORKSPACE: usize = 32 << 20;
/// Algorithms that cuBLASLt is asked for.
const PROPOSALS: usize = 8;
/// Floating-point operations from which a product is worth trying them all.
const LARGE: usize = 1 << 33;

/// One factor of a product: a row-major matrix at a device address.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub address: u64,
    /// Elements of a row.
    pub width: usize,
    /// Whether the product takes its transpose.
    pub transposed: bool,
}

/// `out (m, n) = a (m, k) · b (k, n) + bias (n) + added (m, n)` in row-major matrices, with sums in f32.
pub(super) struct Product {
    pub size: (usize, usize, usize),
    pub a: Factor,
    pub b: Factor,
    /// The factors' dtype, f32 or bf16; the bias has that of the result.
    pub dtype: DType,
    pub bias: Option<u64>,
    pub out: u64,
    pub out_dtype: DType,
    /// Address of what is added, of the result's dtype; it may be the result itself.
    pub added: Option<u64>,
}

/// What determines cuBLASLt's choice of algorithm.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    size: (usize, usize, usize),
    transposed: (bool, bool),
    dtypes: (DType, DType),
    bias: bool,
    added: bool,
    alignment: u32,
}

struct Plan {
    description: cublasLtMatmulDesc_t,
    a: cublasLtMatrixLayout_t,
    b: cublasLtMatrixLayout_t,
    out: cublasLtMatrixLayout_t,
    /// What cuBLASLt proposes, its best guess first; later the chosen one alone.
    algorithms: Vec<cublasLtMatmulAlgo_t>,
}

struct Library {
    handle: cublasLtHandle_t,
    workspace: Buffer,
    plans: HashMap<Key, Plan>,
}

// SAFETY: cuBLASLt handles and descriptions may be used from any thread, one at a time, which the lock sees to.
unsafe impl Send for Library {}

/// By stream, which each of them keeps alive: products of two streams run at once and must not share a workspace.
static LIBRARIES: LazyLock<Mutex<HashMap<usize, Library>>> = LazyLock::new(Mutex::default);

fn kind(dtype: DType) -> Result<cudaDataType_t> {
    match dtype {
        DType::F32 => Ok(cudaDataType_t::CUDA_R_32F),
        DType::BF16 => Ok(cudaDataType_t::CUDA_R_16BF),
        _ => bail!("matrix products in CUDA take f32 and bf16, not {dtype:?}"),
    }
}

fn failed(product: &Product) -> impl Fn(CublasError) -> candle_core::Error {
    let (m, k, n) = product.size;
    let dtype = product.dtype;
    move |why| {
        candle_core::Error::msg(format!(
            "cuBLAS could not multiply ({m}, {k}) by ({k}, {n}) in {dtype:?}: {why}"
        ))
    }
}

impl Product {
    /// Queues the product on the device's stream.
    pub fn run(&self, device: &CudaDevice) -> Result<()> {
        let stream = device.cuda_stream().cu_stream() as usize;
        let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let library = match libraries.entry(stream) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let handle = lt::create_handle().map_err(failed(self))?;
                let workspace = Buffer::new(device, WORKSPACE / 4, DType::F32)?;
                entry.insert(Library { handle, workspace, plans: HashMap::new() })
            }
        };
        let key = self.key();
        if !library.plans.contains_key(&key) {
            let mut plan = self.plan(library.handle, key.alignment).map_err(failed(self))?;
            let (m, k, n) = self.size;
            if 2 * m * k * n >= LARGE && plan.algorithms.len() > 1 {
                let queue = |algorithm: &_, out| self.queue(device, library, &plan, algorithm, out);
                let chosen = fastest::fastest(device, (m * n, self.out_dtype), &plan.algorithms, queue)?;
                plan.algorithms = vec![chosen];
            }
            library.plans.insert(key.clone(), plan);
        }
        let Some(plan) = library.plans.get(&key) else { bail!("a plan that was just made is missing") };
        self.queue(device, library, plan, &plan.algorithms[0], self.out)
    }

    /// Queues it with one of the plan's algorithms, its result to go to `out`.
    fn queue(
        &self,
        device: &CudaDevice,
        library: &Library,
        plan: &Plan,
        algorithm: &cublasLtMatmulAlgo_t,
        out: u64,
    ) -> Result<()> {
        let (scale, keep) = (1f32, if self.added.is_some() { 1f32 } else { 0.0 });
        // SAFETY: the descriptions live as long as the program, the matrices as long as their tensors, and those in the
        // order of the stream.
        unsafe {
            if let Some(bias) = &self.bias {
                set(plan.description, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)
                    .map_err(failed(self))?;
            }
            // Row-major matrices are column-major transposes, so cuBLAS computes outᵀ = bᵀ · aᵀ.
            lt::matmul(
                library.handle,
                plan.description,
                (&raw const scale).cast(),
                (&raw const keep).cast(),
                self.b.address as *const c_void,
                plan.b,
                self.a.address as *const c_void,
                plan.a,
                self.added.unwrap_or(out) as *const c_void,
                plan.out,
                out as *mut c_void,
                plan.out,
                std::ptr::from_ref(algorithm),
                library.workspace.address()? as *mut c_void,
                WORKSPACE,
                device.cuda_stream().cu_stream().cast(),
            )
        }
        .map_err(failed(self))
    }

    fn key(&self) -> Key {
        let addresses = [Some(self.a.address), Some(self.b.address), Some(self.out), self.bias, self.added];
        let aligned = |address: u64| 1 << address.trailing_zeros().min(8);
        Key {
            size: self.size,
            transposed: (self.a.transposed, self.b.transposed),
            dtypes: (self.dtype, self.out_dtype),
            bias: self.bias.is_some(),
            added: self.added.is_some(),
            alignment: addresses.into_iter().flatten().map(aligned).min().unwrap_or(256),
        }
    }

    fn plan(&self, handle: cublasLtHandle_t, alignment: u32) -> std::result::Result<Plan, CublasError> {
        let unsupported = |_| CublasError(cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED);
        let (input, output) =
            (kind(self.dtype).map_err(unsupported)?, kind(self.out_dtype).map_err(unsupported)?);
        let (m, k, n) = self.size;
        let layout = |factor: &Factor, rows: usize, columns: usize| {
            let (rows, columns) = if factor.transposed { (columns, rows) } else { (rows, columns) };
            lt::create_matrix_layout(input, columns as u64, rows as u64, factor.width as i64)
        };
        let (a, b) = (layout(&self.a, m, k)?, layout(&self.b, k, n)?);
        let out = lt::create_matrix_layout(output, n as u64, m as u64, n as i64)?;
        let description =
            lt::create_matmul_desc(cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType_t::CUDA_R_32F)?;
        let preference = lt::create_matmul_pref()?;
        // SAFETY: descriptions and preference were just made, and the attributes have the types that cuBLASLt expects.
        unsafe {
            set(description, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(self.b.transposed))?;
            set(description, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(self.a.transposed))?;
            if let Some(bias) = &self.bias {
                set(
                    description,
                    Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                    &cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
                )?;
                set(description, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
                set(description, Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &output)?;
            }
            prefer(preference, Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
            for which in [
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ] {
                prefer(preference, which, &alignment)?;
            }
            let mut found = [MaybeUninit::<cublasLtMatmulHeuristicResult_t>::uninit(); PROPOSALS];
            let (to, mut count) = (found.as_mut_ptr().cast(), 0);
            let status = cublasLtMatmulAlgoGetHeuristic(
                handle,
                description,
                b,
                a,
                out,
                out,
                preference,
                PROPOSALS as i32,
                to,
                &raw mut count,
            );
            lt::destroy_matmul_pref(preference)?;
            status.result()?;
            let found = found[..count as usize].iter().map(|result| result.assume_init());
            let usable = |result: &cublasLtMatmulHeuristicResult_t| {
                result.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS
            };
            let algorithms: Vec<_> = found.filter(usable).map(|result| result.algo).collect();
            if algorithms.is_empty() {
                return Err(CublasError(cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED));
            }
            Ok(Plan { description, a, b, out, algorithms })
        }
    }
}

unsafe fn set<T>(
    description: cublasLtMatmulDesc_t,
    attribute: Attribute,
    value: &T,
) -> std::result::Result<(), CublasError> {
    // SAFETY: promised by the caller.
    unsafe {
        lt::set_matmul_desc_attribute(
            description,
            attribute,
            std::ptr::from_ref(value).cast(),
            size_of::<T>(),
        )
    }
}

unsafe fn prefer<T>(
    preference: candle_core::cuda_backend::cudarc::cublaslt::sys::cublasLtMatmulPreference_t,
    attribute: Preference,
    value: &T,
) -> std::result::Result<(), CublasError> {
    // SAFETY: promised by the caller.
    unsafe {
        lt::set_matmul_pref_attribute(preference, attribute, std::ptr::from_ref(value).cast(), size_of::<T>())
    }
}
