//! How work on a batch of sequences is shared out among threads.
//!
//! A task takes whole examples through everything that is to be done with them, so that its intermediate results stay in
//! the cache of one core and threads wait for each other once, at the end. Which examples make up a task depends on the
//! shapes alone, never on the number of threads, so that every sum is formed in one order.

use gemm::Parallelism;

use super::kernel::all_threads;

/// Rows of a task whose examples are shorter: products of few rows spend their time on the weights.
const ROWS: usize = 256;

/// Widest rows of which a batch that would be one task makes two: threads that share out the products of narrow rows wait for
/// each other longer than they multiply.
const NARROW: usize = 256;
/// Fewest rows of such a batch.
const WORTH_TWO: usize = 128;

/// A batch of sequences as rows, one a token.
#[derive(Clone, Copy)]
pub(super) struct Sequences {
    /// Sequences of the batch.
    pub batch: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Numbers of a row.
    pub width: usize,
}

impl Sequences {
    /// Sequences of a task; the last task may have fewer.
    pub fn of_a_task(self) -> usize {
        let Self { batch, tokens, width } = self;
        let most = (ROWS / tokens.max(1)).clamp(1, batch.max(1));
        let divisible = most == batch && width <= NARROW && batch * tokens >= WORTH_TWO;
        if divisible { batch.div_ceil(2) } else { most }
    }

    /// Rows of a task.
    pub fn rows(self) -> usize {
        self.of_a_task() * self.tokens
    }

    /// Number of tasks.
    pub fn tasks(self) -> usize {
        self.batch.div_ceil(self.of_a_task())
    }

    /// How products inside a task are shared out.
    pub fn products(self) -> Parallelism {
        inside(self.tasks())
    }
}

/// Elements of a hidden layer that stay in the cache of one core beside the weights.
const HIDDEN: usize = 64 * 1024;
/// Fewest rows that go through an MLP together.
const FEWEST_ROWS: usize = 64;

/// Rows that go through an MLP of this hidden width together, so that hidden values are used where they were made; all
/// rows of a task where the weights do not fit the cache anyway.
pub(super) fn rows_together(hidden: usize) -> usize {
    let rows = HIDDEN / hidden.max(1);
    if rows >= FEWEST_ROWS { rows } else { usize::MAX / hidden.max(1) }
}

/// How work inside each of so many tasks is shared out: not at all where the tasks alone keep all threads busy.
pub(super) fn inside(tasks: usize) -> Parallelism {
    let threads = rayon::current_num_threads();
    if tasks >= 4 * threads || (tasks > 0 && tasks.is_multiple_of(threads)) {
        Parallelism::None
    } else {
        all_threads()
    }
}

/// Does `work` on one of rayon's threads. A thread that is none of them would wake one for every parallel part that it comes
/// to itself, and it comes to all of them where there is but one task.
pub(super) fn among_threads<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_hold_whole_sequences_and_enough_rows() {
        let of_a_task = |batch, tokens| Sequences { batch, tokens, width: 512 }.of_a_task();
        assert_eq!([of_a_task(8, 256), of_a_task(8, 300), of_a_task(8, 1)], [1, 1, 8]);
        assert_eq!([of_a_task(64, 32), of_a_task(3, 100), of_a_task(2, 128)], [8, 2, 2]);
        assert_eq!(Sequences { batch: 64, tokens: 32, width: 512 }.rows(), 256);
    }

    #[test]
    fn a_small_batch_of_narrow_rows_makes_two_tasks() {
        let of_a_task = |batch, tokens| Sequences { batch, tokens, width: 128 }.of_a_task();
        assert_eq!([of_a_task(2, 128), of_a_task(3, 64), of_a_task(5, 50)], [1, 2, 3]);
        // One sequence cannot be divided, a few rows are not worth it, and larger batches make tasks enough.
        assert_eq!([of_a_task(1, 256), of_a_task(2, 60), of_a_task(8, 64)], [1, 2, 4]);
    }

    #[test]
    fn hidden_values_fit_the_cache_or_are_not_split_up() {
        assert_eq!([rows_together(512), rows_together(1024)], [128, 64]);
        assert!(rows_together(2048) > 1 << 40);
    }

    #[test]
    fn few_tasks_share_out_their_products() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("threads");
        let alone = |tasks| matches!(pool.install(|| inside(tasks)), Parallelism::None);
        assert_eq!([1, 3, 4, 6, 8, 16, 17].map(alone), [false, false, true, false, true, true, true]);
    }
}
