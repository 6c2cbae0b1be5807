//! The tiles in which a tree is kept: C2SP tlog-tiles, "Merkle Tree".
//!
//! A tile at level L holds up to 256 consecutive nodes of height 8·L: at level 0 leaf hashes, above
//! it the roots of full tiles of the level below. Only the last tile of a level is ever partial,
//! and a hash in a tile never changes.

use super::{Hash, hash_text};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use thiserror::Error;

/// Levels of the tree that one tile spans.
pub const TILE_HEIGHT: u32 = 8;

/// Hashes in a full tile.
pub const TILE_WIDTH: usize = 1 << TILE_HEIGHT;

/// Which tile: its level and its place in the level, both from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// 0 for leaf hashes; a tree of 2⁶³ leaves has levels up to 7.
    pub level: u8,
    /// Place in the level.
    pub index: u64,
}

impl TileId {
    /// Whether the tree of `size` leaves has a tile here, and how many hashes it has: 0 to 256.
    /// C2SP tlog-tiles, "Partial Tiles".
    pub fn width_at(self, size: u64) -> usize {
        let nodes = size.checked_shr(TILE_HEIGHT * u32::from(self.level)).unwrap_or(0);
        let before = self.index.saturating_mul(TILE_WIDTH as u64);
        nodes.saturating_sub(before).min(TILE_WIDTH as u64) as usize
    }
}

/// Where tiles are kept: a table, a file, memory.
pub trait Tiles {
    /// What can go wrong with reading.
    type Error;

    /// The hashes of a tile, as many as are kept, which may be more than the tree in question has;
    /// none if it is not there.
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

/// Why something could not be read from a tree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TreeError<E> {
    /// The tiles could not be read.
    #[error(transparent)]
    Source(#[from] E),
    /// A tile has fewer hashes than the tree has there.
    #[error("tile {} of level {} has {found} hashes instead of {needed}", .id.index, .id.level)]
    Missing {
        /// The tile.
        id: TileId,
        /// Hashes that it must have.
        needed: usize,
        /// Hashes that it has.
        found: usize,
    },
    /// There is no leaf of this index in a tree of this size.
    #[error("a tree of {size} leaves has no leaf {index}")]
    NoSuchLeaf {
        /// Which leaf, from 0.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// A tree cannot grow from the larger size to the smaller.
    #[error("a tree of {from} leaves does not grow to one of {to}")]
    SizesReversed {
        /// Leaves in the tree that was to be the older.
        from: u64,
        /// Leaves in the tree that was to be the newer.
        to: u64,
    },
    /// The tiles are those of another tree.
    #[error("the tiles give the root {} for {size} leaves, not {}", hash_text(.computed), hash_text(.expected))]
    Root {
        /// Leaves in the tree.
        size: u64,
        /// The root that it should have.
        expected: Hash,
        /// The root that the tiles give.
        computed: Hash,
    },
}
