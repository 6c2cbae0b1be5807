//! Defines [`Sink`], the trait of the targets to which canonical JSON is written. A target is a
//! buffer, a hash, or a buffer whose growth can fail.

use sha2::{Digest, Sha256};

/// A target that receives text piece by piece.
///
/// No method of a sink returns an error. A sink that can fail stores its failure, and the owner of
/// the sink checks for a failure after the last piece.
pub trait Sink {
    /// Appends a byte.
    fn push(&mut self, byte: u8);
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]);
    /// Reserves capacity for `_additional` further bytes.
    fn reserve(&mut self, _additional: usize) {}
}

impl Sink for Vec<u8> {
    #[inline]
    fn push(&mut self, byte: u8) {
        Vec::push(self, byte);
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn reserve(&mut self, additional: usize) {
        Vec::reserve(self, additional);
    }
}

/// Number of bytes that [`Hashing`] buffers before it hashes them.
const GATHERED: usize = 2048;

/// A sink that computes the SHA-256 of its input. [`Hashing`] buffers short pieces and hashes long
/// pieces directly, so memory use does not depend on the size of the input.
pub(crate) struct Hashing<'a> {
    hasher: Sha256,
    gathered: &'a mut Vec<u8>,
}

impl<'a> Hashing<'a> {
    /// Begins a hash. Clears `scratch` and uses `scratch` as the buffer.
    pub(crate) fn new(scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        Vec::reserve(scratch, GATHERED);
        Hashing { hasher: Sha256::new(), gathered: scratch }
    }

    /// Returns the SHA-256 of all input.
    pub(crate) fn finish(mut self) -> [u8; 32] {
        self.hash_gathered();
        self.hasher.finalize().into()
    }

    fn hash_gathered(&mut self) {
        self.hasher.update(&*self.gathered);
        self.gathered.clear();
    }
}

impl Sink for Hashing<'_> {
    #[inline]
    fn push(&mut self, byte: u8) {
        self.append(&[byte]);
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        if self.gathered.len() + bytes.len() > GATHERED {
            self.hash_gathered();
            if bytes.len() > GATHERED {
                return self.hasher.update(bytes);
            }
        }
        self.gathered.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hashes_as_in_one_piece(
            pieces in prop::collection::vec((0..3 * GATHERED, any::<u8>()), 0..8),
        ) {
            let mut scratch = b"left over".to_vec();
            let mut hashing = Hashing::new(&mut scratch);
            let mut whole = Vec::new();
            for (length, byte) in pieces {
                hashing.append(&vec![byte; length]);
                hashing.push(byte);
                whole.extend(std::iter::repeat_n(byte, length + 1));
            }
            prop_assert_eq!(hashing.finish(), sha256(&whole));
            prop_assert!(scratch.capacity() < 2 * GATHERED);
        }
    }
}
