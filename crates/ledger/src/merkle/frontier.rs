//! The right edge of a tree.

use super::{Hash, empty_root, node_hash};
use thiserror::Error;

/// The right edge of a tree: the roots of its maximal perfect subtrees, the largest (leftmost)
/// first. Each set bit of the size has one. Appending and the root need nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    pub(super) size: u64,
    pub(super) hashes: Vec<Hash>,
}

/// The number of hashes does not fit the size of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the right edge of a tree of {size} leaves has {expected} hashes, not {found}")]
pub struct FrontierError {
    /// Number of leaves in the tree.
    pub size: u64,
    /// Number of hashes in the right edge of such a tree.
    pub expected: usize,
    /// Number of hashes passed.
    pub found: usize,
}

impl Frontier {
    /// Returns the right edge of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Builds the right edge of a tree of `size` leaves from [`hashes`](Self::hashes). Only the
    /// [`root`](Self::root) can show whether the hashes are correct.
    pub fn from_parts(size: u64, hashes: Vec<Hash>) -> Result<Self, FrontierError> {
        let expected = size.count_ones() as usize;
        if hashes.len() == expected {
            Ok(Frontier { size, hashes })
        } else {
            Err(FrontierError { size, expected, found: hashes.len() })
        }
    }

    /// Number of leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, the largest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The root of the tree: MTH of RFC 6962, section 2.1.
    pub fn root(&self) -> Hash {
        let from_the_right = self.hashes.iter().rev().copied();
        from_the_right.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf_hash: Hash) {
        self.push_with(leaf_hash, |_, _| {});
    }

    /// Appends a leaf. Calls `completed` with height and hash of each perfect subtree that the leaf
    /// completes, from the leaf itself (height 0) upwards.
    pub(super) fn push_with(&mut self, leaf_hash: Hash, mut completed: impl FnMut(u32, &Hash)) {
        completed(0, &leaf_hash);
        let mut hash = leaf_hash;
        for height in 1..=self.size.trailing_ones() {
            // The size has as many set bits as there are hashes, so each trailing one bit has a
            // hash to pop.
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            completed(height, &hash);
        }
        self.hashes.push(hash);
        self.size += 1;
    }
}
