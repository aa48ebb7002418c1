//! The program's heap: how many bytes live on it, their peak, and a ceiling that no allocation passes.
//!
//! The allocator counts for the whole process, so that Lua's objects, tensors on the CPU and what operations keep
//! for gradients stand in one figure. Every thread counts for itself and hands over what has come together, which
//! keeps the counter out of the way of small allocations. Memory of libraries in C and of graphics cards is not in
//! it, nor are files that are mapped into memory.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::time::Duration;

use crate::reuse::Reusing;

/// Bytes that a thread counts by itself before it hands them over.
const SHARE: isize = 64 << 10;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static CEILING: AtomicUsize = AtomicUsize::new(usize::MAX);
static REACHED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static OWN: Cell<isize> = const { Cell::new(0) };
    static FREE: Cell<bool> = const { Cell::new(false) };
}

/// Bytes allocated and not yet freed, to within 64 KiB a thread.
pub fn live() -> usize {
    usize::try_from(LIVE.load(Ordering::Relaxed)).unwrap_or(0)
}

/// Where the heap stood when some work began.
pub struct Mark {
    live: isize,
}

impl Mark {
    /// Starts a new high-water mark. The process has one: setting it lowers the peaks that older marks report.
    pub fn set() -> Self {
        hand_over();
        let live = LIVE.load(Ordering::Relaxed);
        PEAK.store(live, Ordering::Relaxed);
        Self { live }
    }

    /// Bytes at the highest point since the mark beyond those in use at it.
    pub fn peak(&self) -> usize {
        usize::try_from(PEAK.load(Ordering::Relaxed) - self.live).unwrap_or(0)
    }
}

/// From now on a thread that would bring the heap above `bytes` stops for good. Somebody has to look at [`reached`]
/// and end the process.
pub fn set_ceiling(bytes: usize) {
    CEILING.store(bytes, Ordering::Relaxed);
}

/// Whether a thread was stopped at the ceiling.
pub fn reached() -> bool {
    REACHED.load(Ordering::Relaxed)
}

/// Lets the calling thread allocate above the ceiling: it ends the process.
pub fn ignore_ceiling() {
    FREE.with(|free| free.set(true));
}

/// Adds what the calling thread has counted by itself.
fn hand_over() {
    let own = OWN.try_with(Cell::take).unwrap_or(0);
    LIVE.fetch_add(own, Ordering::Relaxed);
}

fn count(bytes: isize) {
    let counted = OWN.try_with(|own| {
        let sum = own.get() + bytes;
        let due = if sum.abs() < SHARE { 0 } else { sum };
        own.set(sum - due);
        due
    });
    // A thread on its way out has no counter of its own any more.
    let due = counted.unwrap_or(bytes);
    if due == 0 {
        return;
    }
    let live = LIVE.fetch_add(due, Ordering::Relaxed) + due;
    if live > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
    if due > 0 && live > 0 && live as usize > CEILING.load(Ordering::Relaxed) {
        stop();
    }
}

#[cold]
fn stop() {
    if FREE.try_with(Cell::get).unwrap_or(true) {
        return;
    }
    REACHED.store(true, Ordering::Relaxed);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to `Reusing` with the arguments that came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        unsafe { Reusing.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        unsafe { Reusing.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(size(bytes) - size(layout.size()));
        unsafe { Reusing.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        unsafe { Reusing.dealloc(block, layout) }
    }
}

/// The size of a layout never exceeds `isize::MAX`.
fn size(bytes: usize) -> isize {
    bytes as isize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_is_counted() {
        // Other tests allocate meanwhile, but not gigabytes. The pages are never touched.
        let (before, mark) = (live(), Mark::set());
        let mut block = vec![0u8; 3 << 30];
        assert!(live() > before + (2 << 30));
        block.truncate(1 << 20);
        block.shrink_to_fit();
        assert!(live() < before + (1 << 30));
        assert!(mark.peak() > 2 << 30);
    }
}
