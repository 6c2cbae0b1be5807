//! The tiles that store a tree: C2SP tlog-tiles, "Merkle Tree".
//!
//! A tile at level L holds up to 256 consecutive nodes of height 8·L. Level 0 holds leaf hashes.
//! Each higher level holds the roots of full tiles of the level below. Only the last tile of a
//! level can be partial, and a hash in a tile never changes.

use super::{Hash, hash_text};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use thiserror::Error;

/// Number of tree levels in one tile.
pub const TILE_HEIGHT: u32 = 8;

/// Number of hashes in a full tile.
pub const TILE_WIDTH: usize = 1 << TILE_HEIGHT;

/// The position of a tile: level, and index in the level, both from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// 0 for leaf hashes. A tree of 2⁶³ leaves has tile levels up to 7.
    pub level: u8,
    /// Index in the level.
    pub index: u64,
}

impl TileId {
    /// Returns the number of hashes, 0 to 256, that the tree of `size` leaves has in this tile.
    /// C2SP tlog-tiles, "Partial Tiles".
    pub fn width_at(self, size: u64) -> usize {
        let nodes = size.checked_shr(TILE_HEIGHT * u32::from(self.level)).unwrap_or(0);
        let before = self.index.saturating_mul(TILE_WIDTH as u64);
        nodes.saturating_sub(before).min(TILE_WIDTH as u64) as usize
    }
}

/// A store of tiles: a table, a file, memory.
pub trait Tiles {
    /// The error of a failed read.
    type Error;

    /// Returns all stored hashes of a tile, which may be more than the tree in question has; none
    /// if the tile is missing.
    fn tile(&self, id: TileId) -> Result<Cow<'_, [Hash]>, Self::Error>;
}

/// Tiles in memory.
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

/// The errors of reading a tree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TreeError<E> {
    /// The tiles could not be read.
    #[error(transparent)]
    Source(#[from] E),
    /// A tile has fewer hashes than the tree requires.
    #[error("tile {} of level {} has {found} hashes instead of {needed}", .id.index, .id.level)]
    Missing {
        /// The tile.
        id: TileId,
        /// Number of hashes required.
        needed: usize,
        /// Number of hashes found.
        found: usize,
    },
    /// A tree of this size has no leaf with this index.
    #[error("a tree of {size} leaves has no leaf {index}")]
    NoSuchLeaf {
        /// Index of the leaf, from 0.
        index: u64,
        /// Number of leaves in the tree.
        size: u64,
    },
    /// A tree cannot grow from the larger size to the smaller.
    #[error("a tree of {from} leaves does not grow to one of {to}")]
    SizesReversed {
        /// Number of leaves in the supposedly older tree.
        from: u64,
        /// Number of leaves in the supposedly newer tree.
        to: u64,
    },
    /// The tiles belong to another tree.
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
