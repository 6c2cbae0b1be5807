//! Gives access to the table `lead_audit.entry`: to its oid, columns, tuples and indexes.

use crate::pg::{
    OpenRelation, ServerError, attribute, borrowed_text, catalog_column, current_subtransaction,
    in_context, in_subtransaction, next_value,
};
use crate::settings::{self, OnError};
use crate::version::{self, Need};
use ledger::{ColumnType, EntryColumn};
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::cell::Cell;
use std::ffi::CStr;

/// The number of columns of lead_audit.entry that the library fills.
pub const COLUMNS: usize = EntryColumn::COUNT;

/// Returns the oid of the type that a column has in PostgreSQL.
fn type_oid(column: EntryColumn) -> pg_sys::Oid {
    match column.column_type() {
        ColumnType::Int2 => pg_sys::INT2OID,
        ColumnType::Int4 => pg_sys::INT4OID,
        ColumnType::Int8 => pg_sys::INT8OID,
        ColumnType::Oid => pg_sys::OIDOID,
        ColumnType::Xid8 => pg_sys::XID8OID,
        ColumnType::Timestamptz => pg_sys::TIMESTAMPTZOID,
        ColumnType::Uuid => pg_sys::UUIDOID,
        ColumnType::Bytea => pg_sys::BYTEAOID,
        ColumnType::Text => pg_sys::TEXTOID,
        ColumnType::Json => pg_sys::JSONOID,
    }
}

/// The oids of lead_audit.entry and of the other objects that the writer needs.
#[derive(Debug, Clone, Copy)]
pub struct EntryTable {
    /// The oid of lead_audit.entry.
    pub table: pg_sys::Oid,
    /// The partial index on the entries that have a previous row key. `None` if the index does not
    /// exist.
    pub index_of_previous_keys: Option<pg_sys::Oid>,
    /// The oid of lead_audit.entry_id_seq.
    id_sequence: pg_sys::Oid,
    /// The highest id after which the sequence can still give out at least `ID_RESERVE` ids.
    safe_id: i64,
}

/// If the sequence can give out fewer further ids than this number, the library treats the sequence
/// as nearly exhausted.
const ID_RESERVE: i64 = 1_000_000;

thread_local! {
    static KNOWN: Cell<Option<EntryTable>> = const { Cell::new(None) };
    static LAST_ID: Cell<Option<i64>> = const { Cell::new(None) };
    /// The table of entries that this transaction has locked, and the subtransaction that holds the
    /// lock.
    static LOCKED: Cell<Option<(pg_sys::Oid, pg_sys::SubTransactionId)>> =
        const { Cell::new(None) };
}

/// Forgets the lock on lead_audit.entry, because the end of the transaction has released the lock.
pub fn forget_lock() {
    LOCKED.set(None);
}

/// Forgets the lock on lead_audit.entry if a subtransaction that was rolled back, or one of its
/// children, has taken the lock.
pub fn forget_lock_of(subtransaction: pg_sys::SubTransactionId) {
    LOCKED.set(LOCKED.get().filter(|&(_, holder)| holder < subtransaction));
}

/// Gives the lock on lead_audit.entry from a committed subtransaction to its parent.
pub fn hand_up_lock(from: pg_sys::SubTransactionId, to: pg_sys::SubTransactionId) {
    LOCKED
        .set(LOCKED.get().map(|(table, holder)| (table, if holder >= from { to } else { holder })));
}

/// Forgets the cached oids if lead_audit.entry or its sequence may have changed. `None` means that
/// any relation may have changed.
pub fn relation_changed(relation: Option<pg_sys::Oid>) {
    if KNOWN.get().is_some_and(|known| {
        relation.is_none_or(|oid| [known.table, known.id_sequence].contains(&oid))
    }) {
        forget();
    }
}

/// Forgets the cached oids and the last id. The hooks call this function when a sequence has
/// changed.
pub fn sequence_changed() {
    forget();
}

fn forget() {
    KNOWN.set(None);
    LAST_ID.set(None);
}

/// Returns the oid of the relation `name` in schema lead_audit, whatever the search_path is.
/// Returns an invalid oid if the relation does not exist.
pub fn relation_of_schema(name: &CStr) -> pg_sys::Oid {
    // SAFETY: these look-ups by name return InvalidOid if they find nothing.
    unsafe {
        pg_sys::get_relname_relid(
            name.as_ptr(),
            pg_sys::get_namespace_oid(c"lead_audit".as_ptr(), true),
        )
    }
}

impl EntryTable {
    /// Finds lead_audit.entry and the oids that the writing of entries needs. Caches the result.
    pub fn find() -> Result<Self, ServerError> {
        if let Some(known) = KNOWN.get() {
            return Ok(known);
        }
        let found = unless_abort(Self::look_up)??;
        KNOWN.set(Some(found));
        Ok(found)
    }

    fn look_up() -> Result<Self, ServerError> {
        version::check(Need::Writing)?;
        let (table, id_sequence) =
            (relation_of_schema(c"entry"), relation_of_schema(c"entry_id_seq"));
        if [table, id_sequence].contains(&pg_sys::InvalidOid) {
            return Err(wrong("a part of schema lead_audit is missing".to_owned()));
        }
        let open = OpenRelation::open(table, pg_sys::AccessShareLock);
        // SAFETY: the table is open.
        unsafe { check_columns(open.tuple_desc())? };
        Ok(EntryTable {
            table,
            index_of_previous_keys: index_of_previous_keys(&open),
            id_sequence,
            safe_id: last_value(id_sequence).saturating_sub(ID_RESERVE),
        })
    }

    /// Takes the next id for an entry from the sequence.
    ///
    /// With `on_error = warn`, the function takes the id in a subtransaction if the sequence may be
    /// nearly exhausted. The subtransaction catches the error of an exhausted sequence.
    pub fn next_id(&self) -> Result<i64, ServerError> {
        let id = match LAST_ID.get() {
            Some(last) if last < self.safe_id => next_value(self.id_sequence),
            _ => unless_abort(|| next_value(self.id_sequence))?,
        };
        LAST_ID.set(Some(id));
        Ok(id)
    }

    /// Locks lead_audit.entry with RowExclusiveLock until the transaction ends, so that the columns
    /// of the table cannot change.
    ///
    /// If another session holds a conflicting lock, the function waits for its own lock. With
    /// `on_error = warn`, the function waits in a subtransaction. The subtransaction around the
    /// wait catches a lock timeout or a deadlock.
    pub fn lock(&self) -> Result<OpenRelation, ServerError> {
        let mode = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        if LOCKED.get().is_none_or(|(table, _)| table != self.table) {
            // SAFETY: ConditionalLockRelationOid() takes any oid. If the table was dropped,
            // `OpenRelation::open` raises an error.
            if !unsafe { pg_sys::ConditionalLockRelationOid(self.table, mode) } {
                // SAFETY: LockRelationOid() takes any oid.
                unless_abort(|| unsafe { pg_sys::LockRelationOid(self.table, mode) })?;
            }
            LOCKED.set(Some((self.table, current_subtransaction())));
        }
        Ok(OpenRelation::open(self.table, pg_sys::NoLock))
    }
}

/// Runs `work`. With `on_error = warn`, the function catches an error that `work` raises, and
/// returns the error.
pub fn unless_abort<R>(work: impl FnOnce() -> R) -> Result<R, ServerError> {
    match settings::on_error() {
        OnError::Warn => in_subtransaction(work),
        OnError::Abort => Ok(work()),
    }
}

/// Returns the highest value that the sequence can have.
fn last_value(sequence: pg_sys::Oid) -> i64 {
    const SEQMAX: u32 = 5; // The position of the column seqmax in pg_sequence.
    // SAFETY: the key is the oid of a sequence, and the column is a bigint.
    let last = unsafe { catalog_column(pg_sys::SysCacheIdentifier::SEQRELID, sequence, SEQMAX) };
    last.map_or(0, |last| last.value() as i64)
}

/// Checks that a row type begins with the columns of `EntryColumn`, by name and type.
///
/// # Safety
/// `descriptor` must be a live row type.
pub unsafe fn check_columns(descriptor: pg_sys::TupleDesc) -> Result<(), ServerError> {
    for (index, &column) in EntryColumn::ALL.iter().enumerate() {
        // SAFETY: `descriptor` is live (see # Safety). The code checks that the index is less than
        // natts before it reads the attribute. The name of an attribute is a C string.
        let right = unsafe {
            index < (*descriptor).natts as usize && {
                let found = attribute(descriptor, index);
                CStr::from_ptr(found.attname.data.as_ptr()).to_bytes() == column.name().as_bytes()
                    && found.atttypid == type_oid(column)
            }
        };
        if !right {
            let name = column.name();
            return Err(wrong(format!(
                "column {} of lead_audit.entry is not \"{name}\" with its type",
                index + 1
            )));
        }
    }
    Ok(())
}

/// An entry as a deformed tuple.
pub struct EntryTuple {
    /// The values of the columns.
    pub values: Vec<pg_sys::Datum>,
    /// Whether each value is NULL.
    pub nulls: Vec<bool>,
}

impl EntryTuple {
    /// Deforms a tuple of lead_audit.entry.
    pub fn of(table: &OpenRelation, tuple: pg_sys::HeapTuple) -> Self {
        // SAFETY: the tuple was made for this table, which has at least COLUMNS columns.
        unsafe {
            let total = ((*table.tuple_desc()).natts as usize).max(COLUMNS);
            let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); total], vec![true; total]);
            pg_sys::heap_deform_tuple(
                tuple,
                table.tuple_desc(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            EntryTuple { values, nulls }
        }
    }

    /// Returns the value of a column, or `None` for NULL.
    pub fn datum(&self, column: EntryColumn) -> Option<pg_sys::Datum> {
        (!self.nulls[column as usize]).then(|| self.values[column as usize])
    }

    /// Returns the value of a column that is text or json.
    pub fn text(&self, column: EntryColumn) -> Option<&str> {
        // SAFETY: the caller names a column of type text or json. The tuple outlives `self`, and
        // the values point into the tuple.
        self.datum(column).and_then(|datum| unsafe { borrowed_text(datum) }.ok())
    }
}

/// Makes a tuple of `table` in the memory context `context`. Columns that the library does not know
/// become NULL.
///
/// # Safety
/// `values` and `nulls` must belong to the first columns of `table`, and `context` must be live.
pub unsafe fn form_tuple(
    table: &OpenRelation,
    context: pg_sys::MemoryContext,
    values: &mut [pg_sys::Datum],
    nulls: &mut [bool],
) -> pg_sys::HeapTuple {
    // SAFETY: `values`, `nulls` and `context` are valid (see # Safety). The arrays are as long as
    // the row type.
    unsafe {
        let descriptor = table.tuple_desc();
        let columns = (*descriptor).natts as usize;
        in_context(context, || {
            if columns == values.len() {
                return pg_sys::heap_form_tuple(
                    descriptor,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
            }
            let (mut all_values, mut all_nulls) = (values.to_vec(), nulls.to_vec());
            all_values.resize(columns, pg_sys::Datum::from(0));
            all_nulls.resize(columns, true);
            pg_sys::heap_form_tuple(descriptor, all_values.as_mut_ptr(), all_nulls.as_mut_ptr())
        })
    }
}

fn wrong(message: String) -> ServerError {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message,
        detail: Some(
            "The SQL objects of extension lead_audit are not those of the loaded library."
                .to_owned(),
        ),
    }
}

/// Returns the partial index on the entries that have a previous row key, if the index exists: `…
/// WHERE previous_key_hash IS NOT NULL`.
fn index_of_previous_keys(table: &OpenRelation) -> Option<pg_sys::Oid> {
    // SAFETY: the table is open, so its indexes can be opened. Each index is closed before the next
    // index is opened.
    unsafe {
        let all = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(table.as_ptr()));
        all.iter_oid().find(|&oid| {
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let found = is_of_previous_keys(pg_sys::RelationGetIndexPredicate(index));
            pg_sys::index_close(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            found
        })
    }
}

/// # Safety
/// `predicate` must be an index's predicate: a list of expressions, or null.
unsafe fn is_of_previous_keys(predicate: *mut pg_sys::List) -> bool {
    // SAFETY: the tag of a node tells the node's type.
    unsafe {
        let conditions = PgList::<pg_sys::Node>::from_pg(predicate);
        let Some(condition) = conditions.get_ptr(0).filter(|_| conditions.len() == 1) else {
            return false;
        };
        if (*condition).type_ != pg_sys::NodeTag::T_NullTest {
            return false;
        }
        let test = condition.cast::<pg_sys::NullTest>();
        let argument = (*test).arg;
        (*test).nulltesttype == pg_sys::NullTestType::IS_NOT_NULL
            && (*argument.cast::<pg_sys::Node>()).type_ == pg_sys::NodeTag::T_Var
            && (*argument.cast::<pg_sys::Var>()).varattno == EntryColumn::PreviousKeyHash as i16 + 1
    }
}

/// Opens the table's indexes except `without`, as ExecOpenIndices() does. ExecCloseIndices() closes
/// the opened indexes.
///
/// If a statement writes a single row, opening an index takes a noticeable share of the statement's
/// time. The index on previous row keys takes the longest to open, because it has a predicate. Few
/// entries have a previous row key. If none of the entries has one, the caller passes this index as
/// `without`.
///
/// # Safety
/// `result` must be initialized for `table`, and the session must hold a lock on `table`. The
/// current memory context must live until the indexes are closed.
pub unsafe fn open_indexes(
    result: *mut pg_sys::ResultRelInfo,
    table: &OpenRelation,
    without: Option<pg_sys::Oid>,
) {
    // SAFETY: `result` and the memory context are valid (see # Safety). The arrays have room for
    // all indexes of the table.
    unsafe {
        let all = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(table.as_ptr()));
        let room = |size: usize| pg_sys::palloc(all.len() * size);
        let relations = room(size_of::<pg_sys::Relation>()).cast::<pg_sys::Relation>();
        let infos = room(size_of::<*mut pg_sys::IndexInfo>()).cast::<*mut pg_sys::IndexInfo>();
        (*result).ri_IndexRelationDescs = relations;
        (*result).ri_IndexRelationInfo = infos;
        (*result).ri_NumIndices = 0;
        for oid in all.iter_oid().filter(|&oid| Some(oid) != without) {
            let place = (*result).ri_NumIndices as usize;
            let index = pg_sys::index_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            relations.add(place).write(index);
            infos.add(place).write(pg_sys::BuildIndexInfo(index));
            (*result).ri_NumIndices += 1;
        }
    }
}
