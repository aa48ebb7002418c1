//! An allocator that keeps large blocks for reuse.
//!
//! Every tensor operation returns a fresh tensor, and its operands die soon after. The system's allocator hands such
//! blocks back to the kernel, which zeroes each page again when it is next touched: at the widths of small models
//! that costs as much as the arithmetic. Here a large block that is freed waits in the list of its size, so that the
//! steps of a training run go over the same memory again and again. Small blocks go to the system's allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The smallest block that is kept; below it the system's allocator reuses memory by itself.
const SMALLEST: usize = 32 << 10;
/// The largest block that is kept.
const LARGEST: usize = 1 << 30;
/// Bytes that may lie idle unless [`keep_at_most`] says otherwise. For a block freed beyond them those go back to the system
/// whose size was asked for least lately: what loading a model left behind makes room for what a training step uses.
const IDLE: usize = 512 << 20;
/// Alignment of every kept block: one line of the cache, one vector of AVX-512.
const ALIGN: usize = 64;
/// Sizes between two powers of two; at most an eighth of a block is lost to rounding up.
const STEPS: usize = 8;
const CLASSES: usize = (LARGEST.ilog2() - SMALLEST.ilog2()) as usize * STEPS + 1;

/// The allocator; a program sets it as its `#[global_allocator]`.
pub struct Reusing;

/// Free blocks of one size, each holding the address of the next in its first word.
struct List(*mut u8);

// SAFETY: the blocks on a list belong to the list alone, whichever thread freed them.
unsafe impl Send for List {}

static FREE: [Mutex<List>; CLASSES] = [const { Mutex::new(List(ptr::null_mut())) }; CLASSES];
/// When a block of each size was last asked for, by a clock that counts such requests.
static ASKED: [AtomicUsize; CLASSES] = [const { AtomicUsize::new(0) }; CLASSES];
static CLOCK: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(IDLE);

/// Lets so many bytes lie idle from now on.
pub fn keep_at_most(bytes: usize) {
    MOST.store(bytes, Relaxed);
}

/// The list that blocks of this layout come from, and the size of its blocks.
fn class(layout: Layout) -> Option<(usize, usize)> {
    let size = layout.size();
    if !(SMALLEST..=LARGEST).contains(&size) || layout.align() > ALIGN {
        return None;
    }
    // The power of two at or below the size, and in how many eighths of it the rest fits.
    let power = size.ilog2();
    let step = (1usize << power) / STEPS;
    let steps = (size - (1 << power)).div_ceil(step);
    let index = (power - SMALLEST.ilog2()) as usize * STEPS + steps;
    Some((index, (1 << power) + steps * step))
}

fn block_layout(size: usize) -> Layout {
    // SAFETY: ALIGN is a power of two and sizes are at most LARGEST.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

/// A free block of the class, if one waits, for somebody who asks for it.
fn take(class: usize, size: usize) -> Option<*mut u8> {
    ASKED[class].store(CLOCK.fetch_add(1, Relaxed), Relaxed);
    pop(class, size)
}

fn pop(class: usize, size: usize) -> Option<*mut u8> {
    let mut list = FREE[class].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let block = list.0;
    if block.is_null() {
        return None;
    }
    // SAFETY: a block on a list is free memory of at least SMALLEST bytes that holds the next one's address.
    list.0 = unsafe { block.cast::<*mut u8>().read() };
    HELD.fetch_sub(size, Relaxed);
    Some(block)
}

/// Puts a block on its list; false if too much lies idle that is no older.
fn keep(block: *mut u8, class: usize, size: usize) -> bool {
    HELD.fetch_add(size, Relaxed);
    if !make_room(class) {
        HELD.fetch_sub(size, Relaxed);
        return false;
    }
    let mut list = FREE[class].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // SAFETY: the block was just freed, so that its first word is ours to write.
    unsafe { block.cast::<*mut u8>().write(list.0) };
    list.0 = block;
    true
}

/// Gives idle blocks back until no more than allowed lie idle; false if those left were asked for later than `class`.
fn make_room(class: usize) -> bool {
    while HELD.load(Relaxed) > MOST.load(Relaxed) {
        let waits =
            |class: &usize| !FREE[*class].lock().unwrap_or_else(|poisoned| poisoned.into_inner()).0.is_null();
        let oldest = (0..CLASSES).filter(waits).min_by_key(|class| ASKED[*class].load(Relaxed));
        let Some(oldest) = oldest.filter(|oldest| ASKED[*oldest].load(Relaxed) < ASKED[class].load(Relaxed))
        else {
            return false;
        };
        let size = block_size(oldest);
        if let Some(block) = pop(oldest, size) {
            // SAFETY: a block of a class was allocated with this layout.
            unsafe { System.dealloc(block, block_layout(size)) };
        }
    }
    true
}

/// The size of a class's blocks.
fn block_size(class: usize) -> usize {
    let power = SMALLEST << (class / STEPS);
    power + class % STEPS * (power / STEPS)
}

// SAFETY: a block of a class is always allocated with that class's own size and alignment, which are at least those
// asked for, and it is on a list or in use, never both. All other blocks are the system allocator's.
unsafe impl GlobalAlloc for Reusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            Some((class, size)) => take(class, size)
                // SAFETY: the size is not zero.
                .unwrap_or_else(|| unsafe { System.alloc(block_layout(size)) }),
            // SAFETY: the caller's promises are those that `System` asks for.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            Some((class, size)) => match take(class, size) {
                Some(block) => {
                    // SAFETY: the block holds at least `layout.size()` bytes.
                    unsafe { block.write_bytes(0, layout.size()) };
                    block
                }
                // SAFETY: as in `alloc`.
                None => unsafe { System.alloc_zeroed(block_layout(size)) },
            },
            // SAFETY: as in `alloc`.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class(layout) {
            Some((class, size)) if keep(block, class, size) => {}
            // SAFETY: a block of a class was allocated with this layout.
            Some((_, size)) => unsafe { System.dealloc(block, block_layout(size)) },
            // SAFETY: the block came from `System` with this layout.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that makes a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class(layout), class(wanted)) {
            (None, None) => {
                // SAFETY: the block came from `System` with this layout.
                unsafe { System.realloc(block, layout, size) }
            }
            (Some((old, _)), Some((new, _))) if old == new => block,
            _ => {
                // SAFETY: the two blocks do not overlap and both hold the bytes copied.
                unsafe {
                    let moved = self.alloc(wanted);
                    if !moved.is_null() {
                        ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 4).unwrap()
    }

    proptest! {
        #[test]
        fn a_class_holds_its_sizes_and_wastes_little(size in SMALLEST..=LARGEST) {
            let (index, block) = class(layout(size)).unwrap();
            prop_assert!(index < CLASSES && block >= size && block <= size + size / STEPS + 1);
            prop_assert_eq!(class(layout(block)), Some((index, block)));
            prop_assert_eq!(block_size(index), block);
        }

        #[test]
        fn contents_survive_every_change_of_size(sizes in prop::collection::vec(1usize..200_000, 1..12)) {
            // SAFETY: the block is used inside its bounds and given back with the layout it has at that time.
            unsafe {
                let mut size = sizes[0];
                let mut block = Reusing.alloc_zeroed(layout(size));
                prop_assert!((0..size).all(|i| *block.add(i) == 0));
                for (step, &next) in sizes.iter().enumerate() {
                    let mark = |i: usize| (i * 7 + step) as u8;
                    (0..size).for_each(|i| *block.add(i) = mark(i));
                    block = Reusing.realloc(block, layout(size), next);
                    prop_assert!((0..size.min(next)).all(|i| *block.add(i) == mark(i)));
                    size = next;
                }
                Reusing.dealloc(block, layout(size));
            }
        }
    }

    #[test]
    fn a_freed_block_is_given_out_again_and_zeroed_when_asked() {
        // A size that no other test uses.
        let layout = layout(777_777);
        // SAFETY: as above.
        unsafe {
            let first = Reusing.alloc(layout);
            first.write_bytes(9, 777_777);
            Reusing.dealloc(first, layout);
            let second = Reusing.alloc_zeroed(layout);
            assert_eq!(first, second);
            assert!((0..777_777).all(|i| *second.add(i) == 0));
            Reusing.dealloc(second, layout);
        }
    }

    #[test]
    fn other_alignments_and_sizes_are_the_systems() {
        assert_eq!(class(Layout::from_size_align(SMALLEST, 4096).unwrap()), None);
        assert_eq!(class(layout(SMALLEST - 1)), None);
        assert_eq!(class(layout(LARGEST + 1)), None);
    }
}
