//! Defines the tiles in which a Merkle tree is stored (C2SP tlog-tiles, "Merkle Tree").
//!
//! A tile at level L holds up to 256 consecutive nodes of height 8·L. The tiles of level 0 hold
//! leaf hashes. In a tile of a level above 0, each hash is computed from all 256 hashes of one full
//! tile of the level below. Only the last tile of a level can be partial. A hash in a tile never
//! changes.

use super::{Hash, hash_text};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use thiserror::Error;

/// Number of levels of the tree that one tile covers.
pub const TILE_HEIGHT: u32 = 8;

/// Number of hashes in a full tile.
pub const TILE_WIDTH: usize = 1 << TILE_HEIGHT;

/// The position of a tile: its level and its index in the level, both counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// The level of the tile. The tiles of level 0 hold leaf hashes. A tree of 2⁶³ leaves has tiles
    /// of levels 0 to 7.
    pub level: u8,
    /// The index of the tile in its level.
    pub index: u64,
}

impl TileId {
    /// Returns the number of hashes, 0 to 256, that this tile has in the tree of `size` leaves
    /// (C2SP tlog-tiles, "Partial Tiles").
    pub fn width_at(self, size: u64) -> usize {
        let nodes = size.checked_shr(TILE_HEIGHT * u32::from(self.level)).unwrap_or(0);
        let before = self.index.saturating_mul(TILE_WIDTH as u64);
        nodes.saturating_sub(before).min(TILE_WIDTH as u64) as usize
    }
}

/// A store of tiles, such as a table, a file or memory.
pub trait Tiles {
    /// The error of a failed attempt to read a tile.
    type Error;

    /// Returns all stored hashes of a tile. The tile can have more hashes than the caller needs,
    /// because the stored tree can be larger than the caller's tree. Returns an empty slice if the
    /// tile is missing.
    fn tile(&self, id: TileId) -> Result<Cow<'_, [Hash]>, Self::Error>;
}

/// Stores tiles in memory.
impl Tiles for BTreeMap<TileId, Vec<Hash>> {
    type Error = Infallible;

    fn tile(&self, id: TileId) -> Result<Cow<'_, [Hash]>, Infallible> {
        Ok(self.get(&id).map(Vec::as_slice).unwrap_or_default().into())
    }
}

impl<T: Tiles> Tiles for &T {
    type Error = T::Error;

    fn tile(&self, id: TileId) -> Result<Cow<'_, [Hash]>, T::Error> {
        (**self).tile(id)
    }
}

/// The reasons why a root or a proof cannot be computed from the tiles of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TreeError<E> {
    /// The tiles could not be read.
    #[error(transparent)]
    Source(#[from] E),
    /// A tile has fewer hashes than the size of the tree requires.
    #[error("tile {} of level {} has {found} hashes instead of {needed}", .id.index, .id.level)]
    Missing {
        /// The position of the tile.
        id: TileId,
        /// Number of hashes that the size of the tree requires.
        needed: usize,
        /// Number of hashes that the tile has.
        found: usize,
    },
    /// The index of the leaf is not below the size of the tree.
    #[error("a tree of {size} leaves has no leaf {index}")]
    NoSuchLeaf {
        /// Index of the leaf, counted from 0.
        index: u64,
        /// Number of leaves in the tree.
        size: u64,
    },
    /// The older tree of a consistency proof has more leaves than the newer tree.
    #[error("a tree of {from} leaves does not grow to one of {to}")]
    SizesReversed {
        /// Number of leaves in the supposedly older tree.
        from: u64,
        /// Number of leaves in the supposedly newer tree.
        to: u64,
    },
    /// The tiles yield a root that differs from the expected root.
    #[error(
        "the tiles give the root {} for {size} leaves, not {}",
        hash_text(.computed), hash_text(.expected)
    )]
    Root {
        /// Number of leaves in the tree.
        size: u64,
        /// The expected root.
        expected: Hash,
        /// The root computed from the tiles.
        computed: Hash,
    },
}
