//! Computes roots and proofs from tiles. Each computation reads at most two tiles of each level, so
//! the time grows with the logarithm of the tree's size. This module does not check the tiles: a
//! proof that was computed from damaged tiles fails when a verifier checks the proof.

use super::tiles::{TILE_HEIGHT, TILE_WIDTH, TileId, Tiles, TreeError};
use super::{Hash, empty_root, node_hash, perfect_root};
use std::collections::HashMap;

/// Returns the root of the tree's first `size` leaves: MTH(D\[0:size\]) of RFC 6962, section 2.1.
pub fn root_at<T: Tiles>(tiles: T, size: u64) -> Result<Hash, TreeError<T::Error>> {
    Nodes::new(tiles).root(0, size)
}

/// Returns the proof that leaf `index` is in the tree of the first `size` leaves: PATH(index,
/// D\[size\]) of RFC 6962, section 2.1.1. The proof begins with the hash of the leaf's sibling, and
/// ends with the hash of a child of the root.
pub fn inclusion_proof<T: Tiles>(
    tiles: T,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, TreeError<T::Error>> {
    if index >= size {
        return Err(TreeError::NoSuchLeaf { index, size });
    }
    let mut nodes = Nodes::new(tiles);
    let mut proof = Vec::new();
    // The loop descends from the root to the leaf, so it finds the last hash of the proof first.
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(nodes.root(middle, end)?);
            end = middle;
        } else {
            proof.push(nodes.root(start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Returns the consistency proof PROOF(from, D\[to\]) of RFC 6962, section 2.1.2. The proof shows
/// that the tree of the first `to` leaves extends the tree of the first `from` leaves. The proof is
/// empty if `from` is 0 or equal to `to`, because every tree extends the empty tree and itself.
pub fn consistency_proof<T: Tiles>(
    tiles: T,
    from: u64,
    to: u64,
) -> Result<Vec<Hash>, TreeError<T::Error>> {
    if from > to {
        return Err(TreeError::SizesReversed { from, to });
    }
    if from == 0 || from == to {
        return Ok(Vec::new());
    }
    let mut nodes = Nodes::new(tiles);
    let mut proof = Vec::new();
    let (mut start, mut end) = (0, to);
    // This loop is SUBPROOF of RFC 6962. The loop ends at the subtree whose last leaf is the last
    // leaf of the older tree.
    while end != from {
        let middle = start + split(end - start);
        if from <= middle {
            proof.push(nodes.root(middle, end)?);
            end = middle;
        } else {
            proof.push(nodes.root(start, middle)?);
            start = middle;
        }
    }
    // If `start` is 0, the subtree at which the loop ended is the whole older tree. The proof omits
    // the root of the older tree, because the verifier already has this root.
    if start > 0 {
        proof.push(nodes.root(start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Returns the number of leaves in the left subtree of a tree of `len` leaves: the largest power of
/// two below `len`. `len` must be at least 2.
fn split(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}

/// Computes the nodes of a tree from its tiles, and reads each tile only once.
pub(super) struct Nodes<T> {
    tiles: T,
    read: HashMap<TileId, Vec<Hash>>,
}

impl<T: Tiles> Nodes<T> {
    pub(super) fn new(tiles: T) -> Self {
        Nodes { tiles, read: HashMap::new() }
    }

    /// Returns MTH(D\[start:end\]) of RFC 6962, section 2.1. The range must be one of the ranges
    /// into which RFC 6962 splits a tree. `start` must be a multiple of the largest power of two
    /// that is at most `end - start`.
    pub(super) fn root(&mut self, mut start: u64, end: u64) -> Result<Hash, TreeError<T::Error>> {
        let mut subtrees = Vec::new();
        while start < end {
            let height = (end - start).ilog2();
            subtrees.push(self.perfect(height, start)?);
            start += 1 << height;
        }
        let from_the_right = subtrees.into_iter().rev();
        Ok(from_the_right.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root))
    }

    /// Returns the root of the perfect subtree of 2^`height` leaves that begins at leaf `start`.
    pub(super) fn perfect(&mut self, height: u32, start: u64) -> Result<Hash, TreeError<T::Error>> {
        let level = height / TILE_HEIGHT;
        // The subtree has `count` nodes at the tile's level. `first` is the index, within this
        // level, of the leftmost node of the subtree.
        let first = start >> (TILE_HEIGHT * level);
        let count = 1 << (height % TILE_HEIGHT);
        let id = TileId { level: level as u8, index: first / TILE_WIDTH as u64 };
        let offset = (first % TILE_WIDTH as u64) as usize;
        let hashes = self.hashes(id, offset + count)?[offset..offset + count].to_vec();
        // `count` is a power of two and never zero, so `perfect_root` always returns a root.
        Ok(perfect_root(hashes).unwrap_or_else(empty_root))
    }

    /// Returns the hashes of a tile. Fails if the tile has fewer than `needed` hashes.
    pub(super) fn hashes(
        &mut self,
        id: TileId,
        needed: usize,
    ) -> Result<&[Hash], TreeError<T::Error>> {
        let hashes = match self.read.entry(id) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(self.tiles.tile(id)?.into_owned())
            }
        };
        if hashes.len() < needed {
            return Err(TreeError::Missing { id, needed, found: hashes.len() });
        }
        Ok(hashes)
    }
}
