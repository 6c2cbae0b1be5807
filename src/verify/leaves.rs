//! Finds the leaf of each sealed entry: the index of the leaf, and the hash in the stored tree.
//! Reads lead_audit.leaf_range in ascending order of ids.

use crate::entries::relation_of_schema;
use crate::pg::{IdScan, RowMemory, ServerError, SpiPlan};
use crate::seal::{InsertedIds, StoredTiles, TreeRow, last_id_given_out, parse_ids};
use ledger::IdRange;
use ledger::merkle::{Hash, TILE_WIDTH, TileId, Tiles};
use pgrx::{IntoDatum, pg_sys};
use std::collections::VecDeque;

/// Number of tiles in the cache. The cache has several tiles, because the leaf of an entry that was
/// sealed late is far from the leaves of neighbouring ids.
const TILES: usize = 8;

/// A reader of the leaves, which advances together with the scan of the entries.
pub struct Leaves {
    ranges: IdScan,
    range: Option<LeafRange>,
    tiles: StoredTiles,
    cached: VecDeque<(u64, Vec<Hash>)>,
    memory: RowMemory,
    tree_size: u64,
    looked_to: i64,
    last_id: i64,
    open: Vec<IdRange>,
    inserted: InsertedIds,
}

/// A range of consecutive ids whose leaves have consecutive indexes.
#[derive(Debug, Clone, Copy)]
pub struct LeafRange {
    /// The range of ids.
    pub ids: IdRange,
    /// The index of the leaf of the first id in the range.
    first_leaf: u64,
}

impl LeafRange {
    /// Returns the index of the leaf of `id`, which must be in the range.
    pub fn leaf(&self, id: i64) -> u64 {
        self.first_leaf + id.abs_diff(self.ids.first)
    }
}

impl Leaves {
    /// Opens the leaves of the ids from `from` to `to`, as the snapshot shows them. The caller must
    /// have a connection to SPI.
    ///
    /// # Safety
    /// The snapshot must be active as long as the returned value lives.
    pub unsafe fn open(
        snapshot: pg_sys::Snapshot,
        from: i64,
        to: i64,
    ) -> Result<Self, ServerError> {
        let tree = TreeRow::load(snapshot)?;
        // The sequence is read after the snapshot was taken. If the snapshot shows an entry whose
        // id is higher than `last_id`, the entry therefore did not get its id from the sequence.
        let last_id = last_id_given_out().unwrap_or(i64::MAX);
        // SAFETY: the snapshot is active as long as the returned value lives (see # Safety).
        let mut ranges = unsafe { IdScan::open(relation_of_schema(c"leaf_range"), snapshot)? };
        // The range that contains the id `from` can begin below `from`.
        let before = SpiPlan::prepare(
            "SELECT first_id FROM lead_audit.leaf_range WHERE first_id <= $1 \
             ORDER BY first_id DESC LIMIT 1",
            &[pg_sys::INT8OID],
        );
        let first = before.read(snapshot, &[from.into_datum()]).get(0, 0).unwrap_or(from);
        ranges.range(first, to);
        let gaps =
            SpiPlan::prepare("SELECT ids::text FROM lead_audit.open_gap ORDER BY first_id", &[])
                .read(snapshot, &[]);
        let mut open = Vec::new();
        for row in 0..gaps.len() {
            open.extend_from_slice(
                parse_ids(&gaps.get::<String>(row, 0).unwrap_or_default())?.ranges(),
            );
        }
        open.sort_by_key(|range| range.first);
        let mut leaves = Leaves {
            ranges,
            range: None,
            tiles: StoredTiles::of(snapshot),
            cached: VecDeque::new(),
            memory: RowMemory::new(c"lead_audit tile"),
            tree_size: tree.size,
            looked_to: tree.looked_to,
            last_id,
            open,
            inserted: InsertedIds::known(snapshot)?,
        };
        leaves.advance();
        while leaves.range.is_some_and(|range| range.ids.last < from) {
            leaves.advance();
        }
        Ok(leaves)
    }

    /// Returns the current range of ids, or `None` after the last range.
    pub fn range(&self) -> Option<LeafRange> {
        self.range
    }

    /// Moves to the next range of ids.
    pub fn advance(&mut self) {
        self.range = self.ranges.next().map(|first| {
            let (values, _) = self.ranges.columns(3);
            let number = |index: usize| values.get(index).map_or(0, |value| value.value() as i64);
            let first_leaf = number(2) as u64;
            // Sealing never writes a range with more leaves than the tree has. If somebody has
            // stored a longer range, the code shortens the range, so that verification does not
            // step through a huge number of ids. The module `tree` reports the longer range.
            let most = i64::try_from(self.tree_size.saturating_sub(first_leaf)).unwrap_or(i64::MAX);
            let last = number(1).min(first.saturating_add(most).saturating_sub(1));
            LeafRange { ids: IdRange { first, last }, first_leaf }
        });
    }

    /// Returns the stored hash of the leaf with the index `leaf`, or `None` if the leaf is missing.
    pub fn stored(&mut self, leaf: u64) -> Option<Hash> {
        let index = leaf / TILE_WIDTH as u64;
        let place = match self.cached.iter().position(|(cached, _)| *cached == index) {
            Some(place) => place,
            None => {
                let tiles = &self.tiles;
                // A tile that cannot be read counts as empty here. The module `tree` reports the
                // reason why the tile cannot be read.
                let read = || {
                    tiles
                        .tile(TileId { level: 0, index })
                        .map(|hashes| hashes.into_owned())
                        .unwrap_or_default()
                };
                let hashes = self.memory.for_row(read);
                self.cached.truncate(TILES - 1);
                self.cached.push_front((index, hashes));
                0
            }
        };
        self.cached[place].1.get((leaf % TILE_WIDTH as u64) as usize).copied()
    }

    /// Returns whether an unsealed entry with this id is legitimate. An unsealed entry is
    /// legitimate if the entry was written after the last sealing, or if its transaction was in
    /// progress during the last sealing.
    pub fn may_be_unsealed(&self, id: i64) -> bool {
        if self.inserted.contains(id) {
            return false;
        }
        if id > self.looked_to {
            return id <= self.last_id;
        }
        let next = self.open.partition_point(|range| range.first <= id);
        next > 0 && id <= self.open[next - 1].last
    }
}
