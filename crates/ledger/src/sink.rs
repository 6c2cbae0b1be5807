//! Where canonical text goes: a buffer, a hash, or a buffer whose growth can fail.

use sha2::{Digest, Sha256};

/// Takes text piece by piece.
///
/// Nothing here returns an error. A sink that can fail remembers that it did, and its owner asks at
/// the end.
pub trait Sink {
    /// Takes a byte.
    fn push(&mut self, byte: u8);
    /// Takes bytes.
    fn append(&mut self, bytes: &[u8]);
    /// Prepares for this many bytes.
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

/// How many bytes a [`Hashing`] gathers before it hashes them.
const GATHERED: usize = 2048;

/// Hashes what it is given. Short pieces are gathered, long ones are hashed where they are, so that
/// the memory that this takes does not depend on what is hashed.
pub(crate) struct Hashing<'a> {
    hasher: Sha256,
    gathered: &'a mut Vec<u8>,
}

impl<'a> Hashing<'a> {
    /// Begins. `scratch` is emptied.
    pub(crate) fn new(scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        Vec::reserve(scratch, GATHERED);
        Hashing { hasher: Sha256::new(), gathered: scratch }
    }

    /// SHA-256 of all that it was given.
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
        fn hashes_as_in_one_piece(pieces in prop::collection::vec((0..3 * GATHERED, any::<u8>()), 0..8)) {
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
