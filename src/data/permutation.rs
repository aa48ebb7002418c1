//! Shuffles of any length that need no memory.

/// A pseudo-random permutation of `0..len`: a Feistel network of six rounds on the next even power of two, walked
/// along its cycles back into the range (Black & Rogaway, CT-RSA 2002).
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    key: u64,
}

impl Permutation {
    /// The permutation that `seed` and `epoch` choose. `len` is at least 1.
    pub fn new(len: u64, seed: u64, epoch: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self { len, half_bits: bits.div_ceil(2).max(1), key: mix(mix(seed) ^ epoch) }
    }

    /// Where `index` goes.
    ///
    /// # Panics
    /// If `index` is `len` or above.
    pub fn at(&self, index: u64) -> u64 {
        assert!(index < self.len, "index {index} of a permutation of {}", self.len);
        let mut x = self.rounds(index);
        while x >= self.len {
            x = self.rounds(x);
        }
        x
    }

    fn rounds(&self, x: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for round in 0..6 {
            (left, right) = (right, left ^ (mix(self.key ^ (round << 58) ^ right) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014).
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_element_comes_once(len in 1u64..3000, seed: u64, epoch: u64) {
            let permutation = Permutation::new(len, seed, epoch);
            let mut seen: Vec<u64> = (0..len).map(|i| permutation.at(i)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn seeds_and_epochs_differ(seed: u64, epoch: u64) {
            let first = |seed, epoch| {
                let permutation = Permutation::new(1 << 40, seed, epoch);
                [0, 1, 2].map(|i| permutation.at(i))
            };
            prop_assert_ne!(first(seed, epoch), first(seed, epoch.wrapping_add(1)));
            prop_assert_ne!(first(seed, epoch), first(seed.wrapping_add(1), epoch));
        }
    }

    #[test]
    fn neighbours_are_scattered() {
        let len = 10_000;
        let permutation = Permutation::new(len, 1, 0);
        let jumps = (1..len).map(|i| permutation.at(i).abs_diff(permutation.at(i - 1)) as f64);
        let mean = jumps.sum::<f64>() / (len - 1) as f64;
        // Independent uniform positions are a third of the length apart on average.
        assert!((mean / (len as f64 / 3.0) - 1.0).abs() < 0.03, "{mean}");
    }
}
