//! The right edge of a tree.

use super::{Hash, empty_root, node_hash};
use thiserror::Error;

/// The right edge of a tree: the roots of the perfect subtrees that it is made of, the largest
/// (leftmost) first. There is one for each bit that is set in the size. It is all that appending
/// and the root need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    pub(super) size: u64,
    pub(super) hashes: Vec<Hash>,
}

/// The hashes are not those of a right edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the right edge of a tree of {size} leaves has {expected} hashes, not {found}")]
pub struct FrontierError {
    /// Leaves in the tree.
    pub size: u64,
    /// Hashes that its right edge has.
    pub expected: usize,
    /// Hashes that were given.
    pub found: usize,
}

impl Frontier {
    /// That of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// That of a tree of `size` leaves, from [`hashes`](Self::hashes). Nothing can tell whether
    /// they are the right ones but the [`root`](Self::root).
    pub fn from_parts(size: u64, hashes: Vec<Hash>) -> Result<Self, FrontierError> {
        let expected = size.count_ones() as usize;
        if hashes.len() == expected {
            Ok(Frontier { size, hashes })
        } else {
            Err(FrontierError { size, expected, found: hashes.len() })
        }
    }

    /// Leaves in the tree.
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

    /// Appends a leaf and calls `completed` with height and hash of each perfect subtree that it
    /// completes, the leaf itself (height 0) included, from the leaf upwards.
    pub(super) fn push_with(&mut self, leaf_hash: Hash, mut completed: impl FnMut(u32, &Hash)) {
        completed(0, &leaf_hash);
        let mut hash = leaf_hash;
        for height in 1..=self.size.trailing_ones() {
            // As many hashes as there are bits set in the size: there is one to pop for each
            // trailing one.
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            completed(height, &hash);
        }
        self.hashes.push(hash);
        self.size += 1;
    }
}
