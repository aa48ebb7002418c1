//! Whose threads do the work.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this is the program, which has the process to itself.
static ALONE: AtomicBool = AtomicBool::new(false);

/// Leaves parallel work to rayon's threads alone. candle divides its element by element operations among a second
/// set of threads, which spin while they wait and so take the processors from rayon's; with one thread of its own it
/// does them where they stand. `CANDLE_NUM_THREADS` in the environment is respected.
///
/// # Safety
/// No other thread runs yet: the environment is written.
pub unsafe fn leave_to_rayon() {
    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the caller's promise.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
    ALONE.store(true, Ordering::Relaxed);
}

/// Makes the calling thread, which lives as long as the work does, one of rayon's: otherwise each operation wakes one of
/// them, which wakes the caller when it is done, and between short operations that takes longer than the work. Only in
/// the program, before rayon is used, and with at least two threads: what other threads ask of rayon while this one is
/// busy is for the others.
pub fn join_rayon() {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|count| count.parse().ok());
    let threads = asked
        .filter(|count| *count > 0)
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    if ALONE.load(Ordering::Relaxed) && threads > 1 {
        // It fails where rayon was used before, which then goes on as it does.
        _ = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global();
    }
}
