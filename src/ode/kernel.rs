//! Inner loops over contiguous data.

use std::mem::MaybeUninit;
use std::ptr;

use candle_core::WithDType;
use rayon::prelude::*;

/// Elements handled at a time: the partial result stays in the first-level cache while the terms
/// stream past it, so that memory is read once.
const CHUNK: usize = 2048;
/// Below this many elements the threads cost more than they bring.
const PARALLEL: usize = 1 << 15;
/// Independent partial sums, so that the additions need not wait for each other.
const LANES: usize = 8;

/// `out += c·k`.
pub fn accumulate<T: WithDType>(out: &mut [T], c: T, k: &[T]) {
    for (o, &k) in out.iter_mut().zip(k) {
        *o += c * k;
    }
}

/// `x + Σ cᵢ·kᵢ`; every slice has the length of `x`.
pub fn add_scaled<T: WithDType>(x: &[T], terms: &[(T, &[T])]) -> Vec<T> {
    let Some(((first, k), rest)) = terms.split_first() else { return x.to_vec() };
    let mut out: Vec<T> = Vec::with_capacity(x.len());
    let chunk = |(i, out): (usize, &mut [MaybeUninit<T>])| {
        let range = i * CHUNK..i * CHUNK + out.len();
        for ((out, &x), &k) in out.iter_mut().zip(&x[range.clone()]).zip(&k[range.clone()]) {
            out.write(x + *first * k);
        }
        // SAFETY: the loop above has written every element.
        let out = unsafe { &mut *(ptr::from_mut(out) as *mut [T]) };
        rest.iter().for_each(|(c, k)| accumulate(out, *c, &k[range.clone()]));
    };
    let place = &mut out.spare_capacity_mut()[..x.len()];
    if x.len() < PARALLEL {
        place.chunks_mut(CHUNK).enumerate().for_each(chunk);
    } else {
        place.par_chunks_mut(CHUNK).enumerate().for_each(chunk);
    }
    // SAFETY: the chunks cover the elements of x.
    unsafe { out.set_len(x.len()) };
    out
}

/// `Σ ((Σ cᵢ·kᵢ) / (atol + rtol·max(|y0|, |y1|)))²`; the result does not depend on the number of threads.
pub fn error_squares<T: WithDType>(terms: &[(T, &[T])], y0: &[T], y1: &[T], rtol: f64, atol: f64) -> f64 {
    let chunk = |(i, y0): (usize, &[T])| {
        let range = i * CHUNK..i * CHUNK + y0.len();
        let mut error = [T::zero(); CHUNK];
        let error = &mut error[..y0.len()];
        for (c, k) in terms {
            accumulate(error, *c, &k[range.clone()]);
        }
        ratio_squares(error, y0, &y1[range], rtol, atol)
    };
    if y0.len() < PARALLEL {
        y0.chunks(CHUNK).enumerate().map(chunk).sum()
    } else {
        let sums: Vec<f64> = y0.par_chunks(CHUNK).enumerate().map(chunk).collect();
        sums.iter().sum()
    }
}

/// `Σ (e / (atol + rtol·max(|y0|, |y1|)))²`.
pub fn ratio_squares<T: WithDType>(error: &[T], y0: &[T], y1: &[T], rtol: f64, atol: f64) -> f64 {
    let mut sums = [0.0; LANES];
    let blocks = error.chunks(LANES).zip(y0.chunks(LANES)).zip(y1.chunks(LANES));
    for ((error, y0), y1) in blocks {
        for (((sum, e), y0), y1) in sums.iter_mut().zip(error).zip(y0).zip(y1) {
            let y1 = y1.to_f64();
            let scale = atol + rtol * y0.to_f64().abs().max(y1.abs());
            // `0·y1` is NaN when y1 overflowed, which `max` and the division would hide.
            let ratio = e.to_f64() / scale.max(f64::MIN_POSITIVE) + 0.0 * y1;
            *sum += ratio * ratio;
        }
    }
    sums.iter().sum()
}

/// Whether no element is NaN or infinite.
pub fn all_finite<T: WithDType>(x: &[T]) -> bool {
    // 0·x is 0 for every finite x and NaN otherwise.
    let mut sums = [T::zero(); LANES];
    for block in x.chunks(LANES) {
        for (sum, &x) in sums.iter_mut().zip(block) {
            *sum += x * T::zero();
        }
    }
    sums.iter().all(|sum| *sum == T::zero())
}

/// `√(sum / n)`; 0 for an empty state.
pub fn root_mean(sum: f64, n: usize) -> f64 {
    (sum / n.max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_threads_change_nothing() {
        for n in [0, 1, LANES + 3, CHUNK + 5, PARALLEL + CHUNK / 2] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
            let k: Vec<f32> = (0..n).map(|i| (i as f32 * 0.11).cos()).collect();
            let sum = add_scaled(&x, &[(0.5, &k), (-2.0, &x)]);
            assert!(sum.iter().zip(&x).zip(&k).all(|((s, x), k)| (s - (0.5 * k - x)).abs() < 1e-6));

            let squares = error_squares(&[(0.5, &k), (1.0, &x)], &x, &k, 1e-2, 1e-3);
            let expected: f64 = x
                .iter()
                .zip(&k)
                .map(|(&x, &k)| {
                    let (x, k) = (x as f64, k as f64);
                    ((0.5 * k + x) / (1e-3 + 1e-2 * x.abs().max(k.abs()))).powi(2)
                })
                .sum();
            assert!((squares - expected).abs() <= 1e-5 * expected, "{n}: {squares} {expected}");
        }
    }
}
