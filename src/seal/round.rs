//! Runs one round of sealing within one transaction.
//!
//! A round of sealing seals the entries that its snapshot shows and that no checkpoint contains
//! yet. A round first examines the open ids whose transactions have ended since the last round, and
//! then the new ids. A round reads the entries one by one, so memory holds only the hashes and id
//! ranges of one checkpoint. The progress of sealing is stored only in tables, so a crash or a
//! rollback leaves the state of the last committed round.

use super::checkpoint_file::CheckpointFile;
use super::inserted_ids::InsertedIds;
use super::key_entry::{KeyEntry, has_arrived};
use super::open_ids::{self, OpenIds, last_id_given_out};
use super::publish::{self, PublishMode};
use super::signer::Signer;
use super::stored_tree::StoredCheckpoint;
use super::stored_tree::{StoredTiles, store_tiles, tree_is_damaged};
use super::stored_tree::{TreeRow, tree_exists};
use super::tree_guard::Sealing;
use crate::entries::{EntryColumn, relation_of_schema};
use crate::pg::{
    IdScan, NewestSnapshot, RowMemory, ServerError, as_user, detoasted, extension_owner, with_spi,
};
use ledger::merkle::{Hash, TileWriter};
use ledger::note::SigningKey;
use ledger::{IdRange, IdRanges};
use pgrx::{PgSqlErrorCode, pg_sys};

/// Maximum number of entries in one checkpoint. The hashes of a checkpoint's entries stay in memory
/// until the checkpoint is stored.
const CHECKPOINT_ENTRIES: u64 = 1 << 17;

/// Maximum number of id ranges in one checkpoint.
const CHECKPOINT_RANGES: usize = 1 << 13;

/// The result of a round of sealing.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Number of leaves in the tree.
    pub tree_size: u64,
    /// Whether another round must follow at once, because this round has not examined all ids.
    pub more: bool,
}

/// A round of sealing in progress. This session holds the sealing lock, so no other session seals
/// at the same time.
pub struct Round<'s> {
    snapshot: &'s NewestSnapshot,
    tree: TreeRow,
    newest: Option<StoredCheckpoint>,
    /// The ids of entries that somebody inserted manually. A round never seals manually inserted
    /// entries.
    inserted: InsertedIds,
    signer: Option<Signer>,
    writer: Option<TileWriter>,
    /// The ids of the entries that the next checkpoint will contain.
    ids: IdRanges,
    /// Number of leaves in the tree of the last stored checkpoint.
    sealed: u64,
    /// Whether all older checkpoints have files, or will have files after the commit of this
    /// transaction.
    is_caught_up: bool,
    memory: RowMemory,
}

/// Seals the committed entries with open ids and with new ids. Examines at most `limit` new ids.
pub fn run(limit: Option<u64>) -> Result<Done, ServerError> {
    with_spi(|| {
        let change = KeyEntry::write_if_due()?;
        // If the round seals a KEY entry, the number of examined ids has no limit. A round with a
        // KEY entry must also examine all ids below the id of the KEY entry.
        let limit = limit.filter(|_| change.is_none());
        // The highest id must be read from the sequence before the snapshot is taken (see the head
        // of open_ids.rs).
        let last_id = last_id_given_out()?;
        let snapshot = NewestSnapshot::take();
        let mut tree = TreeRow::load(snapshot.as_ptr())?;
        let newest = StoredCheckpoint::newest(snapshot.as_ptr())?;
        if newest.as_ref().map_or(0, |checkpoint| checkpoint.size) != tree.size {
            return Err(out_of_step(&tree, newest.as_ref()));
        }
        if tree.must_wait_for_restore(snapshot.as_ptr()) {
            return Ok(Done { tree_size: tree.size, more: false });
        }
        if limit.is_some() && change.is_none() {
            refuse_in_copy(&tree)?;
        }
        let _sealing = Sealing::begin();
        let sealed = tree.size;
        let inserted = InsertedIds::look(snapshot.as_ptr(), &tree)?;
        let mut round = Round {
            snapshot: &snapshot,
            tree,
            newest,
            inserted,
            signer: None,
            writer: None,
            ids: IdRanges::default(),
            sealed,
            is_caught_up: true,
            memory: RowMemory::new(c"lead_audit sealing"),
        };
        round.report_earlier_failure();
        round.is_caught_up = publish::publish_missing(snapshot.as_ptr(), round.newest.as_ref());
        round.seal(last_id, limit, change)
    })
}

/// Returns the name of the original if this database is a copy of another database. Returns `None`
/// if this database is not a copy. Returns `None` also if the settings specify another origin than
/// the last checkpoint has, because the copy's log and the original's log have different origins in
/// this case.
fn original(tree: &TreeRow) -> Result<Option<String>, ServerError> {
    let Some(original) = tree.copied_from() else { return Ok(None) };
    let now = Signer::of(tree)?.identity();
    let is_another_log = tree.identity.as_ref().is_some_and(|before| before.origin != now.origin);
    Ok(Some(original).filter(|_| !is_another_log))
}

/// Returns the name of the original if this database is a copy whose log still has the origin of
/// the original. Returns `None` if the database is not a copy or its log has an origin of its own,
/// and also if the look-up fails.
pub fn copied_from() -> Option<String> {
    let owner = extension_owner()?;
    let look =
        || with_spi(|| original(&TreeRow::load(NewestSnapshot::take().as_ptr()).ok()?).ok()?);
    // The caller of lead_audit.status() may have no rights on lead_audit.tree, so the table is read
    // as the owner of the extension.
    tree_exists().then(|| as_user(owner, look)).flatten()
}

/// Refuses to seal in a copy of a database if the log of the copy has the same origin as the log of
/// the original. The checkpoints of two databases with one origin contradict each other. Any role
/// that may create databases can copy a database, and the copy gets a worker at once.
fn refuse_in_copy(tree: &TreeRow) -> Result<(), ServerError> {
    let Some(original) = original(tree)? else { return Ok(()) };
    Err(ServerError {
        code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!(
            "this database is a copy of \"{original}\", whose audit log has the same name"
        ),
        detail: Some(
            "Set lead_audit.origin for this database, and another key if checkpoints are signed. \
             Or call lead_audit.seal() to go on under the same name."
                .to_owned(),
        ),
    })
}

fn too_many_transactions() -> ServerError {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message:
            "too many transactions are in progress to change the key or the origin of the audit log"
                .to_owned(),
        detail: Some("The next sealing tries again.".to_owned()),
    }
}

fn out_of_step(tree: &TreeRow, newest: Option<&StoredCheckpoint>) -> ServerError {
    let newest = newest.map_or("there is no checkpoint".to_owned(), |c| {
        format!("the newest checkpoint has {}", c.size)
    });
    ServerError {
        code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        message: "the tree of the audit log and its checkpoints do not belong together".to_owned(),
        detail: Some(format!(
            "The tree has {} leaves, and {newest}. While a database is being restored that is so \
             for a moment.",
            tree.size
        )),
    }
}

impl Round<'_> {
    fn seal(
        mut self,
        last_id: i64,
        limit: Option<u64>,
        change: Option<KeyEntry>,
    ) -> Result<Done, ServerError> {
        let in_progress = match self.snapshot.in_progress() {
            Some(in_progress) => in_progress,
            None if change.is_some() => return Err(too_many_transactions()),
            None => return Ok(self.postpone()),
        };
        let from = self.tree.looked_to;
        let to = limit.map_or(last_id, |limit| last_id.min(from.saturating_add_unsigned(limit)));
        let from_elsewhere = self.tree.is_from_elsewhere();
        if from_elsewhere && !has_arrived(self.snap(), &self.tree, self.newest.as_ref()) {
            return Ok(Done { tree_size: self.sealed, more: false });
        }
        let late = open_ids::due(self.snap(), &self.tree, &in_progress);
        if late.is_empty() && to <= from && !from_elsewhere {
            return Ok(Done { tree_size: self.sealed, more: false });
        }

        // SAFETY: the snapshot is active until the end of `run`.
        let mut entries = unsafe { IdScan::open(relation_of_schema(c"entry"), self.snap())? };
        let mut own_id = None;
        if let Some(KeyEntry { id, signer, former }) = change {
            // The checkpoint of the KEY entry contains no other entry, and is the first checkpoint
            // that the new key signs. A verifier that knows only the old key reads the new key from
            // the KEY entry.
            self.take(&mut entries, IdRange::of(id), &mut IdRanges::default())?;
            self.signer = Some(signer);
            self.write_checkpoint(former.as_ref())?;
            own_id = Some(id);
        }
        for first_id in late {
            let Some(gap) = OpenIds::load(self.snap(), first_id)? else { continue };
            let mut missing = IdRanges::default();
            for range in gap.ids.ranges() {
                self.take(&mut entries, *range, &mut missing)?;
            }
            if !gap.narrow(self.snap(), &missing, &in_progress, from_elsewhere) {
                self.tree.open_gaps -= 1;
            }
        }
        let mut missing = IdRanges::default();
        let before = own_id.map_or(to, |id| id - 1);
        if before > from {
            self.take(&mut entries, IdRange { first: from + 1, last: before }, &mut missing)?;
        }
        if let Some(id) = own_id.filter(|&id| id < to) {
            self.take(&mut entries, IdRange { first: id + 1, last: to }, &mut missing)?;
        }
        drop(entries);
        self.write_checkpoint(None)?;

        self.tree.waits_for.retain(|xid| in_progress.binary_search(xid).is_ok());
        let opened = open_ids::open(self.snap(), &missing, &in_progress);
        if opened > 0 {
            self.tree.open_gaps += opened;
            self.tree.waits_for = in_progress;
        }
        self.tree.adopt_this_cluster();
        self.tree.looked_to = to.max(from);
        self.tree.size = self.sealed;
        if let Some(signer) = &self.signer {
            self.tree.identity = Some(signer.identity());
        }
        self.tree.store(self.snap());
        // SAFETY: `ForceSyncCommit` only sets a flag, which makes the commit wait for the disk even
        // with synchronous_commit = off. A crash must not undo a checkpoint that was published.
        unsafe { pg_sys::ForceSyncCommit() };
        Ok(Done { tree_size: self.sealed, more: to < last_id })
    }

    /// Ends the round without sealing, because the snapshot cannot list all transactions in
    /// progress. A snapshot has no room for all of them if the server has given out too many
    /// transaction ids since the last time that a transaction ended. When this function stores the tree's
    /// row, the current transaction gets a higher id than all earlier transactions. After the
    /// current transaction has ended, a new snapshot can list all transactions in progress.
    fn postpone(self) -> Done {
        self.tree.store(self.snap());
        Done { tree_size: self.sealed, more: true }
    }

    fn snap(&self) -> pg_sys::Snapshot {
        self.snapshot.as_ptr()
    }

    /// Appends the leaves of the entries in a range of ids. If an id of the range has no entry,
    /// adds the id to `missing`.
    fn take(
        &mut self,
        entries: &mut IdScan,
        range: IdRange,
        missing: &mut IdRanges,
    ) -> Result<(), ServerError> {
        entries.range(range.first, range.last);
        let mut next = range.first;
        while let Some(id) = entries.next() {
            missing.push_range(IdRange { first: next, last: id - 1 });
            next = id + 1;
            if self.inserted.contains(id) {
                continue;
            }
            let index = EntryColumn::Checksum as usize;
            let (values, nulls) = entries.columns(index + 1);
            let checksum: Option<Hash> = self.memory.for_row(|| {
                if nulls[index] {
                    return None;
                }
                // SAFETY: the column `checksum` is a bytea. The detoasted bytes are in a memory
                // context that is reset after each row.
                unsafe { detoasted(values[index]) }.try_into().ok()
            });
            match checksum {
                Some(checksum) => self.push(id, &checksum)?,
                None => {
                    pgrx::warning!("entry {id} is not sealed: its checksum is not 32 bytes long")
                }
            }
        }
        missing.push_range(IdRange { first: next, last: range.last });
        Ok(())
    }

    fn push(&mut self, id: i64, checksum: &Hash) -> Result<(), ServerError> {
        if self.writer.is_none() {
            self.writer = Some(self.resume()?);
        }
        if let Some(writer) = &mut self.writer {
            writer.push(ledger::leaf_hash(checksum));
            self.ids.push(id);
            if writer.size() - self.sealed >= CHECKPOINT_ENTRIES
                || self.ids.ranges().len() >= CHECKPOINT_RANGES
            {
                self.write_checkpoint(None)?;
            }
        }
        Ok(())
    }

    /// Returns a writer that appends to the stored tree. Fails if the root of the stored tree
    /// differs from the root in the newest checkpoint.
    fn resume(&self) -> Result<TileWriter, ServerError> {
        match &self.newest {
            None => Ok(TileWriter::new()),
            Some(newest) => {
                TileWriter::resume(newest.size, &newest.root, StoredTiles::of(self.snap()))
                    .map_err(tree_is_damaged)
            }
        }
    }

    /// Stores a checkpoint that adds the leaves since the last checkpoint to the tree. Does nothing
    /// if no leaves were appended since the last checkpoint. After a key change, `former` is the
    /// previous key, which also signs the checkpoint.
    fn write_checkpoint(&mut self, former: Option<&SigningKey>) -> Result<(), ServerError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        if self.signer.is_none() {
            self.signer = Some(Signer::of(&self.tree)?);
        }
        let (Some(signer), Some(writer)) = (&self.signer, &mut self.writer) else { return Ok(()) };
        let (size, root) = (writer.size(), writer.root());
        let note = signer.note(size, &root, former)?;
        let (ids, changed) = (std::mem::take(&mut self.ids), writer.take_changed());
        let (snapshot, before, log_id) = (self.snapshot.as_ptr(), self.sealed, self.tree.log_id);
        self.memory.for_row(|| {
            store_tiles(snapshot, changed);
            StoredCheckpoint::store(snapshot, log_id, before, &ids, size, &root, &note);
        });
        publish::publish_later(
            CheckpointFile { size, note },
            if self.is_caught_up { PublishMode::New } else { PublishMode::NewWithoutFile },
        );
        self.sealed = size;
        Ok(())
    }

    /// Stores the last publishing failure of this process in lead_audit.tree, where all sessions
    /// can see the failure.
    fn report_earlier_failure(&self) {
        if let Some(error) = publish::take_failure() {
            self.tree.note_publishing_error(self.snap(), &error);
        }
    }
}
