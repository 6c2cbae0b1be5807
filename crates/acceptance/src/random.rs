//! Makes reproducible random choices with SplitMix64.

/// A sequence of random numbers.
pub struct Random(u64);

impl Random {
    /// Creates a sequence of random numbers from `stream` and the seed
    /// `LEAD_AUDIT_ACCEPTANCE_SEED`. Two sequences differ if their `stream` differs.
    #[must_use]
    pub fn new(stream: u64) -> Self {
        let seed = crate::setting("LEAD_AUDIT_ACCEPTANCE_SEED", 20_260_203);
        Random(seed ^ stream.wrapping_mul(0xA076_1D64_78BD_642F))
    }

    /// Returns the next number of the sequence.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a random number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.any() % limit
    }

    /// Returns true with the probability 1 / `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Returns a random element of the slice.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
