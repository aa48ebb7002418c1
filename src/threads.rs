//! Whose threads do the work.

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
}
