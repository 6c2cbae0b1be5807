//! The one row of `lead_audit.tree`: the log's identity and how far sealing is.

use super::signer::Identity;
use crate::entries::relation_of_schema;
use crate::pg::{ServerError, SpiPlan, current_database};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{IntoDatum, PgSqlErrorCode, Uuid, pg_sys};
use std::ffi::CStr;

/// That row.
pub struct TreeRow {
    /// Identity of the log.
    pub log_id: Uuid,
    /// When the row was made.
    created_at: TimestampWithTimeZone,
    /// A restore has made the extension and has not brought the tree yet.
    pub awaits_restore: bool,
    /// Leaves in the tree.
    pub size: u64,
    /// Ids up to this one have been looked at.
    pub looked_to: i64,
    /// Rows of open_gap.
    pub open_gaps: i64,
    /// Transactions whose end makes it worth while to look at open gaps again.
    pub waits_for: Vec<u64>,
    /// Origin and public key of the last checkpoint; `None` before the first, or if a version wrote it that took no note of it.
    pub identity: Option<Identity>,
    /// Where that was written.
    home: Option<String>,
    /// Whether there are other rows, which a restore has left.
    has_others: bool,
}

/// Whether this database has the tables of the tree: the extension may have been dropped.
pub fn tree_exists() -> bool {
    relation_of_schema(c"tree") != pg_sys::InvalidOid
}

/// Whether the SQL objects take note of the log's key and origin, and of entries that somebody inserted: those of version 1.0, which
/// are there until ALTER EXTENSION … UPDATE is run, do not.
pub fn objects_are_current() -> bool {
    relation_of_schema(c"inserted_entry") != pg_sys::InvalidOid
}

/// Where ids of transactions mean something: this cluster and database.
fn here() -> String {
    // SAFETY: reads a value of the control file.
    let system = unsafe { pg_sys::GetSystemIdentifier() };
    format!("{system}/{}", current_database().to_u32())
}

/// A transaction's id as PostgreSQL's bigint, which no id ever fills.
pub fn to_bigint(xid: u64) -> i64 {
    xid as i64
}

impl TreeRow {
    /// Reads it.
    pub fn load(snapshot: pg_sys::Snapshot) -> Result<Self, ServerError> {
        let identity = if objects_are_current() { "origin, verifier_key" } else { "NULL::text, NULL::text" };
        let plan = SpiPlan::prepare(
            &format!(
                "SELECT log_id, created_at, awaits_restore, tree_size, looked_to, open_gaps::bigint, waits_for, home, \
                 count(*) OVER () > 1, {identity} FROM lead_audit.tree ORDER BY tree_size DESC, created_at, log_id LIMIT 1"
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
            detail: Some("lead_audit.tree has no row, or one that sealing has not written.".to_owned()),
        })
    }

    /// Whether the ids of transactions in the open gaps are those of another cluster or database: then they mean nothing.
    pub fn is_from_elsewhere(&self) -> bool {
        self.home.as_ref().is_some_and(|home| *home != here())
    }

    /// The name of the database in this cluster that this one was copied from, if that is still there.
    pub fn copied_from(&self) -> Option<String> {
        let (system, database) = self.home.as_ref()?.split_once('/')?;
        let is_of_this_cluster = here().split_once('/').is_some_and(|(own, _)| own == system);
        let original = pg_sys::Oid::from(database.parse::<u32>().ok()?);
        if !is_of_this_cluster || original == current_database() {
            return None;
        }
        // SAFETY: a look-up by oid within a transaction, which gives a C string in the current memory context, or null for one of nothing.
        unsafe {
            let name = pg_sys::get_database_name(original);
            (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        }
    }

    /// Takes note that the ids of transactions are those of this cluster and database from now on.
    pub fn adopt_this_cluster(&mut self) {
        self.home = Some(here());
    }

    /// Whether a restore that made the extension will still bring the tree. That it will not shows an entry that is younger than
    /// the extension: entries that are restored are older.
    pub fn must_wait_for_restore(&mut self, snapshot: pg_sys::Snapshot) -> bool {
        if self.awaits_restore {
            let plan = SpiPlan::prepare(
                "SELECT occurred_at > $1 FROM lead_audit.entry ORDER BY id DESC LIMIT 1",
                &[pg_sys::TIMESTAMPTZOID],
            );
            let lives: Option<bool> = plan.read(snapshot, &[self.created_at.into_datum()]).get(0, 0);
            self.awaits_restore = lives != Some(true);
        }
        self.awaits_restore
    }

    /// Writes it. Rows of other logs, which never grew, go.
    pub fn store(&self, snapshot: pg_sys::Snapshot) {
        let waits_for: Vec<i64> = self.waits_for.iter().copied().map(to_bigint).collect();
        let update = SpiPlan::prepare(
            "UPDATE lead_audit.tree SET awaits_restore = $2, tree_size = $3, looked_to = $4, open_gaps = $5, waits_for = $6, \
             home = $7 WHERE log_id = $1",
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
        if let Some(Identity { origin, key }) = self.identity.clone().filter(|_| objects_are_current()) {
            let update = SpiPlan::prepare(
                "UPDATE lead_audit.tree SET origin = $2, verifier_key = $3 WHERE log_id = $1 AND (origin, verifier_key) \
                 IS DISTINCT FROM ($2, $3)",
                &[pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TEXTOID],
            );
            update.write(snapshot, &[self.log_id.into_datum(), origin.into_datum(), key.into_datum()]);
        }
        if self.has_others {
            let delete = SpiPlan::prepare("DELETE FROM lead_audit.tree WHERE log_id <> $1 AND tree_size = 0", &[pg_sys::UUIDOID]);
            delete.write(snapshot, &[self.log_id.into_datum()]);
        }
    }

    /// Counts a failure to publish.
    pub fn note_publishing_error(&self, snapshot: pg_sys::Snapshot, error: &str) {
        let update = SpiPlan::prepare(
            "UPDATE lead_audit.tree SET publishing_errors = publishing_errors + 1, last_publishing_error = $2, \
             last_publishing_error_at = pg_catalog.clock_timestamp() WHERE log_id = $1",
            &[pg_sys::UUIDOID, pg_sys::TEXTOID],
        );
        update.write(snapshot, &[self.log_id.into_datum(), error.into_datum()]);
    }
}
