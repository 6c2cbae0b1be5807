//! Verifies proofs without access to the tree. The algorithms are those of RFC 9162, sections
//! 2.1.3.2 and 2.1.4.2, and also verify proofs of RFC 6962.

use super::{Hash, empty_root, hash_text, node_hash};
use thiserror::Error;

/// The reasons why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The index of the leaf is not below the size of the tree.
    #[error("a tree of {size} leaves has no leaf {index}")]
    NoSuchLeaf {
        /// Index of the leaf, counted from 0.
        index: u64,
        /// Number of leaves in the tree.
        size: u64,
    },
    /// The newer tree has fewer leaves than the older tree.
    #[error("the tree went back from {from} leaves to {to}")]
    WentBack {
        /// Number of leaves in the older tree.
        from: u64,
        /// Number of leaves in the newer tree.
        to: u64,
    },
    /// The number of hashes in the proof does not fit the index and the sizes of the trees.
    #[error("the proof has {found} hashes instead of {expected}")]
    Length {
        /// Number of hashes that a proof for the index and the tree sizes must have.
        expected: usize,
        /// Number of hashes that the proof has.
        found: usize,
    },
    /// The root computed from the proof differs from the root of the tree. In a consistency proof,
    /// this error concerns the root of the newer tree.
    #[error("the proof leads to the root {}, not {}", hash_text(.computed), hash_text(.expected))]
    Root {
        /// The root of the tree.
        expected: Hash,
        /// The root computed from the proof.
        computed: Hash,
    },
    /// The older root computed from a consistency proof differs from the root of the older tree.
    /// Either the log was forked, or the consistency proof is wrong.
    #[error(
        "the proof leads to the older root {}, not {}",
        hash_text(.computed), hash_text(.expected)
    )]
    OlderRoot {
        /// The root of the older tree.
        expected: Hash,
        /// The older root computed from the proof.
        computed: Hash,
    },
}

/// Checks an inclusion proof (RFC 9162, section 2.1.3.2). The proof must show that `leaf_hash` is
/// leaf `index` of the tree with this size and root.
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::NoSuchLeaf { index, size });
    }
    // The paths from the leaf and from the last leaf up to the root meet at a node. Below the node
    // where the paths meet, the proof has one hash for each level. Above the node where the paths
    // meet, the proof has one hash for each subtree to the left of the path.
    let last = size - 1;
    let below = u64::BITS - (index ^ last).leading_zeros();
    let expected = (below + index.checked_shr(below).unwrap_or(0).count_ones()) as usize;
    if proof.len() != expected {
        return Err(ProofError::Length { expected, found: proof.len() });
    }
    let (mut node, mut last) = (index, last);
    let mut hash = *leaf_hash;
    for sibling in proof {
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // The last node of a level moves up unchanged if it has no sibling.
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root { expected: *root, computed: hash }) }
}

/// Checks a consistency proof (RFC 9162, section 2.1.4.2). The tree of `to` leaves with the root
/// `to_root` must extend the tree of `from` leaves with the root `from_root`. Trees of the same
/// size must have the same root. Any tree extends the empty tree.
pub fn verify_consistency(
    from: u64,
    from_root: &Hash,
    to: u64,
    to_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if from > to {
        return Err(ProofError::WentBack { from, to });
    }
    let root_is = |computed: Hash, expected: &Hash| match computed == *expected {
        true => Ok(()),
        false => Err(ProofError::Root { expected: *expected, computed }),
    };
    let older_root_is = |computed: Hash, expected: &Hash| match computed == *expected {
        true => Ok(()),
        false => Err(ProofError::OlderRoot { expected: *expected, computed }),
    };
    if from == 0 || from == to {
        if !proof.is_empty() {
            return Err(ProofError::Length { expected: 0, found: proof.len() });
        }
        if from == 0 {
            older_root_is(empty_root(), from_root)?;
        }
        return match (from == to, to) {
            (true, 0) => root_is(empty_root(), to_root),
            (true, _) => older_root_is(*to_root, from_root),
            (false, _) => Ok(()),
        };
    }
    // `node` follows the path from the last leaf of the older tree to the root. `last` follows the
    // path from the last leaf of the newer tree to the root. `node` starts at the root of the
    // largest perfect subtree at the end of the older tree, because the newer tree also contains
    // this subtree.
    let shared = from.trailing_zeros();
    let (mut node, mut last) = ((from - 1) >> shared, (to - 1) >> shared);
    let below = u64::BITS - (node ^ last).leading_zeros();
    let above = node.checked_shr(below).unwrap_or(0).count_ones();
    // If the older tree is perfect, the proof omits the root of the older tree, which the verifier
    // already has.
    let start_is_older_root = from.is_power_of_two();
    let expected = (below + above) as usize + usize::from(!start_is_older_root);
    if proof.len() != expected {
        return Err(ProofError::Length { expected, found: proof.len() });
    }
    let mut siblings = proof.iter();
    let start = if start_is_older_root { from_root } else { siblings.next().unwrap_or(from_root) };
    let (mut older, mut newer) = (*start, *start);
    for sibling in siblings {
        if node & 1 == 1 || node == last {
            older = node_hash(sibling, &older);
            newer = node_hash(sibling, &newer);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            newer = node_hash(&newer, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    older_root_is(older, from_root)?;
    root_is(newer, to_root)
}
