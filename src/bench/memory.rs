//! Memory in use, counted where it is allocated.
//!
//! The figure is the heap of this process: tensors on the CPU, Lua's objects and everything else that goes through
//! Rust's allocator. What lives on a GPU is not in it, nor what C libraries allocate by themselves. Unlike the
//! operating system's high-water mark it starts afresh for every sample, is the same on every system, and counts a
//! page when it is asked for rather than when it is touched.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static HEAP: Count = Count::new();

/// The system's allocator with a count of the bytes in use. A program that wants peaks sets it as its
/// `#[global_allocator]`.
pub struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; only two numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            HEAP.taken(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            HEAP.taken(layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`; the block came from `System`.
        unsafe { System.dealloc(block, layout) };
        HEAP.given_back(layout.size());
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`.
        let moved = unsafe { System.realloc(block, layout, size) };
        if !moved.is_null() {
            HEAP.given_back(layout.size());
            HEAP.taken(size);
        }
        moved
    }
}

/// Bytes in use, and the most since the last mark.
struct Count {
    live: AtomicUsize,
    peak: AtomicUsize,
}

impl Count {
    const fn new() -> Self {
        Self { live: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    fn taken(&self, size: usize) {
        let live = self.live.fetch_add(size, Relaxed) + size;
        if live > self.peak.load(Relaxed) {
            self.peak.fetch_max(live, Relaxed);
        }
    }

    fn given_back(&self, size: usize) {
        self.live.fetch_sub(size, Relaxed);
    }

    fn mark(&self) -> Mark<'_> {
        let live = self.live.load(Relaxed);
        self.peak.store(live, Relaxed);
        Mark { count: self, live }
    }
}

/// Where memory stood when some work began.
pub struct Mark<'a> {
    count: &'a Count,
    live: usize,
}

impl Mark<'_> {
    /// Starts a new high-water mark. The process has one: setting it lowers the peaks that older marks report.
    pub fn set() -> Mark<'static> {
        HEAP.mark()
    }

    /// Bytes at the highest point since the mark beyond those in use at it; `None` in a program whose allocator does
    /// not count.
    pub fn peak(&self) -> Option<usize> {
        // A counting program has allocated something before it comes here.
        (self.live > 0).then(|| self.count.peak.load(Relaxed).saturating_sub(self.live))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_was_in_use_at_once_beyond_the_mark() {
        let count = Count::new();
        assert_eq!(count.mark().peak(), None, "nothing was ever counted");
        count.taken(1000);
        let mark = count.mark();
        assert_eq!(mark.peak(), Some(0));
        count.taken(300);
        count.given_back(300);
        count.taken(200);
        assert_eq!(mark.peak(), Some(300));
        assert_eq!(count.mark().peak(), Some(0), "a new mark starts afresh");
    }

    #[test]
    fn blocks_come_from_the_system() {
        let layout = Layout::from_size_align(1000, 64).unwrap();
        // SAFETY: the block is given back with the layout that it has at that time, and read inside its bounds.
        unsafe {
            let block = Counting.alloc_zeroed(layout);
            assert!((block as usize).is_multiple_of(64) && *block.add(999) == 0);
            *block = 7;
            let block = Counting.realloc(block, layout, 5000);
            assert_eq!(*block, 7);
            Counting.dealloc(block, Layout::from_size_align(5000, 64).unwrap());
        }
    }
}
