//! Reads a database through one connection. All reads through this connection see the same snapshot
//! of the database.
//!
//! The database is not trusted. Values are exported as they are stored, so that verification can
//! judge them.

mod connect;
mod entries;
mod history;
mod selection;
mod tiles;

pub use connect::connect;
pub use entries::EntryReader;
pub use history::{ExportError, Range, Written, write_history, write_selection};
pub use selection::{Selection, select};
pub use tiles::DatabaseTiles;

use crate::error::CommandError;
use export::write::StoredCheckpoint;
use ledger::IdRanges;
use ledger::merkle::Hash;
use postgres::types::{FromSql, Type};
use postgres::{Client, Row};
use std::cell::RefCell;
use std::error::Error;

/// A column value in PostgreSQL's binary format. The format depends on the type of the column.
/// [`EntryReader`] checks that each column has the expected type.
pub(crate) struct Raw<'a>(pub &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A connection on which all reads see one snapshot of the database.
pub struct Snapshot {
    client: RefCell<Client>,
}

impl Snapshot {
    /// Connects to a database, and begins a read-only transaction.
    pub fn open(url: &str) -> Result<Self, CommandError> {
        Self::begin(connect(url)?)
    }

    /// Begins a read-only transaction on an open connection.
    pub fn begin(mut client: Client) -> Result<Self, CommandError> {
        client.batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             SET LOCAL search_path = pg_catalog, pg_temp;
             SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
             SET LOCAL idle_in_transaction_session_timeout = 0;
             -- Entries are read by ranges of ids, and in their order: never all of them to sort
             -- them.
             SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
             SET LOCAL enable_sort = off;
             SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off;
             -- A database's owner can set these for it.
             SET LOCAL quote_all_identifiers = off; SET LOCAL transform_null_equals = off;
             SET LOCAL array_nulls = on;
             SELECT set_config(name, '0', true) FROM pg_settings
             WHERE name = 'transaction_timeout'",
        )?;
        Ok(Snapshot { client: RefCell::new(client) })
    }

    /// Ends the transaction, and returns the connection for further use.
    pub fn end(self) -> Result<Client, CommandError> {
        let mut client = self.client.into_inner();
        client.batch_execute("COMMIT")?;
        Ok(client)
    }

    pub(crate) fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn postgres::types::ToSql + Sync)],
    ) -> Result<Vec<Row>, CommandError> {
        Ok(self.client.borrow_mut().query(sql, parameters)?)
    }

    /// Returns a reader of the tree's tiles.
    pub fn tiles(&self) -> DatabaseTiles<'_> {
        DatabaseTiles::new(self)
    }

    /// Returns the newest checkpoint whose tree has at most `to` leaves. Without `to`, returns the
    /// newest checkpoint.
    pub fn last_checkpoint(
        &self,
        to: Option<u64>,
    ) -> Result<Option<StoredCheckpoint>, CommandError> {
        let to = to.map_or(i64::MAX, |to| i64::try_from(to).unwrap_or(i64::MAX));
        let sql = format!("{CHECKPOINTS} WHERE tree_size <= $1 ORDER BY tree_size DESC LIMIT 1");
        self.query(&sql, &[&to])?.first().map(checkpoint).transpose()
    }

    /// Returns the checkpoint with this tree size.
    pub fn checkpoint(&self, tree_size: u64) -> Result<Option<StoredCheckpoint>, CommandError> {
        let found = self.last_checkpoint(Some(tree_size))?;
        Ok(found.filter(|found| found.tree_size == tree_size))
    }

    /// Returns checkpoints whose trees have more than `tree_size` leaves, in ascending order.
    /// Returns at most `limit` checkpoints.
    pub fn checkpoints_after(
        &self,
        tree_size: u64,
        to: u64,
        limit: i64,
    ) -> Result<Vec<StoredCheckpoint>, CommandError> {
        let (from, to) =
            (i64::try_from(tree_size).unwrap_or(i64::MAX), i64::try_from(to).unwrap_or(i64::MAX));
        let sql = format!(
            "{CHECKPOINTS} WHERE tree_size > $1 AND tree_size <= $2 ORDER BY tree_size LIMIT $3"
        );
        self.query(&sql, &[&from, &to, &limit])?.iter().map(checkpoint).collect()
    }

    /// Returns two sets of ids: the ids that no checkpoint contains, and the ids that a later
    /// checkpoint can still contain.
    pub fn unsealed_ids(&self) -> Result<(IdRanges, IdRanges), CommandError> {
        // The multiranges are read as text, because `IdRanges` can parse this text.
        let rows = self.query(
            "SELECT COALESCE((SELECT range_agg(r)::text
                              FROM lead_audit.checkpoint, unnest(entry_ids) r
                              WHERE NOT lower_inf(r) AND NOT upper_inf(r)), '{}'),
                    COALESCE((SELECT range_agg(r)::text FROM lead_audit.open_gap, unnest(ids) r
                              WHERE NOT lower_inf(r) AND NOT upper_inf(r)), '{}'),
                    COALESCE((SELECT looked_to FROM lead_audit.tree
                              ORDER BY tree_size DESC, created_at LIMIT 1), 0),
                    COALESCE(pg_sequence_last_value('lead_audit.entry_id_seq'), 0)",
            &[],
        )?;
        let row = rows
            .first()
            .ok_or_else(|| CommandError::Database("a query without a result".to_owned()))?;
        let ranges =
            |column: usize| -> Result<IdRanges, CommandError> { id_ranges(row.try_get(column)?) };
        let unsealed = ranges(0)?.complement();
        let mut possible = ranges(1)?;
        let (looked_to, last_id): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        // A later checkpoint can contain each id above `looked_to` up to `last_id`. The sequence
        // has given out no id above `last_id`, so an entry with an id above `last_id` is a forgery.
        if let Some(next) = looked_to.checked_add(1).filter(|&next| next <= last_id) {
            possible.extend(&IdRanges::from_range(next, last_id));
        }
        // A forger can insert an entry under an id that the sequence gives out only later. The
        // table `inserted_entry` contains the ids of such entries. The SQL objects of version 1.0
        // do not have this table.
        let known =
            self.query("SELECT to_regclass('lead_audit.inserted_entry') IS NOT NULL", &[])?;
        if known.first().is_some_and(|row| row.get(0)) {
            let rows = self.query("SELECT id FROM lead_audit.inserted_entry ORDER BY id", &[])?;
            let inserted = rows
                .iter()
                .map(|row| Ok(row.try_get(0)?))
                .collect::<Result<Vec<i64>, CommandError>>()?;
            possible = possible.without(&inserted.into_iter().collect());
        }
        Ok((unsealed, possible))
    }
}

const CHECKPOINTS: &str =
    "SELECT tree_size, root, entry_ids::text, sealed_at, note FROM lead_audit.checkpoint";

fn checkpoint(row: &Row) -> Result<StoredCheckpoint, CommandError> {
    // A tamperer who can change `lead_audit.checkpoint` can store NULL in a column, or a range of
    // ids without an end in `entry_ids`. This function replaces such a value by a valid value that
    // matches no sealed entry. So verification can read the checkpoint, and reports a fault.
    let size: i64 = row.try_get(0)?;
    let root: Option<&[u8]> = row.try_get(1)?;
    let ids: Option<&str> = row.try_get(2)?;
    let sealed_at: Option<Raw> = row.try_get(3)?;
    let sealed_at = sealed_at.and_then(|Raw(bytes)| bytes.try_into().ok());
    Ok(StoredCheckpoint {
        tree_size: u64::try_from(size).unwrap_or(0),
        root: root.and_then(|root| Hash::try_from(root).ok()).unwrap_or([0; 32]),
        entry_ids: ids.and_then(|ids| IdRanges::parse(ids).ok()).unwrap_or_default(),
        sealed_at: sealed_at.map_or(0, i64::from_be_bytes),
        note: row.try_get::<_, Option<String>>(4)?.unwrap_or_default(),
    })
}

fn id_ranges(text: &str) -> Result<IdRanges, CommandError> {
    // An unbounded range cannot be parsed, so a checkpoint with an unbounded range causes this
    // error. Sealing never writes an unbounded range.
    IdRanges::parse(text)
        .map_err(|error| CommandError::Database(format!("ids of a checkpoint: {error}")))
}
