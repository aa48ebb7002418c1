//! Elementary functions in f32 that vectorise: no calls, no tables, no branches.
//!
//! Polynomials are evaluated with fused multiply-adds, which all processors have that kernels are compiled for
//! ([`super::simd`]); on older ones the standard library computes the same values step by step.
//!
//! Accurate to a few units in the last place over the range that networks use (tested against f64).

/// `e^x`, by `2^n · e^r` with |r| ≤ ln 2 / 2 and a Taylor polynomial of degree 7 for `e^r`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5·2²³ rounds to the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let p = 1.0f32 / 5040.0;
    let p = p.mul_add(r, 1.0 / 720.0);
    let p = p.mul_add(r, 1.0 / 120.0);
    let p = p.mul_add(r, 1.0 / 24.0);
    let p = p.mul_add(r, 1.0 / 6.0);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(power)
}

/// [`exp`], which ends at e^−87 and e^88, up to where f32 ends: there as the square of a half.
#[inline(always)]
pub(crate) fn exp_everywhere(x: f32) -> f32 {
    let half = exp(0.5 * x);
    if x.abs() < 87.0 { exp(x) } else { half * half }
}

/// Hyperbolic tangent: the rational minimax approximation x·P(x²)/Q(x²), up to where it is 1 in f32.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let x = x.clamp(-7.998_811_7, 7.998_811_7);
    let s = x * x;
    let p = -2.760_768_5e-16f32;
    let p = p.mul_add(s, 2.000_188e-13);
    let p = p.mul_add(s, -8.604_672e-11);
    let p = p.mul_add(s, 5.122_297_1e-8);
    let p = p.mul_add(s, 1.485_722_4e-5);
    let p = p.mul_add(s, 6.372_619_3e-4);
    let p = p.mul_add(s, 4.893_524_6e-3);
    let q = 1.198_258_4e-6f32;
    let q = q.mul_add(s, 1.185_347_1e-4);
    let q = q.mul_add(s, 2.268_434_6e-3);
    let q = q.mul_add(s, 4.893_525e-3);
    x * p / q
}

/// Error function: the rational minimax approximation x·P(x²)/Q(x²) on |x| ≤ 4.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let p = -2.726_142_3e-10f32;
    let p = p.mul_add(s, 2.770_681_4e-8);
    let p = p.mul_add(s, -2.101_024e-6);
    let p = p.mul_add(s, -5.692_506_4e-5);
    let p = p.mul_add(s, -7.349_906_3e-4);
    let p = p.mul_add(s, -2.954_6e-3);
    let p = p.mul_add(s, -1.609_603_3e-2);
    let q = -1.456_607_2e-5f32;
    let q = q.mul_add(s, -2.133_740_6e-4);
    let q = q.mul_add(s, -1.682_827e-3);
    let q = q.mul_add(s, -7.373_329e-3);
    let q = q.mul_add(s, -1.426_474e-2);
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(
        range: std::ops::Range<i32>,
        scale: f32,
        fast: impl Fn(f32) -> f32,
        exact: impl Fn(f64) -> f64,
    ) -> f64 {
        let error = |i: i32| {
            let x = i as f32 * scale;
            let expected = exact(f64::from(x));
            (f64::from(fast(x)) - expected).abs() / expected.abs().max(1e-30)
        };
        range.map(error).fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_accurate() {
        assert!(worst(-8500..8700, 0.01, exp, f64::exp) < 3e-7);
    }

    #[test]
    fn tanh_is_accurate() {
        assert!(worst(-9000..9000, 0.001, |x| if x == 0.0 { 0.0 } else { tanh(x) }, f64::tanh) < 5e-7);
        assert_eq!(tanh(0.0), 0.0);
    }

    #[test]
    fn erf_is_accurate() {
        // Series for erf in f64, independent of the rational form above.
        let exact = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= -x * x / n as f64;
                sum += term / (2 * n + 1) as f64;
            }
            2.0 / std::f64::consts::PI.sqrt() * sum
        };
        assert!(worst(1..3000, 0.001, erf, exact) < 5e-7);
    }
}
