//! Defines [`Frontier`], the right edge of a Merkle tree. The right edge is enough to append
//! leaves.

use super::{Hash, empty_root, node_hash};
use thiserror::Error;

/// The right edge of a Merkle tree: the roots of the maximal perfect subtrees, from the largest
/// (leftmost) to the smallest. A tree has one maximal perfect subtree for each set bit of its size.
/// The roots of the maximal perfect subtrees suffice to append leaves and to compute the root of
/// the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    pub(super) size: u64,
    pub(super) hashes: Vec<Hash>,
}

/// The error for a right edge whose number of hashes does not fit the size of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the right edge of a tree of {size} leaves has {expected} hashes, not {found}")]
pub struct FrontierError {
    /// Number of leaves in the tree.
    pub size: u64,
    /// Number of hashes in the right edge of a tree of this size.
    pub expected: usize,
    /// Number of hashes that the caller of [`Frontier::from_parts`] passed.
    pub found: usize,
}

impl Frontier {
    /// Returns the right edge of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Builds the right edge of a tree of `size` leaves. `hashes` must be the hashes that
    /// [`hashes`](Self::hashes) returned for this tree. This function cannot check the hashes, so
    /// the caller must compare the [`root`](Self::root) with the expected root.
    pub fn from_parts(size: u64, hashes: Vec<Hash>) -> Result<Self, FrontierError> {
        let expected = size.count_ones() as usize;
        if hashes.len() == expected {
            Ok(Frontier { size, hashes })
        } else {
            Err(FrontierError { size, expected, found: hashes.len() })
        }
    }

    /// Returns the number of leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the roots of the maximal perfect subtrees, from the largest to the smallest.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Returns the root of the tree: MTH of RFC 6962, section 2.1.
    pub fn root(&self) -> Hash {
        let from_the_right = self.hashes.iter().rev().copied();
        from_the_right.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf_hash: Hash) {
        self.push_with(leaf_hash, |_, _| {});
    }

    /// Appends a leaf. Calls `completed` with the height and the hash of each perfect subtree that
    /// the leaf completes, from the leaf itself (height 0) upwards.
    pub(super) fn push_with(&mut self, leaf_hash: Hash, mut completed: impl FnMut(u32, &Hash)) {
        completed(0, &leaf_hash);
        let mut hash = leaf_hash;
        for height in 1..=self.size.trailing_ones() {
            // `hashes` has one hash for each set bit of `size`. The loop runs once for each
            // trailing 1 bit of `size`, so `pop` always returns a hash.
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            completed(height, &hash);
        }
        self.hashes.push(hash);
        self.size += 1;
    }
}
