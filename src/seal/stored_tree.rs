//! Reads and writes the stored tree: its row in `lead_audit.tree`, its checkpoints and its tiles.
//! Full tiles are in `lead_audit.tree_tile`. The partial tile at the end of each level is in
//! `lead_audit.tree_edge`.

use crate::entries::relation_of_schema;
use crate::pg::{ServerError, SpiPlan, current_database};
use ledger::IdRanges;
use ledger::merkle::{Hash, TILE_WIDTH, TileId, Tiles, TreeError};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{IntoDatum, PgSqlErrorCode, Uuid, pg_sys};
use std::borrow::Cow;
use std::ffi::CStr;

/// The origin and public key of a log's checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The origin, which is the name of the log.
    pub origin: String,
    /// The text of the public key, or `None` if checkpoints are not signed.
    pub key: Option<String>,
}

/// The row of `lead_audit.tree` with the largest tree. The row contains the log's identity and the
/// progress of sealing.
pub struct TreeRow {
    /// The log id.
    pub log_id: Uuid,
    /// Time at which the row was created.
    created_at: TimestampWithTimeZone,
    /// Whether a restore has created the extension but has not loaded the tree yet.
    pub awaits_restore: bool,
    /// Number of leaves in the tree.
    pub size: u64,
    /// The last id that sealing has examined.
    pub looked_to: i64,
    /// Number of rows in lead_audit.open_gap.
    pub open_gaps: i64,
    /// The transactions in progress that may have taken the ids of open gaps.
    pub waits_for: Vec<u64>,
    /// The origin and public key of the last checkpoint. The field is `None` before the first
    /// checkpoint, or if version 1.0 wrote the last checkpoint.
    pub identity: Option<Identity>,
    /// The cluster and database to which the stored transaction ids belong.
    home: Option<String>,
    /// Whether lead_audit.tree has more than one row. A restore can leave additional rows.
    has_others: bool,
}

/// Returns whether this database has the table lead_audit.tree, which DROP EXTENSION removes.
pub fn tree_exists() -> bool {
    relation_of_schema(c"tree") != pg_sys::InvalidOid
}

/// Returns whether the SQL objects of the extension are newer than version 1.0. The SQL objects of
/// version 1.0 cannot store the log's key and origin, or inserted ids. The SQL objects of version
/// 1.0 remain until ALTER EXTENSION … UPDATE.
pub fn objects_are_current() -> bool {
    relation_of_schema(c"inserted_entry") != pg_sys::InvalidOid
}

/// Returns a text that identifies this cluster and database. In another cluster or database, the
/// transaction ids of this database have no meaning.
fn here() -> String {
    // SAFETY: `GetSystemIdentifier` only reads a value of the control file.
    let system = unsafe { pg_sys::GetSystemIdentifier() };
    format!("{system}/{}", current_database().to_u32())
}

/// Converts a transaction id to bigint. No transaction id exceeds the range of bigint.
pub fn to_bigint(xid: u64) -> i64 {
    xid as i64
}

impl TreeRow {
    /// Reads the row of lead_audit.tree with the largest tree.
    pub fn load(snapshot: pg_sys::Snapshot) -> Result<Self, ServerError> {
        let identity =
            if objects_are_current() { "origin, verifier_key" } else { "NULL::text, NULL::text" };
        let plan = SpiPlan::prepare(
            &format!(
                "SELECT log_id, created_at, awaits_restore, tree_size, looked_to, \
                 open_gaps::bigint, waits_for, home, count(*) OVER () > 1, {identity} \
                 FROM lead_audit.tree ORDER BY tree_size DESC, created_at, log_id LIMIT 1"
            ),
            &[],
        );
        let rows = plan.read(snapshot, &[]);
        let row = || {
            Some(TreeRow {
                log_id: rows.get(0, 0)?,
                created_at: rows.get(0, 1)?,
                awaits_restore: rows.get(0, 2)?,
                size: u64::try_from(rows.get::<i64>(0, 3)?).ok()?,
                looked_to: rows.get(0, 4)?,
                open_gaps: rows.get(0, 5)?,
                waits_for: rows.get::<Vec<i64>>(0, 6)?.into_iter().map(|xid| xid as u64).collect(),
                home: rows.get(0, 7),
                has_others: rows.get(0, 8)?,
                identity: rows.get(0, 9).map(|origin| Identity { origin, key: rows.get(0, 10) }),
            })
        };
        row().ok_or_else(|| ServerError {
            code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: "the audit log has no identity".to_owned(),
            detail: Some(
                "lead_audit.tree has no row, or one that sealing has not written.".to_owned(),
            ),
        })
    }

    /// Returns whether the transaction ids in the open gaps come from another cluster or database.
    /// Transaction ids from another cluster or database have no meaning in this database.
    pub fn is_from_elsewhere(&self) -> bool {
        self.home.as_ref().is_some_and(|home| *home != here())
    }

    /// Returns the name of the original database, if this database is a copy of another database in
    /// this cluster. Returns `None` if this database is not a copy, or if the original does not
    /// exist.
    pub fn copied_from(&self) -> Option<String> {
        let (system, database) = self.home.as_ref()?.split_once('/')?;
        let is_of_this_cluster = here().split_once('/').is_some_and(|(own, _)| own == system);
        let original = pg_sys::Oid::from(database.parse::<u32>().ok()?);
        if !is_of_this_cluster || original == current_database() {
            return None;
        }
        // SAFETY: `get_database_name` is called within a transaction. PostgreSQL returns a C string
        // in the current memory context, or null for an unknown oid.
        unsafe {
            let name = pg_sys::get_database_name(original);
            (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        }
    }

    /// Records that the stored transaction ids belong to this cluster and database.
    pub fn adopt_this_cluster(&mut self) {
        self.home = Some(here());
    }

    /// Returns whether a restore has created the extension but has not loaded the tree yet. All
    /// entries of a restore are older than the row of lead_audit.tree. Therefore an entry that is
    /// younger than the row shows that no restore will load a tree.
    pub fn must_wait_for_restore(&mut self, snapshot: pg_sys::Snapshot) -> bool {
        if self.awaits_restore {
            let plan = SpiPlan::prepare(
                "SELECT occurred_at > $1 FROM lead_audit.entry ORDER BY id DESC LIMIT 1",
                &[pg_sys::TIMESTAMPTZOID],
            );
            let lives: Option<bool> =
                plan.read(snapshot, &[self.created_at.into_datum()]).get(0, 0);
            self.awaits_restore = lives != Some(true);
        }
        self.awaits_restore
    }

    /// Updates this row in lead_audit.tree, and deletes all other rows of the table. A restore can
    /// leave other rows, whose trees are empty.
    pub fn store(&self, snapshot: pg_sys::Snapshot) {
        let waits_for: Vec<i64> = self.waits_for.iter().copied().map(to_bigint).collect();
        let update = SpiPlan::prepare(
            "UPDATE lead_audit.tree SET awaits_restore = $2, tree_size = $3, looked_to = $4, \
             open_gaps = $5, waits_for = $6, home = $7 WHERE log_id = $1",
            &[
                pg_sys::UUIDOID,
                pg_sys::BOOLOID,
                pg_sys::INT8OID,
                pg_sys::INT8OID,
                pg_sys::INT8OID,
                pg_sys::INT8ARRAYOID,
                pg_sys::TEXTOID,
            ],
        );
        update.write(
            snapshot,
            &[
                self.log_id.into_datum(),
                self.awaits_restore.into_datum(),
                (self.size as i64).into_datum(),
                self.looked_to.into_datum(),
                self.open_gaps.into_datum(),
                waits_for.into_datum(),
                self.home.clone().into_datum(),
            ],
        );
        if let Some(Identity { origin, key }) =
            self.identity.clone().filter(|_| objects_are_current())
        {
            let update = SpiPlan::prepare(
                "UPDATE lead_audit.tree SET origin = $2, verifier_key = $3 WHERE log_id = $1 \
                 AND (origin, verifier_key) IS DISTINCT FROM ($2, $3)",
                &[pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TEXTOID],
            );
            update.write(
                snapshot,
                &[self.log_id.into_datum(), origin.into_datum(), key.into_datum()],
            );
        }
        if self.has_others {
            let delete = SpiPlan::prepare(
                "DELETE FROM lead_audit.tree WHERE log_id <> $1 AND tree_size = 0",
                &[pg_sys::UUIDOID],
            );
            delete.write(snapshot, &[self.log_id.into_datum()]);
        }
    }

    /// Adds a publishing failure to the count in lead_audit.tree, and stores the message of the
    /// failure.
    pub fn note_publishing_error(&self, snapshot: pg_sys::Snapshot, error: &str) {
        let update = SpiPlan::prepare(
            "UPDATE lead_audit.tree SET publishing_errors = publishing_errors + 1, \
             last_publishing_error = $2, last_publishing_error_at = pg_catalog.clock_timestamp() \
             WHERE log_id = $1",
            &[pg_sys::UUIDOID, pg_sys::TEXTOID],
        );
        update.write(snapshot, &[self.log_id.into_datum(), error.into_datum()]);
    }
}

/// A row of `lead_audit.checkpoint`. Somebody may have changed the row manually after sealing wrote
/// the row.
#[derive(Debug, Clone)]
pub struct StoredCheckpoint {
    /// Number of leaves in the tree.
    pub size: u64,
    /// The root of the tree.
    pub root: Hash,
    /// The note of the checkpoint, signed or not.
    pub note: String,
    /// The highest id of the entries that the checkpoint added to the tree.
    pub last_id: i64,
}

const CHECKPOINT_COLUMNS: &str = "SELECT c.tree_size, c.root, c.note, \
                                  pg_catalog.upper(c.entry_ids) - 1 FROM lead_audit.checkpoint c";

impl StoredCheckpoint {
    /// Returns the checkpoint with the largest tree.
    pub fn newest(snapshot: pg_sys::Snapshot) -> Result<Option<Self>, ServerError> {
        Self::first(
            snapshot,
            &format!("{CHECKPOINT_COLUMNS} ORDER BY c.tree_size DESC LIMIT 1"),
            None,
        )
    }

    /// Returns the checkpoint of tree size `size`.
    pub fn of_size(snapshot: pg_sys::Snapshot, size: i64) -> Result<Option<Self>, ServerError> {
        Self::first(snapshot, &format!("{CHECKPOINT_COLUMNS} WHERE c.tree_size = $1"), Some(size))
    }

    fn first(
        snapshot: pg_sys::Snapshot,
        sql: &str,
        argument: Option<i64>,
    ) -> Result<Option<Self>, ServerError> {
        let types = [pg_sys::INT8OID];
        let plan = SpiPlan::prepare(sql, if argument.is_some() { &types } else { &[] });
        let arguments: Vec<_> = argument.map(IntoDatum::into_datum).into_iter().collect();
        let rows = plan.read(snapshot, &arguments);
        if rows.len() == 0 {
            return Ok(None);
        }
        let checkpoint = || {
            Some(StoredCheckpoint {
                size: u64::try_from(rows.get::<i64>(0, 0)?).ok()?,
                root: rows.get::<Vec<u8>>(0, 1)?.try_into().ok()?,
                note: rows.get(0, 2)?,
                last_id: rows.get(0, 3)?,
            })
        };
        checkpoint().map(Some).ok_or_else(|| ServerError {
            code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            message: "a row of lead_audit.checkpoint is not what sealing has written".to_owned(),
            detail: None,
        })
    }

    /// Stores a new checkpoint. The checkpoint adds the entries with the ids `ids` to a tree that
    /// had `before` leaves.
    pub fn store(
        snapshot: pg_sys::Snapshot,
        log_id: Uuid,
        before: u64,
        ids: &IdRanges,
        size: u64,
        root: &Hash,
        note: &str,
    ) {
        let (column, value) = if objects_are_current() { (", log_id", ", $5") } else { ("", "") };
        let insert = SpiPlan::prepare(
            &format!(
                "INSERT INTO lead_audit.checkpoint \
                 (tree_size, sealed_at, root, entry_ids, note{column}) VALUES \
                 ($1, pg_catalog.clock_timestamp(), $2, $3::pg_catalog.int8multirange, $4{value})"
            ),
            &[pg_sys::INT8OID, pg_sys::BYTEAOID, pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::UUIDOID],
        );
        let ids_text = ids.to_string();
        insert.write(
            snapshot,
            &[
                (size as i64).into_datum(),
                root.as_slice().into_datum(),
                ids_text.into_datum(),
                note.into_datum(),
                log_id.into_datum(),
            ],
        );
        let array = pg_sys::INT8ARRAYOID;
        let ranges = SpiPlan::prepare(
            "INSERT INTO lead_audit.leaf_range (first_id, last_id, first_leaf) \
             SELECT * FROM ROWS FROM \
             (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) r",
            &[array, array, array],
        );
        let mut leaf = before as i64;
        let (mut first_ids, mut last_ids, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
        for range in ids.ranges() {
            first_ids.push(range.first);
            last_ids.push(range.last);
            leaves.push(leaf);
            leaf += range.count() as i64;
        }
        ranges
            .write(snapshot, &[first_ids.into_datum(), last_ids.into_datum(), leaves.into_datum()]);
    }
}

/// The stored tiles that a snapshot shows. A value of this type must be used within one connection
/// to SPI.
pub struct StoredTiles {
    snapshot: pg_sys::Snapshot,
    plan: SpiPlan,
}

const TILE_KEY: [pg_sys::Oid; 2] = [pg_sys::INT2OID, pg_sys::INT8OID];

fn tile_key(id: TileId) -> [Option<pg_sys::Datum>; 2] {
    [i16::from(id.level).into_datum(), (id.index as i64).into_datum()]
}

impl StoredTiles {
    /// Returns the stored tiles that `snapshot` shows. `snapshot` must stay active as long as the
    /// returned `StoredTiles` is used.
    pub fn of(snapshot: pg_sys::Snapshot) -> Self {
        let plan = SpiPlan::prepare(
            "SELECT t.hashes, true FROM lead_audit.tree_tile t \
             WHERE t.level = $1 AND t.index = $2 UNION ALL \
             SELECT e.hashes, false FROM lead_audit.tree_edge e \
             WHERE e.level = $1 AND e.index = $2",
            &TILE_KEY,
        );
        StoredTiles { snapshot, plan }
    }
}

impl Tiles for StoredTiles {
    type Error = ServerError;

    fn tile(&self, id: TileId) -> Result<Cow<'_, [Hash]>, ServerError> {
        let rows = self.plan.read(self.snapshot, &tile_key(id));
        let Some(bytes) = rows.get::<Vec<u8>>(0, 0) else { return Ok(Cow::Owned(Vec::new())) };
        let (hashes, rest) = bytes.as_chunks::<{ size_of::<Hash>() }>();
        let is_full = rows.get::<bool>(0, 1) == Some(true);
        if !rest.is_empty() || hashes.len() > TILE_WIDTH || is_full && hashes.len() != TILE_WIDTH {
            return Err(ServerError {
                code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                message: format!(
                    "tile {} of level {} of the audit log's tree has {} bytes",
                    id.index,
                    id.level,
                    bytes.len()
                ),
                detail: None,
            });
        }
        Ok(Cow::Owned(hashes.to_vec()))
    }
}

/// Stores the tiles of a `TileWriter`. A stored full tile never changes. A partial tile replaces
/// the previous partial tile of its level.
pub fn store_tiles(snapshot: pg_sys::Snapshot, changed: Vec<(TileId, Vec<Hash>)>) {
    let types = [TILE_KEY[0], TILE_KEY[1], pg_sys::BYTEAOID];
    let full = SpiPlan::prepare(
        "INSERT INTO lead_audit.tree_tile (level, index, hashes) VALUES ($1, $2, $3)",
        &types,
    );
    let edge = SpiPlan::prepare(
        "INSERT INTO lead_audit.tree_edge (level, index, hashes) VALUES ($1, $2, $3) \
         ON CONFLICT (level) DO UPDATE SET index = excluded.index, hashes = excluded.hashes",
        &types,
    );
    let write = |plan: &SpiPlan, id: TileId, hashes: &[Hash]| {
        let [level, index] = tile_key(id);
        plan.write(snapshot, &[level, index, hashes.as_flattened().into_datum()]);
    };
    // For each level whose last tile in `changed` is full, `filled` contains the id of this last
    // tile. Such a level has no partial tile, so the code below stores an empty partial tile for
    // the level.
    let mut filled: Vec<TileId> = Vec::new();
    for (id, hashes) in changed {
        filled.retain(|other| other.level != id.level);
        if hashes.len() == TILE_WIDTH {
            write(&full, id, &hashes);
            filled.push(id);
        } else {
            write(&edge, id, &hashes);
        }
    }
    for id in filled {
        write(&edge, TileId { index: id.index + 1, ..id }, &[]);
    }
}

/// Returns the error that sealing and proofs report for stored tiles that do not match the tree.
pub fn tree_is_damaged(error: TreeError<ServerError>) -> ServerError {
    match error {
        TreeError::Source(error) => error,
        other => ServerError {
            code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            message: "the tree of the audit log is damaged".to_owned(),
            detail: Some(format!("{other}.")),
        },
    }
}
