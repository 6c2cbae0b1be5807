//! Writes entries and checkpoints of the database to an export. A history is written checkpoint by
//! checkpoint, and a selection entry by entry.

use super::{EntryReader, Selection, Snapshot, select};
use crate::error::CommandError;
use export::write::{HistoryWriter, Output, SelectionWriter, StoredCheckpoint};
use export::{Header, Kind, Place};
use ledger::checkpoint::Checkpoint;
use ledger::merkle::{Frontier, Hash, consistency_proof, empty_root, inclusion_proof};
use ledger::note::Note;
use ledger::{IdRange, IdRanges};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// `write_history` reads the checkpoints in groups. A group ends at the latest with the checkpoint
/// at which the group has at least this number of leaves.
const LEAVES_AT_ONCE: u64 = 1 << 16;

/// Number of checkpoints that one query reads.
const CHECKPOINTS_AT_ONCE: i64 = 256;

/// Number of ranges of ids that one query reads.
const RANGES_AT_ONCE: usize = 4096;

/// The reasons why an export could not be written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The database failed, or the database cannot provide the requested export.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file of the export could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// The part of the tree to export.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// Size of the tree with which the export starts.
    pub from: u64,
    /// The root that the tree of size `from` must have. None accepts the root in the database.
    pub from_root: Option<Hash>,
    /// Size of the tree with which the export ends. None exports everything up to the newest tree,
    /// and also the unsealed entries.
    pub to: Option<u64>,
    /// Sizes of older trees. For each of these sizes, the export contains a proof that the exported
    /// tree extends the older tree.
    pub prove_from: Vec<u64>,
    /// Whether the file already contains the beginning of this export.
    pub goes_on: bool,
}

/// The numbers of records that were written to an export.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    pub entries: u64,
    pub unsealed: u64,
    pub checkpoints: u64,
    pub from_size: u64,
    pub tree_size: u64,
}

fn refused(text: String) -> ExportError {
    CommandError::Refused(text).into()
}

/// Writes a history: all entries that the log sealed between two tree sizes.
pub fn write_history<W: Write>(
    snapshot: &Snapshot,
    output: Output<W>,
    range: &Range,
    progress: &mut dyn FnMut(u64),
) -> Result<(Output<W>, Written), ExportError> {
    let reader = EntryReader::new(snapshot)?;
    let tiles = snapshot.tiles();
    let last = snapshot.last_checkpoint(range.to)?;
    let end = last.as_ref().map_or(0, |last| last.tree_size);
    if let Some(to) = range.to
        && to != end
    {
        return Err(refused(format!(
            "there is no checkpoint of {to} leaves; the one before has {end}"
        )));
    }
    let (edge, note) = begin(snapshot, range, end)?;
    let mut writer = if range.goes_on {
        HistoryWriter::resume(output, edge)
    } else {
        HistoryWriter::begin(output, header(Kind::History, last.as_ref(), None), edge, note)?
    };
    for &older in &range.prove_from {
        if older < range.from {
            writer.consistency(older, prove(snapshot, older, range.from)?)?;
        }
    }
    let mut written = Written { from_size: range.from, tree_size: end, ..Written::default() };
    let mut size = range.from;
    while size < end {
        let mut checkpoints = snapshot.checkpoints_after(size, end, CHECKPOINTS_AT_ONCE)?;
        let enough =
            checkpoints.iter().position(|checkpoint| checkpoint.tree_size - size >= LEAVES_AT_ONCE);
        checkpoints.truncate(enough.map_or(checkpoints.len(), |last| last + 1));
        let Some(last) = checkpoints.last() else { break };
        let (from, to) = (size, last.tree_size);
        let mut leaves = tiles.leaves(from, to)?;
        // If the leaves do not yield the root of a checkpoint, the writer takes the right edge from
        // the upper levels of the tree. The right edges are read before the entries, because
        // reading the entries occupies the connection.
        let mut edges = Vec::new();
        for checkpoint in &checkpoints {
            edges.push(tiles.edge(checkpoint.tree_size, &checkpoint.root));
        }
        let ranges: Vec<IdRange> = checkpoints
            .iter()
            .flat_map(|checkpoint| checkpoint.entry_ids.ranges().iter().copied())
            .collect();
        let mut waiting = checkpoints.into_iter().zip(edges).peekable();
        let (mut current, mut last) = (IdRanges::new(), None);
        let mut open = false;
        let mut next = |writer: &mut HistoryWriter<W>| -> Result<Option<IdRanges>, ExportError> {
            let Some((checkpoint, edge)) = waiting.next() else { return Ok(None) };
            let count = usize::try_from(checkpoint.tree_size.saturating_sub(size))
                .unwrap_or(usize::MAX)
                .min(leaves.len());
            let own: Vec<Hash> = leaves.drain(..count).collect();
            size = checkpoint.tree_size;
            written.checkpoints += 1;
            let ids = checkpoint.entry_ids.clone();
            writer.checkpoint(checkpoint, own, || edge)?;
            Ok(Some(ids))
        };
        let mut entries = 0;
        for some in ranges.chunks(RANGES_AT_ONCE) {
            reader.read::<ExportError>(some, |id, stored| {
                // Several tampered checkpoints can contain the same ids. If an id is lower than the
                // id before it, the entry with the lower id belongs to a later checkpoint.
                while !open || !current.contains(id) || last.is_some_and(|last| last > id) {
                    if open {
                        writer.end_checkpoint()?;
                    }
                    let Some(ids) = next(&mut writer)? else {
                        return Err(refused(format!(
                            "the database gave entry {id}, which was not asked for"
                        )));
                    };
                    (current, last, open) = (ids, None, true);
                }
                last = Some(id);
                entries += 1;
                if entries % 256 == 0 {
                    progress(256);
                }
                Ok(writer.entry(id, &stored)?)
            })?;
        }
        // Writes the remaining checkpoints, for which the database has no entries.
        loop {
            if open {
                writer.end_checkpoint()?;
            }
            open = next(&mut writer)?.is_some();
            if !open {
                break;
            }
        }
        written.entries += entries;
    }
    if range.to.is_none() {
        let (unsealed, possible) = snapshot.unsealed_ids()?;
        // An inserted entry is an entry that somebody added without the extension. Inserted entries
        // are written before the unsealed entries.
        for inserted in [true, false] {
            for some in unsealed.ranges().chunks(RANGES_AT_ONCE) {
                reader.read::<ExportError>(some, |id, stored| {
                    if inserted != possible.contains(id) {
                        written.unsealed += u64::from(!inserted);
                        writer.unsealed(id, &stored, inserted)?;
                    }
                    Ok(())
                })?;
            }
        }
    }
    Ok((writer.end(end)?, written))
}

/// Returns the right edge and the note of the tree with which a history starts.
fn begin(
    snapshot: &Snapshot,
    range: &Range,
    end: u64,
) -> Result<(Frontier, Option<String>), ExportError> {
    let from = range.from;
    if from > end {
        return Err(refused(format!(
            "the history has gone back: the export is to go on from a tree of {from} leaves, \
             the log has {end}. Was an old backup restored?"
        )));
    }
    if from == 0 {
        return Ok((Frontier::new(), None));
    }
    let stored = snapshot.checkpoint(from)?;
    let Some(StoredCheckpoint { root, note, .. }) = stored else {
        return Err(refused(format!("there is no checkpoint of {from} leaves")));
    };
    if range.from_root.is_some_and(|expected| expected != root) {
        return Err(refused(format!(
            "the history has forked: the checkpoint of {from} leaves in the database is not the \
             one that the export ends with"
        )));
    }
    let edge = snapshot.tiles().edge(from, &root);
    let edge = edge.ok_or_else(|| {
        refused(format!(
            "the stored tree does not give the root of the checkpoint of {from} leaves: \
             export from the beginning"
        ))
    })?;
    Ok((edge, Some(note)))
}

/// Writes a selection: the selected entries, each with its inclusion proof.
pub fn write_selection<W: Write>(
    snapshot: &Snapshot,
    output: Output<W>,
    selection: &Selection,
    range: &Range,
    progress: &mut dyn FnMut(u64),
) -> Result<(Output<W>, Written), ExportError> {
    let reader = EntryReader::new(snapshot)?;
    let last = snapshot.last_checkpoint(range.to)?;
    let end = last.as_ref().map_or(0, |last| last.tree_size);
    if let Some(to) = range.to
        && to != end
    {
        return Err(refused(format!(
            "there is no checkpoint of {to} leaves; the one before has {end}"
        )));
    }
    let selected = select(snapshot, selection, end)?;
    let header = header(Kind::Selection, last.as_ref(), Some(selection.text()));
    let mut writer = SelectionWriter::begin(output, header, last)?;
    for &older in &range.prove_from {
        if older < end {
            writer.consistency(older, prove(snapshot, older, end)?)?;
        }
    }
    let mut written =
        Written { checkpoints: u64::from(end > 0), tree_size: end, ..Written::default() };
    let tiles = snapshot.tiles();
    for some in selected.sealed.chunks(256) {
        let mut places = std::collections::HashMap::new();
        for &(index, id) in some {
            let proof =
                inclusion_proof(&tiles, index, end).map_err(|error| unprovable(id, &error))?;
            let leaf = tiles.leaf(index)?;
            places.insert(id, (Place { index, proof }, leaf));
        }
        let ids: Vec<IdRange> = some.iter().map(|&(_, id)| IdRange::of(id)).collect();
        reader.read::<ExportError>(&ids, |id, stored| {
            let Some((place, leaf)) = places.remove(&id) else { return Ok(()) };
            written.entries += 1;
            let own = stored.leaf().unwrap_or_else(empty_root);
            Ok(writer.entry(id, &stored, place, leaf.unwrap_or(own))?)
        })?;
        progress(some.len() as u64);
    }
    if range.to.is_none() {
        let (_, possible) = snapshot.unsealed_ids()?;
        for inserted in [true, false] {
            let ids: Vec<IdRange> = selected
                .unsealed
                .iter()
                .filter(|&&id| inserted != possible.contains(id))
                .map(|&id| IdRange::of(id))
                .collect();
            for some in ids.chunks(RANGES_AT_ONCE) {
                reader.read::<ExportError>(some, |id, stored| {
                    written.unsealed += u64::from(!inserted);
                    Ok(writer.unsealed(id, &stored, inserted)?)
                })?;
            }
        }
    }
    Ok((writer.end()?, written))
}

fn unprovable(id: i64, error: &dyn std::fmt::Display) -> ExportError {
    refused(format!("the stored tree has no proof for entry {id}: {error}"))
}

fn prove(snapshot: &Snapshot, from: u64, to: u64) -> Result<Vec<Hash>, ExportError> {
    let proof = consistency_proof(&snapshot.tiles(), from, to);
    proof.map_err(|error| {
        refused(format!("the stored tree does not prove that {from} leaves grew to {to}: {error}"))
    })
}

fn header(kind: Kind, last: Option<&StoredCheckpoint>, selection: Option<String>) -> Header {
    let origin = last.and_then(|last| {
        let note = Note::parse_or_unsigned(last.note.as_bytes()).ok()?;
        Some(Checkpoint::parse(note.text()).ok()?.origin().to_owned())
    });
    Header { exported_at: now(), kind, origin, selection }
}

/// Returns the current time, in microseconds since 2000.
fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX) - 946_684_800_000_000
}
