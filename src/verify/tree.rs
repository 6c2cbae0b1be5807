//! Checks the stored tree: all inner nodes, and the root, ids, note and signature of each
//! checkpoint.
//!
//! If an entry differs from its stored leaf, either the entry or the stored leaf was changed. The
//! root in the checkpoint shows which of the two is right.

use super::faults::Faults;
use super::signatures::Signatures;
use super::stored_state;
use crate::pg::{RowMemory, ServerError, SpiPlan};
use crate::seal::{StoredTiles, TreeRow, parse_ids};
use ledger::IdRanges;
use ledger::KeyChange;
use ledger::checkpoint::Checkpoint;
use ledger::merkle::{Frontier, Hash, TILE_WIDTH, TileId, TileWriter, Tiles};
use ledger::note::Note;
use pgrx::{IntoDatum, pg_sys};
use std::collections::{BTreeMap, HashMap};

/// Number of leaves after which the computed tiles are compared with the stored tiles and freed.
const COMPARE_EVERY: u64 = 1 << 16;

/// A row of lead_audit.checkpoint that is not checked yet.
struct Row {
    size: u64,
    root: Vec<u8>,
    ids: String,
    note: String,
}

struct Check<'f> {
    tiles: StoredTiles,
    memory: RowMemory,
    faults: &'f mut Faults,
    signatures: Signatures<'f>,
    /// The leaf hashes of the entries that differ from their stored leaves, by the index of the
    /// leaf.
    of_entries: HashMap<u64, Hash>,
    /// The tree that is computed from the stored leaves.
    stored: TileWriter,
    /// The confirmed tree. In this tree, the leaf hash of the entry replaces each stored leaf that
    /// a checkpoint has shown to be wrong. While no stored leaf has turned out to be wrong, the
    /// field is `None`, and `stored` is the confirmed tree.
    confirmed: Option<Frontier>,
    /// The confirmed tree of the last checkpoint, followed by the leaves of the later entries. For
    /// an entry that differs from its stored leaf, the tree contains the entry's own leaf hash. The
    /// field is `None` if no entry since the last checkpoint differs from its stored leaf.
    alternative: Option<Frontier>,
    /// The tree sizes and ids of the unconfirmed checkpoints since the last confirmed checkpoint. A
    /// checkpoint is unconfirmed if neither the stored leaves nor the entries yield its root.
    unconfirmed: Vec<(u64, IdRanges)>,
    /// The hashes of the current tile of level 0.
    tile: Vec<Hash>,
}

/// Checks the whole tree and all checkpoints.
pub fn check(
    snapshot: pg_sys::Snapshot,
    key_changes: &BTreeMap<i64, KeyChange>,
    faults: &mut Faults,
) -> Result<(), ServerError> {
    let tree = TreeRow::load(snapshot)?;
    let of_entries = faults.leaves_of_entries();
    let mut check = Check {
        tiles: StoredTiles::of(snapshot),
        memory: RowMemory::new(c"lead_audit verified tile"),
        faults,
        signatures: Signatures::of(&tree, key_changes),
        of_entries,
        stored: TileWriter::new(),
        confirmed: None,
        alternative: None,
        unconfirmed: Vec::new(),
        tile: Vec::new(),
    };
    let next = SpiPlan::prepare(
        "SELECT c.tree_size, c.root, c.entry_ids::text, c.note FROM lead_audit.checkpoint c \
         WHERE c.tree_size > $1 ORDER BY c.tree_size LIMIT 1",
        &[pg_sys::INT8OID],
    );
    let array = pg_sys::INT8ARRAYOID;
    let ranges = SpiPlan::prepare(
        "SELECT pg_catalog.count(*) FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), \
         pg_catalog.unnest($3)) AS w (first_id, last_id, first_leaf) JOIN lead_audit.leaf_range r \
         USING (first_id, last_id, first_leaf)",
        &[array, array, array],
    );
    let (mut size, mut all_ranges, mut last_id) = (0, 0, i64::MIN);
    loop {
        pgrx::check_for_interrupts!();
        let rows = next.read(snapshot, &[(size as i64).into_datum()]);
        let row = || {
            Some(Row {
                size: rows.get::<i64>(0, 0)? as u64,
                root: rows.get(0, 1)?,
                ids: rows.get(0, 2)?,
                note: rows.get(0, 3)?,
            })
        };
        let Some(row) = row() else { break };
        drop(rows);
        let ids = check.ids(&row, size, snapshot, &ranges);
        last_id = ids.last().map_or(last_id, |last| last.max(last_id));
        all_ranges += ids.ranges().len() as i64;
        check.note(&row, &ids);
        if !check.append_up_to(row.size) {
            return Ok(());
        }
        check.root(&row, size, ids);
        size = row.size;
    }
    check.finish(size, tree.size);
    check.signatures.finish(check.faults);
    stored_state::check(snapshot, &tree, size, check.faults);
    if last_id > tree.looked_to {
        let detail = format!(
            "entry {last_id} is sealed, and lead_audit.tree says that only ids up to {} are",
            tree.looked_to
        );
        check.faults.of_tree("checkpoint", detail);
    }
    let counted = SpiPlan::prepare("SELECT pg_catalog.count(*) FROM lead_audit.leaf_range", &[])
        .read(snapshot, &[])
        .get::<i64>(0, 0);
    if counted != Some(all_ranges) {
        let detail = format!(
            "lead_audit.leaf_range has {} rows; the checkpoints have {all_ranges} ranges",
            counted.unwrap_or(0)
        );
        check.faults.of_tree("checkpoint", detail);
    }
    Ok(())
}

impl Check<'_> {
    /// Checks that the number of a checkpoint's ids equals the number of leaves that the checkpoint
    /// adds. Checks that lead_audit.leaf_range maps the checkpoint's ids to the leaves that the
    /// checkpoint adds.
    fn ids(
        &mut self,
        row: &Row,
        before: u64,
        snapshot: pg_sys::Snapshot,
        ranges: &SpiPlan,
    ) -> IdRanges {
        let ids = parse_ids(&row.ids).unwrap_or_default();
        let (mut first_ids, mut last_ids, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
        let mut leaf = before;
        for range in ids.ranges() {
            first_ids.push(range.first);
            last_ids.push(range.last);
            leaves.push(leaf as i64);
            leaf += range.count();
        }
        if leaf != row.size {
            let detail = format!(
                "the checkpoint of tree size {} has {} ids for {} leaves",
                row.size,
                leaf - before,
                row.size - before
            );
            self.faults.of_tree("checkpoint", detail);
        }
        let arguments = [first_ids.into_datum(), last_ids.into_datum(), leaves.into_datum()];
        let found = self.memory.for_row(|| ranges.read(snapshot, &arguments).get::<i64>(0, 0));
        if found != Some(ids.ranges().len() as i64) {
            let detail = format!(
                "ids of the checkpoint of tree size {} lead to other leaves in \
                 lead_audit.leaf_range",
                row.size
            );
            self.faults.of_tree("checkpoint", detail);
        }
        ids
    }

    /// Checks that the note of a checkpoint agrees with the checkpoint's row, and that the note's
    /// signature is valid.
    fn note(&mut self, row: &Row, ids: &IdRanges) {
        let said = Note::parse_or_unsigned(row.note.as_bytes())
            .map_err(|error| error.to_string())
            .and_then(|note| {
                Checkpoint::parse(note.text())
                    .map(|checkpoint| (note, checkpoint))
                    .map_err(|error| error.to_string())
            });
        let complaint = match said {
            Err(error) => Some(("checkpoint", error)),
            Ok((_, said)) if said.size() != row.size || said.root()[..] != row.root[..] => {
                Some(("checkpoint", "its note says another size or root".to_owned()))
            }
            Ok((note, said)) => {
                self.signatures.check(&note, said.origin(), row.size, ids, self.faults);
                None
            }
        };
        if let Some((kind, complaint)) = complaint {
            self.faults
                .of_tree(kind, format!("the checkpoint of tree size {}: {complaint}", row.size));
        }
    }

    /// Appends the stored leaves up to the tree size `size`. Returns false if a leaf is missing and
    /// no entry supplies the hash of this leaf. The leaves after a missing leaf cannot be checked.
    fn append_up_to(&mut self, size: u64) -> bool {
        while self.stored.size() < size {
            let leaf = self.stored.size();
            let place = (leaf % TILE_WIDTH as u64) as usize;
            if place == 0 {
                pgrx::check_for_interrupts!();
                self.tile = self.read(TileId { level: 0, index: leaf / TILE_WIDTH as u64 });
            }
            let of_entry = self.of_entries.get(&leaf).copied();
            let Some(hash) = self.tile.get(place).copied().or(of_entry) else {
                self.faults.of_tree(
                    "tree_tile",
                    format!(
                        "leaf {leaf} is missing in the tree: what follows it cannot be checked"
                    ),
                );
                return false;
            };
            if of_entry.is_some() && self.alternative.is_none() {
                self.alternative =
                    Some(self.confirmed.clone().unwrap_or_else(|| self.stored.frontier().clone()));
            }
            if let Some(alternative) = &mut self.alternative {
                alternative.push(of_entry.unwrap_or(hash));
            }
            if let Some(confirmed) = &mut self.confirmed {
                confirmed.push(hash);
            }
            self.stored.push(hash);
            if self.stored.size().is_multiple_of(COMPARE_EVERY) {
                self.compare_tiles();
            }
        }
        true
    }

    fn read(&mut self, id: TileId) -> Vec<Hash> {
        let tiles = &self.tiles;
        match self.memory.for_row(|| tiles.tile(id).map(|hashes| hashes.into_owned())) {
            Ok(hashes) => hashes,
            Err(error) => {
                self.faults.of_tree("tree_tile", error.to_string());
                Vec::new()
            }
        }
    }

    /// Compares the computed inner nodes with the stored inner nodes, and reports differences.
    fn compare_tiles(&mut self) {
        for (id, hashes) in self.stored.take_changed() {
            if id.level == 0 {
                continue;
            }
            let stored = self.read(id);
            let differing = (0..hashes.len()).find(|&i| stored.get(i) != hashes.get(i));
            if let Some(place) = differing {
                let width = 1_u64 << (8 * u32::from(id.level));
                let first = (id.index * TILE_WIDTH as u64 + place as u64) * width;
                self.faults.of_tree(
                    "tree_tile",
                    format!(
                        "tile {} of level {} is not what the leaves below it give: leaves {first} \
                         to {}",
                        id.index,
                        id.level,
                        first + width - 1
                    ),
                );
            }
        }
    }

    /// Checks whether the stored leaves yield the root of a checkpoint. If the stored leaves do not
    /// yield the root, checks whether the entries that differ from their leaves yield the root.
    fn root(&mut self, row: &Row, before: u64, ids: IdRanges) {
        let root = self.confirmed.as_ref().map_or_else(|| self.stored.root(), Frontier::root);
        let alternative = self.alternative.take();
        if root[..] == row.root[..] {
            self.report_single_checkpoints();
        } else if let Some(alternative) =
            alternative.filter(|alternative| alternative.root()[..] == row.root[..])
        {
            self.report_single_checkpoints();
            let blamed: Vec<u64> = self
                .of_entries
                .keys()
                .copied()
                .filter(|leaf| (before..row.size).contains(leaf))
                .collect();
            self.faults.blame_tree(blamed.into_iter());
            self.confirmed = Some(alternative);
        } else {
            self.unconfirmed.push((row.size, ids));
        }
    }

    /// Reports the unconfirmed checkpoints after a later root was confirmed. If the root of a later
    /// checkpoint is confirmed, all leaves before this checkpoint are right. The earlier
    /// checkpoints whose roots are unconfirmed were therefore changed themselves.
    fn report_single_checkpoints(&mut self) {
        for (size, _) in std::mem::take(&mut self.unconfirmed) {
            self.faults.of_tree(
                "checkpoint",
                format!(
                    "the checkpoint of tree size {size} has a root that its tree does not give"
                ),
            );
        }
    }

    /// Checks the size of the tree and the last tile of each level. Reports the checkpoints that
    /// are still unconfirmed at the end of the tree.
    fn finish(&mut self, size: u64, tree_size: u64) {
        self.compare_tiles();
        if size != tree_size {
            self.faults.of_tree(
                "checkpoint",
                format!("the tree has {tree_size} leaves; the newest checkpoint has {size}"),
            );
        }
        if let Some((first, ids)) = self.unconfirmed.first() {
            let ids = match (ids.ranges().first(), ids.last()) {
                (Some(range), Some(last)) => format!("between ids {} and {last}", range.first),
                _ => "of unknown id".to_owned(),
            };
            let detail = format!(
                "from the checkpoint of tree size {first} on, {} checkpoints have roots that the \
                 tree does not give: an entry {ids} was changed together with its leaf, or these \
                 checkpoints were",
                self.unconfirmed.len()
            );
            self.faults.of_tree("checkpoint", detail);
        }
        // The size of the tree determines how many hashes the last tile of each level must have.
        let nodes = |level: u8| size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        for level in (0_u8..8).take_while(|&level| level == 0 || nodes(level) > 0) {
            let index = nodes(level) / TILE_WIDTH as u64;
            let (expected, found) = (
                (nodes(level) % TILE_WIDTH as u64) as usize,
                self.read(TileId { level, index }).len(),
            );
            if expected != found {
                let detail = format!(
                    "tile {index} of level {level} has {found} hashes instead of {expected}"
                );
                self.faults.of_tree("tree_tile", detail);
            }
        }
    }
}
