//! Reads the tiles of the tree from the database.

use super::{Raw, Snapshot};
use crate::error::CommandError;
use ledger::merkle::{Frontier, Hash, TILE_WIDTH, TileId, TileWriter, Tiles, empty_root};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

/// Maximum number of tiles in the cache. This number of tiles takes 8 MB.
const MAX_KEPT: usize = 1024;

/// Reads the tiles of the tree from the database, and caches them. The cache is emptied when it is
/// full.
pub struct DatabaseTiles<'s> {
    snapshot: &'s Snapshot,
    kept: RefCell<HashMap<TileId, Vec<Hash>>>,
}

impl<'s> DatabaseTiles<'s> {
    pub(super) fn new(snapshot: &'s Snapshot) -> Self {
        DatabaseTiles { snapshot, kept: RefCell::default() }
    }

    /// Returns the stored leaves with the indexes `from..to`. Stops before the first missing leaf.
    pub fn leaves(&self, from: u64, to: u64) -> Result<Vec<Hash>, CommandError> {
        let width = TILE_WIDTH as u64;
        let mut leaves = Vec::new();
        for index in from / width..to.div_ceil(width) {
            let hashes = self.read(TileId { level: 0, index })?;
            let (first, last) = (index * width, index * width + hashes.len() as u64);
            let (start, end) = (from.max(first), to.min(last));
            if start < end {
                leaves.extend_from_slice(&hashes[(start - first) as usize..(end - first) as usize]);
            }
            if last < to.min(first + width) {
                break;
            }
        }
        Ok(leaves)
    }

    /// Returns the stored leaf with this index. Returns None if the database does not have this
    /// leaf.
    pub fn leaf(&self, index: u64) -> Result<Option<Hash>, CommandError> {
        let width = TILE_WIDTH as u64;
        let tile = self.tile(TileId { level: 0, index: index / width })?;
        Ok(tile.get((index % width) as usize).copied())
    }

    /// Returns the right edge of the tree with this size and root. The right edge is computed from
    /// the upper levels of the tree. Returns None if the upper levels do not yield this root.
    pub fn edge(&self, size: u64, root: &Hash) -> Option<Frontier> {
        if size == 0 {
            return (*root == empty_root()).then(Frontier::new);
        }
        TileWriter::resume(size, root, self).ok().map(|writer| writer.frontier().clone())
    }

    fn read(&self, id: TileId) -> Result<Vec<Hash>, CommandError> {
        let Ok(index) = i64::try_from(id.index) else { return Ok(Vec::new()) };
        let rows = self.snapshot.query(
            "SELECT hashes FROM lead_audit.tree_tile WHERE level = $1 AND index = $2
             UNION ALL SELECT hashes FROM lead_audit.tree_edge WHERE level = $1 AND index = $2",
            &[&i16::from(id.level), &index],
        )?;
        let mut hashes = Vec::new();
        // A tile can remain in `tree_edge` after it was filled and stored in `tree_tile`. If both
        // tables have a row for a tile, the longer row is the complete tile.
        for row in &rows {
            let Raw(bytes) = row.try_get(0)?;
            let (found, _) = bytes.as_chunks::<32>();
            if found.len() > hashes.len() {
                hashes = found[..found.len().min(TILE_WIDTH)].to_vec();
            }
        }
        Ok(hashes)
    }
}

impl Tiles for DatabaseTiles<'_> {
    type Error = CommandError;

    fn tile(&self, id: TileId) -> Result<Cow<'_, [Hash]>, CommandError> {
        if let Some(hashes) = self.kept.borrow().get(&id) {
            return Ok(hashes.clone().into());
        }
        let hashes = self.read(id)?;
        let mut kept = self.kept.borrow_mut();
        if kept.len() == MAX_KEPT {
            kept.clear();
        }
        kept.insert(id, hashes.clone());
        Ok(hashes.into())
    }
}
