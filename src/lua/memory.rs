//! Memory: Lua's collector is told of tensor bytes, and sizes that cannot be are refused before allocation.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::bail;
use candle_core::DType;
use mlua::Lua;

use super::limits;

/// Fewest tensor bytes handed to Lua between two full collections; less where memory is limited to little more. Dead
/// tensors that wait longer are memory that the next ones cannot use, and that no cache holds.
const COLLECT_AFTER: usize = 16 << 20;
/// Tensor bytes for each byte of Lua's own: going through those takes about as long as writing so many.
const A_BYTE_OF_LUAS: usize = 16;

/// What presses for the next full collection of a state.
pub struct Pressure {
    /// Bytes of tensors handed to Lua since the last one.
    bytes: AtomicUsize,
    /// Bytes at which it is due.
    due: AtomicUsize,
}

impl Pressure {
    /// Starts counting for `lua`.
    pub fn install(lua: &Lua) {
        lua.set_app_data(Self { bytes: AtomicUsize::new(0), due: AtomicUsize::new(COLLECT_AFTER) });
    }

    /// Counts a tensor of `bytes`; to Lua it is a few words, so without this dead tensors would pile up.
    ///
    /// # Errors
    /// When a finalizer fails, and when a limit is reached.
    pub fn add(lua: &Lua, bytes: usize) -> mlua::Result<()> {
        if lua.app_data_ref::<Self>().is_some_and(|pressure| pressure.is_due_after(bytes)) {
            lua.gc_collect()?;
            if let Some(pressure) = lua.app_data_ref::<Self>() {
                pressure.due.store(COLLECT_AFTER.max(A_BYTE_OF_LUAS * lua.used_memory()), Ordering::Relaxed);
            }
        }
        limits::check().map_err(mlua::Error::external)
    }

    fn is_due_after(&self, bytes: usize) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        let most = limits::memory().map_or(due, |limit| due.min(limit / 4));
        let pressing = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > most;
        if pressing {
            self.bytes.store(0, Ordering::Relaxed);
        }
        pressing
    }
}

/// Refuses tensors larger than this machine's memory, whose allocation would end the process, and ends the script
/// at those that its own limit has no room for.
///
/// # Errors
/// Names the shape, the size needed and the size there is.
pub fn check(dims: &[usize], dtype: DType) -> anyhow::Result<()> {
    let count = dims.iter().try_fold(dtype.size_in_bytes(), |bytes, &dim| bytes.checked_mul(dim));
    match count {
        Some(bytes) if bytes <= machine_bytes() => Ok(limits::make_room(bytes)?),
        Some(bytes) => bail!(
            "a tensor of shape {dims:?} needs {:.1} GiB, this machine has {:.1} GiB",
            gib(bytes),
            gib(machine_bytes())
        ),
        None => bail!("a tensor of shape {dims:?} is larger than any memory"),
    }
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// Physical memory in bytes, or the container's limit where that is lower.
pub fn machine_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        let total = system.total_memory();
        let limit = system.cgroup_limits().map_or(total, |limits| limits.total_memory.min(total));
        usize::try_from(limit).unwrap_or(usize::MAX).max(1 << 30)
    })
}
