//! What this machine can do at most: the rate of f32 matrix products and of memory.
//!
//! The roofline model (Williams, Waterman & Patterson, Communications of the ACM 52(4), 2009) bounds every kernel by
//! one of the two. Rates are the best of several samples, since a limit is what disturbance only lowers.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use rayon::prelude::*;

use super::kernel::{Matrix, all_threads, matmul, vector_matmul};
use super::simd::vectorised;

/// Side of the square matrices: 1.3 MB each, so that three of them stay in caches.
const SIDE: usize = 576;
/// Elements streamed: 128 MiB, larger than the second-level caches and, but on servers, than the last.
const STREAM: usize = 32 << 20;
/// Elements of one parallel task of a stream.
const CHUNK: usize = 1 << 16;
/// Samples of each rate.
const SAMPLES: usize = 7;

/// The limits at one number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads used.
    pub threads: usize,
    /// f32 matrix products by vector instructions, FLOP/s.
    pub vector_product: f64,
    /// f32 matrix products on the tile unit, FLOP/s; `None` where there is none.
    pub tile_product: Option<f64>,
    /// Memory read, bytes/s.
    pub read: f64,
    /// Memory copied, bytes/s, reads and writes counted.
    pub copy: f64,
}

impl Limits {
    /// The rate of the faster matrix product, FLOP/s.
    pub fn product(&self) -> f64 {
        self.tile_product.map_or(self.vector_product, |tile| tile.max(self.vector_product))
    }
}

/// Measures with so many threads; takes about a second.
///
/// # Errors
/// If the threads cannot be started.
pub fn measure(threads: usize) -> Result<Limits> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    Ok(pool.install(|| {
        let (read, copy) = streams();
        let vector_product = product(|a, b, out| {
            vector_matmul((SIDE, SIDE, SIDE), (0.0, 1.0), a, b, out, SIDE, all_threads());
        });
        let tile_product = tiles().then(|| {
            product(|a, b, out| matmul((SIDE, SIDE, SIDE), (0.0, 1.0), a, b, out, SIDE, all_threads()))
        });
        Limits { threads, vector_product, tile_product, read, copy }
    }))
}

/// Whether matrix products here run on a tile unit.
pub fn tiles() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        super::amx::available()
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        false
    }
}

/// Work over the shortest time of several samples.
fn best(work: f64, mut f: impl FnMut()) -> f64 {
    f();
    let seconds = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    work / (0..SAMPLES).map(seconds).fold(f64::INFINITY, f64::min)
}

fn product(multiply: impl Fn(Matrix<'_>, Matrix<'_>, &mut [f32])) -> f64 {
    let value = |i: usize| (i as f32 * 0.618).fract() - 0.5;
    let (a, b): (Vec<f32>, Vec<f32>) = (0..SIDE * SIDE).map(|i| (value(i), value(i + 1))).unzip();
    let mut out = vec![0f32; SIDE * SIDE];
    best(2.0 * (SIDE * SIDE * SIDE) as f64, || {
        multiply(Matrix::rows(&a, SIDE), Matrix::rows(&b, SIDE), black_box(&mut out));
    })
}

fn streams() -> (f64, f64) {
    let from = vec![1f32; STREAM];
    let mut to = vec![0f32; STREAM];
    let bytes = (STREAM * size_of::<f32>()) as f64;
    let read = best(bytes, || {
        black_box(from.par_chunks(CHUNK).map(stream_sum).sum::<f32>());
    });
    let copy = best(2.0 * bytes, || {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&to);
    });
    (read, copy)
}

vectorised! {
    /// Four times sixteen lanes, so that the additions do not wait for each other.
    fn stream_sum[](x: &[f32]) -> f32 {
        let mut lanes = [0f32; 64];
        for block in x.as_chunks::<64>().0 {
            lanes.iter_mut().zip(block).for_each(|(lane, x)| *lane += x);
        }
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_every_block() {
        assert_eq!(stream_sum(&[1.0; 640]), 640.0);
    }

    #[test]
    fn a_limit_is_the_best_sample() {
        let mut calls = 0;
        let rate = best(1.0, || {
            calls += 1;
            std::thread::sleep(std::time::Duration::from_millis(if calls == 3 { 2 } else { 20 }));
        });
        assert_eq!(calls, 1 + SAMPLES);
        assert!(rate > 1.0 / 0.02 && rate <= 1.0 / 0.002, "{rate}");
    }
}
