//! Counts evaluations of velocity fields (NFE), whoever asks for them.

use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Evaluations of velocity fields on this thread since it began; the difference of two readings is what the work
/// between them needed.
pub fn evaluations() -> u64 {
    COUNT.get()
}

/// Runs `f` as one evaluation of a velocity field. What it evaluates in turn is a part of it and not counted
/// again: a solver's call of a closure around a trained field is one evaluation.
pub fn evaluation<R>(f: impl FnOnce() -> R) -> R {
    let _inside = Inside::enter();
    f()
}

/// Leaves the evaluation when dropped, also while a panic unwinds.
struct Inside;

impl Inside {
    fn enter() -> Self {
        if DEPTH.get() == 0 {
            COUNT.set(COUNT.get() + 1);
        }
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ode::{Method, Options, Result, solve};

    fn counted(work: impl FnOnce()) -> u64 {
        let before = evaluations();
        work();
        evaluations() - before
    }

    #[test]
    fn solvers_count_what_their_statistics_say() {
        let f = |x: &[f64; 1], _t: f64| -> Result<_> { Ok([-x[0]]) };
        for method in Method::ALL {
            for steps in [Some(4), None].into_iter().filter(|steps| steps.is_some() || method.is_adaptive()) {
                let options = Options { method, steps, ..Options::default() };
                let mut nfe = 0;
                let count = counted(|| nfe = solve(f, &[1.0], &options).unwrap().stats.nfe);
                assert_eq!(count, nfe as u64, "{method}");
            }
        }
    }

    #[test]
    fn an_evaluation_inside_another_is_part_of_it() {
        assert_eq!(counted(|| evaluation(|| evaluation(|| ()))), 1);
        assert_eq!(counted(|| (0..3).for_each(|_| evaluation(|| ()))), 3);
    }

    #[test]
    fn a_panic_leaves_the_evaluation() {
        let panicked = std::panic::catch_unwind(|| evaluation(|| panic!("in the field")));
        assert!(panicked.is_err());
        assert_eq!(counted(|| evaluation(|| ())), 1);
    }
}
