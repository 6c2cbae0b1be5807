//! Appends leaves to a Merkle tree that is stored in tiles.

use super::prove::Nodes;
use super::tiles::{TILE_HEIGHT, TILE_WIDTH, TileId, Tiles, TreeError};
use super::{Frontier, Hash};

/// Appends leaves to a tree, and returns the tiles that changed.
///
/// Appending a leaf computes one inner node on average, independent of the size of the tree. Each
/// appended leaf takes about 32 bytes of memory until the next call of
/// [`take_changed`](Self::take_changed). The caller must therefore call
/// [`take_changed`](Self::take_changed) from time to time.
#[derive(Debug, Clone, Default)]
pub struct TileWriter {
    frontier: Frontier,
    /// The last tile of each level, which is partial or empty.
    edge: Vec<Edge>,
    /// The tiles that became full since the last call of `take_changed`.
    filled: Vec<(TileId, Vec<Hash>)>,
}

#[derive(Debug, Clone, Default)]
struct Edge {
    index: u64,
    hashes: Vec<Hash>,
    changed: bool,
}

impl TileWriter {
    /// Returns a writer for an empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a writer for the tree of `size` leaves in `tiles`. Reads the last tile of each
    /// level. Fails if the tiles do not yield `root`, which the caller takes from the checkpoint of
    /// tree size `size`.
    pub fn resume<T: Tiles>(size: u64, root: &Hash, tiles: T) -> Result<Self, TreeError<T::Error>> {
        let mut nodes = Nodes::new(tiles);
        let mut edge = Vec::new();
        for level in 0.. {
            let Some(nodes_in_level) =
                size.checked_shr(TILE_HEIGHT * level).filter(|&count| count > 0)
            else {
                break;
            };
            let (index, width) =
                (nodes_in_level / TILE_WIDTH as u64, (nodes_in_level % TILE_WIDTH as u64) as usize);
            let id = TileId { level: level as u8, index };
            let hashes =
                if width == 0 { Vec::new() } else { nodes.hashes(id, width)?[..width].to_vec() };
            edge.push(Edge { index, hashes, changed: false });
        }
        // The loop visits the maximal perfect subtrees of the tree from left to right. The root of
        // each maximal perfect subtree is computed from one of the tiles that the first loop of
        // this function has read.
        let mut hashes = Vec::with_capacity(size.count_ones() as usize);
        let mut start = 0;
        for height in (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1) {
            hashes.push(nodes.perfect(height, start)?);
            start += 1 << height;
        }
        let frontier = Frontier { size, hashes };
        let computed = frontier.root();
        if computed != *root {
            return Err(TreeError::Root { size, expected: *root, computed });
        }
        Ok(TileWriter { frontier, edge, filled: Vec::new() })
    }

    /// Returns the number of leaves in the tree.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Returns the root of the tree.
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Returns the right edge of the tree.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf_hash: Hash) {
        let (edge, filled) = (&mut self.edge, &mut self.filled);
        self.frontier.push_with(leaf_hash, |height, hash| {
            if !height.is_multiple_of(TILE_HEIGHT) {
                return;
            }
            let level = (height / TILE_HEIGHT) as usize;
            if edge.len() == level {
                edge.push(Edge::default());
            }
            let tile = &mut edge[level];
            tile.hashes.push(*hash);
            tile.changed = true;
            if tile.hashes.len() == TILE_WIDTH {
                // When the tile is full, a later call of this closure adds the root of the tile to
                // the level above.
                let id = TileId { level: level as u8, index: tile.index };
                filled.push((id, std::mem::take(&mut tile.hashes)));
                *tile = Edge {
                    index: tile.index + 1,
                    hashes: Vec::with_capacity(TILE_WIDTH),
                    changed: false,
                };
            }
        });
    }

    /// Returns the tiles that changed since the last call of this function, each with all of its
    /// hashes. The full tiles come before the last tile of each level. The caller must store each
    /// returned tile in place of the stored tile with the same id.
    pub fn take_changed(&mut self) -> Vec<(TileId, Vec<Hash>)> {
        let mut changed = std::mem::take(&mut self.filled);
        for (level, tile) in self.edge.iter_mut().enumerate() {
            if std::mem::take(&mut tile.changed) {
                changed
                    .push((TileId { level: level as u8, index: tile.index }, tile.hashes.clone()));
            }
        }
        changed
    }
}
