//! Appends to a tree that is stored in tiles.

use super::prove::Nodes;
use super::tiles::{TILE_HEIGHT, TILE_WIDTH, TileId, Tiles, TreeError};
use super::{Frontier, Hash};

/// Appends leaves to a tree, and returns the tiles that changed.
///
/// Appending a leaf computes two hashes on average, independent of the size of the tree. Memory
/// grows by about 32 bytes for each leaf that was appended since the last call of
/// [`take_changed`](Self::take_changed), so call that function from time to time.
#[derive(Debug, Clone, Default)]
pub struct TileWriter {
    frontier: Frontier,
    /// The last tile of each level, which is partial or empty.
    edge: Vec<Edge>,
    /// Tiles filled since the last call of `take_changed`.
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
    /// level. The tiles must yield `root`, which the caller takes from the checkpoint of that size.
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
        // The loop goes from the leftmost perfect subtree to the rightmost. The root of each
        // subtree can be computed from one of the tiles that were just read.
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
                // The root of the full tile becomes a node of the level above.
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

    /// Returns the tiles that changed since the last call, each with all of its hashes: first the
    /// filled tiles, then the last tile of each level. Each returned tile must replace the stored
    /// tile with the same id.
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
