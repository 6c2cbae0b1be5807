//! Reads and writes the tables `lead_audit.watch` and `lead_audit.watched_relation` for the DDL
//! guard, enable() and disable().
//!
//! This module differs from SQL statements in two ways. First, this module reads the current row,
//! even if the snapshot of the transaction is older than the row. Second, this module takes no
//! predicate locks. Under SERIALIZABLE, DDL commands on different tables must not conflict,
//! although all of them read and write these two tables.

use crate::entries::relation_of_schema;
use crate::pg::{NewestSnapshot, OpenRelation, ServerError, SpiPlan, with_spi, with_tid_scans};
use pgrx::iter::SetOfIterator;
use pgrx::{FromDatum, IntoDatum, PgList, PgSqlErrorCode, Uuid, pg_extern, pg_sys};
use std::ffi::CStr;

/// One of the two tables that this module reads and writes.
#[derive(Clone, Copy)]
enum Table {
    Watch,
    WatchedRelation,
}

/// A condition that selects rows: the column with the given name has the given value.
struct Key<'a> {
    column: &'a CStr,
    equals: u32,
    collation: pg_sys::Oid,
    value: pg_sys::Datum,
}

impl<'a> Key<'a> {
    fn uuid(column: &'a CStr, value: [u8; 16]) -> Self {
        let value = Uuid::from_bytes(value).into_datum().unwrap_or(pg_sys::Datum::from(0));
        Key { column, equals: pg_sys::F_UUID_EQ, collation: pg_sys::InvalidOid, value }
    }

    fn oid(column: &'a CStr, value: pg_sys::Oid) -> Self {
        Key {
            column,
            equals: pg_sys::F_OIDEQ,
            collation: pg_sys::InvalidOid,
            value: pg_sys::Datum::from(value),
        }
    }

    fn boolean(column: &'a CStr, value: bool) -> Self {
        Key {
            column,
            equals: pg_sys::F_BOOLEQ,
            collation: pg_sys::InvalidOid,
            value: pg_sys::Datum::from(value),
        }
    }

    fn text(column: &'a CStr, value: &str) -> Self {
        let value = value.into_datum().unwrap_or(pg_sys::Datum::from(0));
        Key { column, equals: pg_sys::F_TEXTEQ, collation: pg_sys::DEFAULT_COLLATION_OID, value }
    }
}

impl Table {
    fn name(self) -> &'static CStr {
        match self {
            Table::Watch => c"watch",
            Table::WatchedRelation => c"watched_relation",
        }
    }

    fn oid(self) -> pg_sys::Oid {
        let found = relation_of_schema(self.name());
        if found == pg_sys::InvalidOid {
            missing(&format!("table {}", self.name().to_string_lossy()));
        }
        found
    }

    /// Calls `each` with the rows that fulfil all conditions in `keys`.
    ///
    /// The scan uses SnapshotAny and returns every version of every row, because PostgreSQL takes
    /// no predicate locks for a scan with SnapshotAny. The code then uses only the row versions
    /// that a second snapshot shows.
    fn each_row(self, keys: &[Key], mut each: impl FnMut(&Row)) {
        let snapshot = NewestSnapshot::take();
        let table = OpenRelation::open(self.oid(), pg_sys::AccessShareLock);
        let numbers: Vec<i16> = keys.iter().map(|key| column_number(&table, key.column)).collect();
        let index = index_on(&table, &numbers);
        // SAFETY: the table is open, and the scan ends before the table is closed. The values of
        // the conditions live longer than the scan. Each row stays valid until the scan fetches the
        // next row. The access method belongs to the open table, and the slot to the scan. After an
        // error, the abort of the transaction ends the scan and closes the table.
        unsafe {
            let mut conditions: Vec<pg_sys::ScanKeyData> = Vec::with_capacity(keys.len());
            for (key, &number) in keys.iter().zip(&numbers) {
                let mut condition = pg_sys::ScanKeyData::default();
                pg_sys::ScanKeyEntryInitialize(
                    &mut condition,
                    0,
                    number,
                    pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                    pg_sys::InvalidOid,
                    key.collation,
                    pg_sys::Oid::from(key.equals),
                    key.value,
                );
                conditions.push(condition);
            }
            let scan = pg_sys::systable_beginscan(
                table.as_ptr(),
                index.unwrap_or(pg_sys::InvalidOid),
                index.is_some(),
                &raw mut pg_sys::SnapshotAnyData,
                conditions.len() as i32,
                conditions.as_mut_ptr(),
            );
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                let is_visible = (*(*table.as_ptr()).rd_tableam)
                    .tuple_satisfies_snapshot
                    .is_some_and(|visible| {
                        pg_sys::ffi::pg_guard_ffi_boundary(|| {
                            visible(table.as_ptr(), (*scan).slot, snapshot.as_ptr())
                        })
                    });
                if is_visible {
                    each(&Row { tuple, table: &table });
                }
            }
            pg_sys::systable_endscan(scan);
        }
    }

    /// Returns the value that `value` computes from the first row that fulfils all conditions.
    fn first<R>(self, keys: &[Key], mut value: impl FnMut(&Row) -> Option<R>) -> Option<R> {
        let mut found = None;
        self.each_row(keys, |row| {
            if found.is_none() {
                found = value(row);
            }
        });
        found
    }

    /// Takes the lock for the row with this key. The transaction holds the lock until its end.
    /// Waits while another transaction holds the lock. Every transaction that changes the row takes
    /// the lock first.
    fn lock(self, key: u32) {
        // SAFETY: LockDatabaseObject() accepts any oids.
        unsafe {
            pg_sys::LockDatabaseObject(
                self.oid(),
                pg_sys::Oid::from(key),
                0,
                pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
            )
        }
    }
}

/// The row that a scan has just read.
struct Row<'a> {
    tuple: pg_sys::HeapTuple,
    table: &'a OpenRelation,
}

impl Row<'_> {
    /// Returns the value of a column. `T` must match the type of the column in sql/20_watch.sql.
    fn column<T: FromDatum>(&self, name: &CStr) -> Option<T> {
        let number = column_number(self.table, name);
        let mut is_null = true;
        // SAFETY: the row belongs to the table, and the table has the column.
        unsafe {
            let value = pg_sys::heap_getattr(
                self.tuple,
                i32::from(number),
                self.table.tuple_desc(),
                &mut is_null,
            );
            T::from_datum(value, is_null)
        }
    }

    /// Returns a copy of the row as a value of the table's row type.
    fn as_datum(&self) -> pg_sys::Datum {
        // SAFETY: the row belongs to the table.
        unsafe { pg_sys::heap_copy_tuple_as_datum(self.tuple, self.table.tuple_desc()) }
    }
}

fn column_number(table: &OpenRelation, name: &CStr) -> i16 {
    // SAFETY: the table is open.
    let number = unsafe { pg_sys::get_attnum((*table.as_ptr()).rd_id, name.as_ptr()) };
    if number <= 0 {
        missing(&format!("column {} of what is known of watched tables", name.to_string_lossy()));
    }
    number
}

fn missing(what: &str) -> ! {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!("{what} is missing in schema lead_audit"),
        detail: None,
    }
    .raise(None)
}

/// Returns a B-tree index that begins with the given columns, or `None` if the table has none.
/// Without an index, the scan reads the whole table.
fn index_on(table: &OpenRelation, columns: &[i16]) -> Option<pg_sys::Oid> {
    // SAFETY: the table is open. Each index is opened with a lock, and is closed after the check.
    unsafe {
        let all = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(table.as_ptr()));
        all.iter_oid().find(|&oid| {
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let form = (*index).rd_index;
            let count = (*form).indnkeyatts.max(0) as usize;
            let fits = (*form).indisvalid
                && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                && (*index).rd_indpred.is_null()
                && (*index).rd_indexprs.is_null()
                && !columns.is_empty()
                && (*form).indkey.values.as_slice(count).starts_with(columns);
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            fits
        })
    }
}

// ---- reading ------------------------------------------------------------------------------------

/// Returns whether replicated changes are recorded for the table with this watch id.
pub fn is_for_replicas(identity: [u8; 16]) -> bool {
    Table::Watch
        .first(&[Key::uuid(c"watch_id", identity)], |row| row.column(c"replica"))
        .unwrap_or(false)
}

/// Returns the watch id of the watched table to which a relation belongs, or `None` if the relation
/// is unknown.
pub fn identity_of(relation: pg_sys::Oid) -> Option<[u8; 16]> {
    Table::WatchedRelation
        .first(&[Key::oid(c"relation", relation)], |row| row.column(c"watch_id"))
        .map(|id: Uuid| *id.as_bytes())
}

/// Returns the first argument of a function call. Returns `None` if the argument is NULL.
///
/// # Safety
/// `call` must be a valid call of a function whose first argument has the type `T`.
unsafe fn argument<T: FromDatum>(call: pg_sys::FunctionCallInfo) -> Option<T> {
    // SAFETY: `call` is valid, and its first argument has the type `T` (see # Safety).
    unsafe {
        let first = (*call).args.as_slice(1)[0];
        T::from_datum(first.value, first.isnull)
    }
}

/// # Safety
/// `call` must be a valid function call.
unsafe fn answer(call: pg_sys::FunctionCallInfo, row: Option<pg_sys::Datum>) -> pg_sys::Datum {
    // SAFETY: `call` is valid (see # Safety).
    unsafe { (*call).isnull = row.is_none() };
    row.unwrap_or(pg_sys::Datum::from(0))
}

/// Tells PostgreSQL the calling convention of `lead_audit_watch_row`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_watch_row() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit_internal.watch_row(uuid)`: returns the row of lead_audit.watch with this watch id,
/// or NULL.
///
/// # Safety
/// Only PostgreSQL may call this function.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_watch_row(
    call: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes a valid call with an argument of the declared type.
    unsafe {
        let row = argument::<Uuid>(call).and_then(|identity| {
            Table::Watch
                .first(&[Key::uuid(c"watch_id", *identity.as_bytes())], |row| Some(row.as_datum()))
        });
        answer(call, row)
    }
}

/// Tells PostgreSQL the calling convention of `lead_audit_relation_row`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_relation_row() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit_internal.relation_row(oid)`: returns the row of lead_audit.watched_relation for this
/// relation, or NULL.
///
/// # Safety
/// Only PostgreSQL may call this function.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_relation_row(
    call: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes a valid call with an argument of the declared type.
    unsafe {
        let row = argument::<pg_sys::Oid>(call).and_then(|relation| {
            Table::WatchedRelation
                .first(&[Key::oid(c"relation", relation)], |row| Some(row.as_datum()))
        });
        answer(call, row)
    }
}

fn relations(keys: &[Key], wanted: impl Fn(&Row) -> bool) -> SetOfIterator<'static, pg_sys::Oid> {
    let mut found = Vec::new();
    Table::WatchedRelation.each_row(keys, |row| {
        if wanted(row) {
            found.extend(row.column::<pg_sys::Oid>(c"relation"));
        }
    });
    SetOfIterator::new(found)
}

/// `lead_audit_internal.relations_of(uuid)`: returns the relations of a watched table according to
/// lead_audit.watched_relation: the table itself, and its partitions and child tables.
#[pg_extern(sql = false)]
fn relations_of(identity: Uuid) -> SetOfIterator<'static, pg_sys::Oid> {
    relations(&[Key::uuid(c"watch_id", *identity.as_bytes())], |_| true)
}

/// `lead_audit_internal.roots_of(uuid)`: returns the relations that lead_audit.watched_relation
/// marks as the watched table itself (`is_root`).
#[pg_extern(sql = false)]
fn roots_of(identity: Uuid) -> SetOfIterator<'static, pg_sys::Oid> {
    relations(
        &[Key::uuid(c"watch_id", *identity.as_bytes()), Key::boolean(c"is_root", true)],
        |_| true,
    )
}

/// `lead_audit_internal.renamed_relations()`: returns the relations whose name differs from the
/// name in lead_audit.watched_relation. The function reads the whole table
/// lead_audit.watched_relation.
#[pg_extern(sql = false)]
fn renamed_relations() -> SetOfIterator<'static, pg_sys::Oid> {
    relations(&[], |row| {
        let known = row.column::<String>(c"table_schema").zip(row.column::<String>(c"table_name"));
        row.column(c"relation")
            .and_then(super::catalog::name_of)
            .is_some_and(|name| Some(name) != known)
    })
}

/// `lead_audit_internal.identities_named(text, text)`: returns the watch ids that have this table
/// name in lead_audit.watch. The result includes the watch ids of tables whose watching has ended.
#[pg_extern(sql = false)]
fn identities_named(schema: &str, table: &str) -> SetOfIterator<'static, Uuid> {
    let mut found = Vec::new();
    Table::Watch.each_row(&[Key::text(c"table_name", table)], |row| {
        if row.column::<String>(c"table_schema").as_deref() == Some(schema) {
            found.extend(row.column::<Uuid>(c"watch_id"));
        }
    });
    SetOfIterator::new(found)
}

// ---- writing ------------------------------------------------------------------------------------

/// `lead_audit_internal.lock_watch(uuid)`: prevents other transactions from changing the row with
/// this watch id in lead_audit.watch until this transaction ends.
#[pg_extern(sql = false)]
fn lock_watch(identity: Uuid) {
    Table::Watch.lock(hash(&identity));
}

/// Returns the lock key of a watch id. Two watch ids with the same lock key do no harm:
/// transactions that change the two rows only wait for each other.
fn hash(identity: &Uuid) -> u32 {
    let bytes = identity.as_bytes();
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

const INSERT_WATCH: &str = "INSERT INTO lead_audit.watch SELECT ($1).*";
const UPDATE_WATCH: &str = "UPDATE lead_audit.watch w
  SET table_schema = ($1).table_schema, table_name = ($1).table_name,
  soft_delete_column = ($1).soft_delete_column, state = ($1).state,
  enabled_at = ($1).enabled_at, ended_at = ($1).ended_at,
  baseline_at = ($1).baseline_at, replica = ($1).replica
  WHERE w.ctid OPERATOR(pg_catalog.=) $2";
const INSERT_RELATION: &str = "INSERT INTO lead_audit.watched_relation SELECT ($1).*";
const UPDATE_RELATION: &str = "UPDATE lead_audit.watched_relation m
  SET watch_id = ($1).watch_id, is_root = ($1).is_root,
  table_schema = ($1).table_schema, table_name = ($1).table_name,
  soft_delete_attnum = ($1).soft_delete_attnum, is_complete = ($1).is_complete,
  shape = ($1).shape, key_attnums = ($1).key_attnums, key_names = ($1).key_names,
  key_types = ($1).key_types, is_restored = ($1).is_restored
  WHERE m.ctid OPERATOR(pg_catalog.=) $2";
const DELETE_RELATION: &str =
    "DELETE FROM lead_audit.watched_relation m WHERE m.ctid OPERATOR(pg_catalog.=) $1";

/// Returns the position (tid) of the row that fulfils the condition `key`.
fn place(table: Table, key: Key) -> Option<pg_sys::ItemPointerData> {
    // SAFETY: the scan has just read the row, so its tuple is valid.
    table.first(&[key], |row| Some(unsafe { (*row.tuple).t_self }))
}

/// Replaces the row that fulfils the condition `key`. Inserts the row if the table has no row with
/// this key. The caller holds the lock for the row ([`Table::lock`]).
fn put(table: Table, key: Key, row: pg_sys::Datum, statements: (&str, &str)) {
    let found = place(table, key);
    // SAFETY: get_rel_type_id() accepts any oid.
    let row_type = unsafe { pg_sys::get_rel_type_id(table.oid()) };
    // The code takes this snapshot after it has searched for the row. The caller's lock prevents
    // other transactions from changing the row in the meantime.
    let snapshot = NewestSnapshot::take();
    with_spi(|| match found {
        None => {
            SpiPlan::prepare(statements.0, &[row_type]).write(snapshot.as_ptr(), &[Some(row)]);
        }
        Some(mut place) => {
            let place = pg_sys::Datum::from(&raw mut place);
            let update = SpiPlan::prepare(statements.1, &[row_type, pg_sys::TIDOID]);
            with_tid_scans(|| update.write(snapshot.as_ptr(), &[Some(row), Some(place)]));
        }
    });
}

/// Returns the value of a field in a composite value.
///
/// # Safety
/// `row` must be a composite value that has a field with this name and the type `T`.
unsafe fn field<T: FromDatum>(row: pg_sys::Datum, name: &CStr) -> Option<T> {
    let mut is_null = true;
    // SAFETY: `row` is a composite value and has the field (see # Safety). pg_detoast_datum()
    // detoasts the value before the field is read.
    unsafe {
        let header =
            pg_sys::pg_detoast_datum(row.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let value = pg_sys::GetAttributeByName(header, name.as_ptr(), &mut is_null);
        T::from_datum(value, is_null)
    }
}

/// Tells PostgreSQL the calling convention of `lead_audit_put_watch`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_put_watch() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit_internal.put_watch(lead_audit.watch)`: inserts the row, or replaces the row with the
/// same watch id.
///
/// # Safety
/// Only PostgreSQL may call this function.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_put_watch(
    call: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes a valid call of a strict function with an argument of the declared
    // type.
    unsafe {
        let row = (*call).args.as_slice(1)[0].value;
        if let Some(identity) = field::<Uuid>(row, c"watch_id") {
            Table::Watch.lock(hash(&identity));
            put(
                Table::Watch,
                Key::uuid(c"watch_id", *identity.as_bytes()),
                row,
                (INSERT_WATCH, UPDATE_WATCH),
            );
        }
    }
    pg_sys::Datum::from(0)
}

/// Tells PostgreSQL the calling convention of `lead_audit_put_relation`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_put_relation() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit_internal.put_relation(lead_audit.watched_relation)`: inserts the row, or replaces
/// the row of the same relation.
///
/// # Safety
/// Only PostgreSQL may call this function.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_put_relation(
    call: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes a valid call of a strict function with an argument of the declared
    // type.
    unsafe {
        let row = (*call).args.as_slice(1)[0].value;
        if let Some(relation) = field::<pg_sys::Oid>(row, c"relation") {
            Table::WatchedRelation.lock(relation.to_u32());
            put(
                Table::WatchedRelation,
                Key::oid(c"relation", relation),
                row,
                (INSERT_RELATION, UPDATE_RELATION),
            );
        }
    }
    pg_sys::Datum::from(0)
}

/// `lead_audit_internal.forget_relation(oid)`: deletes the row of a relation in
/// lead_audit.watched_relation. Returns whether the relation had a row.
#[pg_extern(sql = false)]
fn forget_relation(relation: pg_sys::Oid) -> bool {
    Table::WatchedRelation.lock(relation.to_u32());
    let Some(mut found) = place(Table::WatchedRelation, Key::oid(c"relation", relation)) else {
        return false;
    };
    let snapshot = NewestSnapshot::take();
    with_spi(|| {
        let place = pg_sys::Datum::from(&raw mut found);
        let delete = SpiPlan::prepare(DELETE_RELATION, &[pg_sys::TIDOID]);
        with_tid_scans(|| delete.write(snapshot.as_ptr(), &[Some(place)]));
    });
    true
}
