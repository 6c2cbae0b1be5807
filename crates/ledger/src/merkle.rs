//! Implements the Merkle tree of RFC 6962, section 2.1, with SHA-256. RFC 9162 defines the same
//! tree.
//!
//! The leaves of the tree are hashes ([`crate::leaf_hash`]), so this module does not depend on the
//! content of entries. This module has three parts:
//!
//! * [`Frontier`] – the right edge of a tree, which suffices to append leaves and to compute the
//!   root
//! * [`TileWriter`] – appends leaves, and returns the tiles (C2SP tlog-tiles) that the caller must
//!   store
//! * [`root_at`], [`inclusion_proof`], [`consistency_proof`] – compute the root and the proofs from
//!   the stored tiles ([`Tiles`])
//!
//! [`verify_inclusion`] and [`verify_consistency`] check proofs without access to the tree.

mod frontier;
mod prove;
mod tiles;
mod verify;
mod writer;

pub use frontier::{Frontier, FrontierError};
pub use prove::{consistency_proof, inclusion_proof, root_at};
pub use tiles::{TILE_HEIGHT, TILE_WIDTH, TileId, Tiles, TreeError};
pub use verify::{ProofError, verify_consistency, verify_inclusion};
pub use writer::TileWriter;

use crate::encoding;
use crate::hash::sha256;

/// The SHA-256 hash of a leaf, of an inner node or of a whole tree.
pub type Hash = [u8; 32];

/// Returns the hash of an inner node: SHA-256(0x01 ‖ left ‖ right), RFC 6962 section 2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut node = [1; 65];
    node[1..33].copy_from_slice(left);
    node[33..].copy_from_slice(right);
    sha256(&node)
}

/// Returns the root of the empty tree: SHA-256 of the empty string, RFC 6962 section 2.1.
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// Returns a hash as base64. Checkpoints, proofs and messages contain hashes as base64.
pub fn hash_text(hash: &Hash) -> String {
    encoding::base64(hash)
}

/// Returns the root of a perfect subtree. `hashes` are the 2ⁿ nodes at one level of the subtree.
/// Hashes the nodes pair by pair, in place.
fn perfect_root(mut hashes: Vec<Hash>) -> Option<Hash> {
    debug_assert!(hashes.len().is_power_of_two());
    while hashes.len() > 1 {
        let half = hashes.len() / 2;
        for i in 0..half {
            hashes[i] = node_hash(&hashes[2 * i], &hashes[2 * i + 1]);
        }
        hashes.truncate(half);
    }
    hashes.pop()
}
