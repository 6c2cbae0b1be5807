//! Reads the current state of the system catalogs. SQL statements would read the catalogs with the
//! snapshot of their transaction. Under REPEATABLE READ and SERIALIZABLE, this snapshot can be old,
//! and does not show tables, partitions and triggers that were created later. The functions of this
//! module always see committed changes and the changes of their own transaction. Each look-up in a
//! catalog uses an index.

use super::registry;
use crate::capture::ORIGIN_ONLY;
use crate::pg::{OpenRelation, parse_uuid};
use pgrx::iter::{SetOfIterator, TableIterator};
use pgrx::{FromDatum, Uuid, name, pg_extern, pg_sys};
use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, CString, c_char};

/// The oids of catalogs and indexes for which pgrx has no constant. PostgreSQL's own catalogs have
/// fixed oids.
mod oids {
    pub const INHERITS: u32 = 2611;
    pub const INHERITS_BY_CHILD: u32 = 2680;
    pub const INHERITS_BY_PARENT: u32 = 2187;
    pub const DEPEND: u32 = 2608;
    pub const DEPEND_BY_REFERENCE: u32 = 2674;
}

/// Calls `each` with every row of a catalog in which the given columns contain the given oids. The
/// scan uses `index`, whose first columns must be the given columns.
fn for_each_row<const N: usize>(
    catalog: pg_sys::Oid,
    index: u32,
    keys: [(i16, pg_sys::Oid); N],
    mut each: impl FnMut(pg_sys::HeapTuple, pg_sys::TupleDesc),
) {
    let table = OpenRelation::open(catalog, pg_sys::AccessShareLock);
    // SAFETY: the catalog is open, and the index scan ends before the catalog is closed. Each tuple
    // stays valid until the scan fetches the next tuple. After an error, the abort of the
    // transaction ends the scan and closes the catalog.
    unsafe {
        let mut scan_keys = [pg_sys::ScanKeyData::default(); N];
        for (key, (column, oid)) in scan_keys.iter_mut().zip(keys) {
            let equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
            pg_sys::ScanKeyInit(
                key,
                column,
                equal,
                pg_sys::Oid::from(pg_sys::F_OIDEQ),
                pg_sys::Datum::from(oid),
            );
        }
        let index = pg_sys::Oid::from(index);
        let scan = pg_sys::systable_beginscan(
            table.as_ptr(),
            index,
            true,
            std::ptr::null_mut(),
            N as i32,
            scan_keys.as_mut_ptr(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            each(tuple, table.tuple_desc());
        }
        pg_sys::systable_endscan(scan);
    }
}

/// Returns the value of a column in a catalog row.
///
/// # Safety
/// `tuple` must be a tuple of the type `row_type`, and the column must have the type `T`.
unsafe fn column<T: FromDatum>(
    tuple: pg_sys::HeapTuple,
    row_type: pg_sys::TupleDesc,
    number: i32,
) -> Option<T> {
    let mut is_null = true;
    // SAFETY: the tuple fits `row_type`, and the column fits `T` (see # Safety).
    unsafe {
        let value = pg_sys::heap_getattr(tuple, number, row_type, &mut is_null);
        T::from_datum(value, is_null)
    }
}

/// Copies a C string that PostgreSQL allocated. Returns `None` for a null pointer.
fn string(text: *const c_char) -> Option<String> {
    // SAFETY: each caller passes the result of a function that returns null or a C string in the
    // current memory context.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text).to_string_lossy().into_owned() })
}

// ---- relations ----------------------------------------------------------------------------------

fn kind(relation: pg_sys::Oid) -> u8 {
    // SAFETY: get_rel_relkind() accepts any oid. get_rel_relkind() returns 0 for an oid without a
    // relation.
    unsafe { pg_sys::get_rel_relkind(relation) as u8 }
}

fn is_table(relation: pg_sys::Oid) -> bool {
    matches!(
        kind(relation),
        pg_sys::RELKIND_RELATION
            | pg_sys::RELKIND_PARTITIONED_TABLE
            | pg_sys::RELKIND_FOREIGN_TABLE
    )
}

/// Returns whether a relation is temporary. Temporary child tables are not watched. A temporary
/// table ends with its session, and no other session can see its rows or create triggers on it.
fn is_temporary(relation: pg_sys::Oid) -> bool {
    // SAFETY: get_rel_persistence() requires an existing relation, and `relation` exists.
    unsafe { pg_sys::get_rel_persistence(relation) as u8 == pg_sys::RELPERSISTENCE_TEMP }
}

fn is_member(relation: pg_sys::Oid) -> bool {
    is_table(relation) && !is_temporary(relation)
}

fn inheritance(index: u32, key: i16, wanted: i32, relation: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    for_each_row(pg_sys::Oid::from(oids::INHERITS), index, [(key, relation)], |tuple, row_type| {
        // SAFETY: columns 1 and 2 of pg_inherits have the type oid.
        found.extend(unsafe { column::<pg_sys::Oid>(tuple, row_type, wanted) });
    });
    found
}

fn children(parent: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut found = inheritance(oids::INHERITS_BY_PARENT, 2, 1, parent);
    found.sort_unstable_by_key(|child| child.to_u32());
    found
}

fn parents(child: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    inheritance(oids::INHERITS_BY_CHILD, 1, 2, child)
}

/// Returns `start`, the relations that `next` returns for `start`, the relations that `next`
/// returns for these, and so on. The relations that are nearest to `start` come first.
fn closure(start: pg_sys::Oid, next: impl Fn(pg_sys::Oid) -> Vec<pg_sys::Oid>) -> Vec<pg_sys::Oid> {
    let (mut all, mut seen, mut done) = (vec![start], HashSet::from([start]), 0);
    while let Some(&here) = all.get(done) {
        done += 1;
        all.extend(next(here).into_iter().filter(|&found| seen.insert(found)));
    }
    all
}

pub fn members(root: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut all = closure(root, children);
    all.retain(|&relation| is_member(relation));
    all
}

/// `lead_audit_internal.members_of(oid)`: returns a table and its partitions and child tables.
#[pg_extern(sql = false)]
fn members_of(root: pg_sys::Oid) -> SetOfIterator<'static, pg_sys::Oid> {
    SetOfIterator::new(members(root))
}

/// `lead_audit_internal.ancestors_of(oid)`: returns the parents of a partition or child table,
/// their parents, and all further ancestors.
#[pg_extern(sql = false)]
fn ancestors_of(member: pg_sys::Oid) -> SetOfIterator<'static, pg_sys::Oid> {
    let mut all = closure(member, parents);
    all.remove(0);
    SetOfIterator::new(all)
}

/// `lead_audit_internal.parents_of(oid)`: returns the parents of a partition or child table.
#[pg_extern(sql = false)]
fn parents_of(member: pg_sys::Oid) -> SetOfIterator<'static, pg_sys::Oid> {
    SetOfIterator::new(parents(member))
}

/// `lead_audit_internal.lock_members(oid)`: locks a table with its partitions and child tables, in
/// the lock mode that CREATE TRIGGER uses. The function locks each table before it lists the
/// children of the table. A command that adds a child to a table also locks the table first.
/// Therefore the function misses no child, and no session can add a child before this transaction
/// ends.
#[pg_extern(sql = false)]
fn lock_members(root: pg_sys::Oid) {
    closure(root, |relation| {
        if !is_member(relation) {
            return Vec::new();
        }
        // SAFETY: LockRelationOid() accepts any oid. If another transaction has dropped the
        // relation in the meantime, `children` finds no rows for it.
        unsafe {
            pg_sys::LockRelationOid(relation, pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE)
        };
        children(relation)
    });
}

/// `lead_audit_internal.class_of(oid)`: returns one row that describes a relation, or no row for a
/// dropped relation.
#[pg_extern(sql = false)]
fn class_of(
    relation: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(kind, String),
        name!(is_temporary, bool),
        name!(is_partition, bool),
        name!(table_schema, String),
        name!(table_name, String),
    ),
> {
    TableIterator::new(name_of(relation).map(|(schema, table)| {
        let kind = char::from(kind(relation)).to_string();
        // SAFETY: get_rel_relispartition() accepts any oid.
        let is_partition = unsafe { pg_sys::get_rel_relispartition(relation) };
        (kind, is_temporary(relation), is_partition, schema, table)
    }))
}

/// Returns the schema and the name of a relation, or `None` for a dropped relation.
pub fn name_of(relation: pg_sys::Oid) -> Option<(String, String)> {
    // SAFETY: the look-ups accept any oid, and return null for an unknown oid.
    unsafe {
        let table = string(pg_sys::get_rel_name(relation))?;
        Some((string(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation)))?, table))
    }
}

/// `lead_audit_internal.relation_named(text, text)`: returns the oid of the relation with this
/// schema and name, or NULL for an unknown name.
#[pg_extern(sql = false)]
fn relation_named(schema: &str, table: &str) -> Option<pg_sys::Oid> {
    let (schema, table) = (CString::new(schema).ok()?, CString::new(table).ok()?);
    // SAFETY: the look-ups accept any name, and return an invalid oid for an unknown name.
    let found = unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            schema
        } else {
            pg_sys::get_relname_relid(table.as_ptr(), schema)
        }
    };
    (found != pg_sys::InvalidOid).then_some(found)
}

// ---- columns ------------------------------------------------------------------------------------

/// `lead_audit_internal.column_number(oid, text)`: returns the number of the column with this name,
/// or NULL if the relation has no such column.
#[pg_extern(sql = false)]
fn column_number(relation: pg_sys::Oid, name: &str) -> Option<i16> {
    let name = CString::new(name).ok()?;
    // SAFETY: get_attnum() returns 0 for a column that is missing or dropped.
    let number = unsafe { pg_sys::get_attnum(relation, name.as_ptr()) };
    (number > 0).then_some(number)
}

/// `lead_audit_internal.column_name(oid, smallint)`: returns the name of the column with this
/// number, or NULL if the column is missing or dropped.
#[pg_extern(sql = false)]
fn column_name(relation: pg_sys::Oid, number: i16) -> Option<String> {
    // SAFETY: the look-ups accept any oid and any number. A dropped column has no type.
    // get_attname() is called only for an existing column.
    unsafe {
        if pg_sys::get_atttype(relation, number) == pg_sys::InvalidOid {
            return None;
        }
        string(pg_sys::get_attname(relation, number, true))
    }
}

/// `lead_audit_internal.column_type(oid, text)`: returns the type of a column, or NULL for a
/// missing column. For a domain, returns its base type.
#[pg_extern(sql = false)]
fn column_type(relation: pg_sys::Oid, name: &str) -> Option<pg_sys::Oid> {
    let number = column_number(relation, name)?;
    // SAFETY: the column exists, so it has a type.
    Some(unsafe { pg_sys::getBaseType(pg_sys::get_atttype(relation, number)) })
}

/// `lead_audit_internal.columns_of(oid)`: returns a text that describes the columns of a table and
/// the composite types in these columns.
#[pg_extern(sql = false)]
fn columns_of(relation: pg_sys::Oid) -> String {
    let (mut text, mut types, mut seen) = (String::new(), Vec::new(), HashSet::new());
    describe_columns(relation, &mut text, &mut types);
    while let Some(this) = types.pop() {
        pgrx::check_for_interrupts!();
        if !seen.insert(this) {
            continue;
        }
        // SAFETY: the look-ups accept any oid, and return an invalid oid for a type of another
        // kind.
        unsafe {
            let row_type = pg_sys::get_typ_typrelid(this);
            if row_type != pg_sys::InvalidOid {
                text.push_str(&format!("type {}:", this.to_u32()));
                describe_columns(row_type, &mut text, &mut types);
            }
            let base = pg_sys::getBaseType(this);
            let others = [
                pg_sys::get_element_type(this),
                pg_sys::get_range_subtype(this),
                pg_sys::get_multirange_range(this),
                base,
            ];
            types.extend(
                others.into_iter().filter(|&other| other != pg_sys::InvalidOid && other != this),
            );
        }
    }
    text
}

/// Appends the number, name, type and type modifier of each column to `text`. Adds each column type
/// that is not built in to `types`, because the caller must describe these types too.
fn describe_columns(relation: pg_sys::Oid, text: &mut String, types: &mut Vec<pg_sys::Oid>) {
    let index = pg_sys::AttributeRelidNumIndexId;
    for_each_row(pg_sys::AttributeRelationId, index, [(1, relation)], |tuple, _| {
        // SAFETY: the tuple is a row of pg_attribute, and this code reads only columns of its
        // fixed-length part.
        let column = unsafe { &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_attribute>() };
        if column.attnum > 0 && !column.attisdropped {
            let name = string(column.attname.data.as_ptr()).unwrap_or_default();
            text.push_str(&format!(
                "{} {name:?} {} {},",
                column.attnum,
                column.atttypid.to_u32(),
                column.atttypmod
            ));
            // A built-in type of PostgreSQL cannot be altered, so it needs no description.
            if column.atttypid.to_u32() >= pg_sys::FirstNormalObjectId {
                types.push(column.atttypid);
            }
        }
    });
    text.push(';');
}

/// `lead_audit_internal.primary_key_of(oid)`: returns the columns of the primary key with their
/// numbers.
#[pg_extern(sql = false)]
fn primary_key_of(
    relation: pg_sys::Oid,
) -> TableIterator<
    'static,
    (name!(attnums, Vec<i16>), name!(names, Vec<String>), name!(types, Vec<String>)),
> {
    let mut numbers = Vec::new();
    for_each_row(
        pg_sys::IndexRelationId,
        pg_sys::IndexIndrelidIndexId,
        [(2, relation)],
        |tuple, _| {
            // SAFETY: the tuple is a row of pg_index. `indkey` is the last column of the row's
            // fixed-length part, and has as many numbers as the index has columns.
            unsafe {
                let index = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_index>();
                if (*index).indisprimary {
                    numbers.extend_from_slice(
                        (*index).indkey.values.as_slice((*index).indnkeyatts.max(0) as usize),
                    );
                }
            }
        },
    );
    numbers.sort_unstable();
    let (mut names, mut types) = (Vec::new(), Vec::new());
    for &number in &numbers {
        let (mut of_type, mut modifier, mut collation) =
            (pg_sys::InvalidOid, -1, pg_sys::InvalidOid);
        // SAFETY: the table has the columns of its primary key.
        unsafe {
            pg_sys::get_atttypetypmodcoll(
                relation,
                number,
                &mut of_type,
                &mut modifier,
                &mut collation,
            );
            types.extend(string(pg_sys::format_type_with_typemod(of_type, modifier)));
        }
        names.extend(column_name(relation, number));
    }
    TableIterator::once((numbers, names, types))
}

// ---- tables that a command affects --------------------------------------------------------------

/// Returns the oids of the objects in the catalog `wanted` that depend on the given object. The
/// dependencies are those in pg_depend.
fn dependent(wanted: pg_sys::Oid, class: pg_sys::Oid, object: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    for_each_row(
        pg_sys::Oid::from(oids::DEPEND),
        oids::DEPEND_BY_REFERENCE,
        [(4, class), (5, object)],
        |tuple, row_type| {
            // SAFETY: columns 1 and 2 of pg_depend are the class and the oid of the dependent
            // object.
            unsafe {
                if column(tuple, row_type, 1) == Some(wanted) {
                    found.extend(column::<pg_sys::Oid>(tuple, row_type, 2));
                }
            }
        },
    );
    found
}

/// `lead_audit_internal.foreign_tables_of(oid, oid)`: returns the foreign tables that use a
/// foreign-data wrapper, a server or a user mapping.
#[pg_extern(sql = false)]
fn foreign_tables_of(
    class: pg_sys::Oid,
    object: pg_sys::Oid,
) -> SetOfIterator<'static, pg_sys::Oid> {
    let servers = match class {
        pg_sys::ForeignServerRelationId => vec![object],
        pg_sys::ForeignDataWrapperRelationId => {
            dependent(pg_sys::ForeignServerRelationId, class, object)
        }
        pg_sys::UserMappingRelationId => {
            let mut server = Vec::new();
            for_each_row(class, pg_sys::UserMappingOidIndexId, [(1, object)], |tuple, row_type| {
                // SAFETY: column 3 of pg_user_mapping is the oid of the server.
                server.extend(unsafe { column::<pg_sys::Oid>(tuple, row_type, 3) });
            });
            server
        }
        _ => Vec::new(),
    };
    let tables = servers.into_iter().flat_map(|server| {
        dependent(pg_sys::RelationRelationId, pg_sys::ForeignServerRelationId, server)
    });
    let mut tables: Vec<_> =
        tables.filter(|&table| kind(table) == pg_sys::RELKIND_FOREIGN_TABLE).collect();
    tables.sort_unstable_by_key(|table| table.to_u32());
    SetOfIterator::new(tables)
}

/// `lead_audit_internal.server_named(text)`: returns the oid of the foreign server with this name,
/// or NULL for an unknown name.
#[pg_extern(sql = false)]
fn server_named(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: get_foreign_server_oid() accepts any name, and returns an invalid oid for an unknown
    // name.
    let found = unsafe { pg_sys::get_foreign_server_oid(name.as_ptr(), true) };
    (found != pg_sys::InvalidOid).then_some(found)
}

/// Returns the tables that have a column of the type `of_type`, or of a type that contains
/// `of_type`.
fn tables_of_type(of_type: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let (mut tables, mut types, mut seen) = (Vec::new(), vec![of_type], HashSet::new());
    while let Some(this) = types.pop() {
        pgrx::check_for_interrupts!();
        if !seen.insert(this) {
            continue;
        }
        let keys = [(4, pg_sys::TypeRelationId), (5, this)];
        let mut relations = Vec::new();
        for_each_row(
            pg_sys::Oid::from(oids::DEPEND),
            oids::DEPEND_BY_REFERENCE,
            keys,
            |tuple, row_type| {
                // SAFETY: columns 1 and 2 of pg_depend are the class and the oid of the object that
                // depends on the type.
                let (class, object) = unsafe {
                    (column(tuple, row_type, 1), column::<pg_sys::Oid>(tuple, row_type, 2))
                };
                match class {
                    Some(pg_sys::TypeRelationId) => types.extend(object),
                    Some(pg_sys::RelationRelationId) => relations.extend(object),
                    _ => {}
                }
            },
        );
        for relation in relations {
            types.extend(row_type_of(relation));
            if is_table(relation) && !tables.contains(&relation) {
                tables.push(relation);
            }
        }
    }
    tables
}

fn row_type_of(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: get_rel_type_id() accepts any oid. get_rel_type_id() returns InvalidOid if the
    // relation does not exist.
    let row_type = unsafe { pg_sys::get_rel_type_id(relation) };
    (row_type != pg_sys::InvalidOid).then_some(row_type)
}

/// `lead_audit_internal.tables_with(oid)`: returns the tables that have a column of the given type,
/// or of a type that contains the given type.
#[pg_extern(sql = false)]
fn tables_with(of_type: pg_sys::Oid) -> SetOfIterator<'static, pg_sys::Oid> {
    SetOfIterator::new(tables_of_type(of_type))
}

/// `lead_audit_internal.reached_from(oid)`: returns a table with its partitions and child tables.
/// Also returns the tables that have a column whose type is, or contains, the row type of one of
/// these tables.
#[pg_extern(sql = false)]
fn reached_from(relation: pg_sys::Oid) -> SetOfIterator<'static, pg_sys::Oid> {
    let mut all = members(relation);
    let mut row_types: Vec<_> = all.iter().copied().filter_map(row_type_of).collect();
    if all.is_empty() {
        row_types.extend(row_type_of(relation));
    }
    for row_type in row_types {
        all.extend(tables_of_type(row_type));
    }
    all.sort_unstable_by_key(|relation| relation.to_u32());
    all.dedup();
    SetOfIterator::new(all)
}

// ---- triggers -----------------------------------------------------------------------------------

/// A trigger that calls a trigger function of lead_audit.
struct AuditTrigger {
    watch_id: Option<[u8; 16]>,
    name: String,
    is_row: bool,
    is_own: bool,
    is_on: bool,
    is_current: bool,
}

/// The name and the `tgtype` (catalog/pg_trigger.h) of each audit trigger. The row trigger is AFTER
/// INSERT OR UPDATE OR DELETE FOR EACH ROW, and the TRUNCATE trigger is BEFORE TRUNCATE. The view
/// lead_audit.trigger_kind contains the same values.
const ROW_TRIGGER: (&str, i16) = ("00_lead_audit_row", 29);
const TRUNCATE_TRIGGER: (&str, i16) = ("00_lead_audit_truncate", 34);
/// The temporary name of the row trigger of a watched table while ATTACH PARTITION makes the table
/// a partition of another watched table.
const ROW_TRIGGER_BEFORE: &str = "00_lead_audit_row_before";

fn audit_triggers(relation: pg_sys::Oid) -> Vec<AuditTrigger> {
    let mut found = Vec::new();
    for_each_row(
        pg_sys::TriggerRelationId,
        pg_sys::TriggerRelidNameIndexId,
        [(2, relation)],
        |tuple, row_type| {
            // SAFETY: the tuple is a row of pg_trigger. `column` and `heap_getattr` read the
            // columns that can be NULL.
            unsafe {
                let trigger = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_trigger>();
                let Some(is_row) = function_is_row(trigger.tgfoid) else { return };
                let arguments: Option<&[u8]> =
                    column(tuple, row_type, pg_sys::Anum_pg_trigger_tgargs as i32);
                let arguments: Vec<&[u8]> =
                    arguments.unwrap_or_default().split(|&byte| byte == 0).collect();
                let argument = |index: usize| arguments.get(index).copied().unwrap_or_default();
                let mut has_no_condition = true;
                pg_sys::heap_getattr(
                    tuple,
                    pg_sys::Anum_pg_trigger_tgqual as i32,
                    row_type,
                    &mut has_no_condition,
                );
                let name = string(trigger.tgname.data.as_ptr()).unwrap_or_default();
                let watch_id = std::str::from_utf8(argument(0))
                    .ok()
                    .filter(|text| is_lower_uuid(text))
                    .and_then(parse_uuid);
                let is_for_replicas = watch_id.is_some_and(registry::is_for_replicas);
                let kind = if is_row { ROW_TRIGGER } else { TRUNCATE_TRIGGER };
                let is_on = ((name.as_str(), trigger.tgtype) == kind
                    || is_row && (name.as_str(), trigger.tgtype) == (ROW_TRIGGER_BEFORE, kind.1))
                    && has_no_condition
                    && trigger.tgattr.dim1 == 0
                    && !trigger.tgdeferrable
                    && match trigger.tgenabled as u8 {
                        b'A' => true,
                        b'O' => !is_for_replicas,
                        _ => false,
                    };
                let is_origin_only = argument(if is_row { 2 } else { 1 }) == ORIGIN_ONLY.as_bytes();
                let is_current =
                    trigger.tgenabled as u8 == b'A' && is_origin_only != is_for_replicas;
                found.push(AuditTrigger {
                    watch_id,
                    name,
                    is_row,
                    is_own: trigger.tgparentid == pg_sys::InvalidOid,
                    is_on,
                    is_current,
                });
            }
        },
    );
    found
}

/// Returns whether `name` is the name of an audit trigger.
pub fn is_audit_trigger_name(name: &CStr) -> bool {
    [ROW_TRIGGER, TRUNCATE_TRIGGER].iter().any(|kind| name.to_bytes() == kind.0.as_bytes())
}

fn is_lower_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// Returns `Some(true)` for the function of the row trigger, and `Some(false)` for the function of
/// the TRUNCATE trigger. Returns `None` for any other function.
fn function_is_row(function: pg_sys::Oid) -> Option<bool> {
    // SAFETY: the look-ups accept any oid, and return null or an invalid oid for an unknown oid.
    unsafe {
        if pg_sys::get_func_namespace(function)
            != pg_sys::get_namespace_oid(c"lead_audit".as_ptr(), true)
        {
            return None;
        }
        match string(pg_sys::get_func_name(function))?.as_str() {
            "capture" => Some(true),
            "capture_truncate" => Some(false),
            _ => None,
        }
    }
}

/// `lead_audit_internal.audit_triggers_of(oid)`: returns the audit triggers of a relation.
#[pg_extern(sql = false)]
fn audit_triggers_of(
    relation: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(watch_id, Option<Uuid>),
        name!(trigger_name, String),
        name!(is_row, bool),
        name!(is_own, bool),
        name!(is_on, bool),
        name!(is_current, bool),
    ),
> {
    TableIterator::new(audit_triggers(relation).into_iter().map(|trigger| {
        (
            trigger.watch_id.map(Uuid::from_bytes),
            trigger.name,
            trigger.is_row,
            trigger.is_own,
            trigger.is_on,
            trigger.is_current,
        )
    }))
}

/// `lead_audit_internal.triggers_of(oid)`: returns all triggers of a relation.
#[pg_extern(sql = false)]
fn triggers_of(
    relation: pg_sys::Oid,
) -> TableIterator<
    'static,
    (name!(name, String), name!(kind, i16), name!(is_internal, bool), name!(is_constraint, bool)),
> {
    let mut found = Vec::new();
    for_each_row(
        pg_sys::TriggerRelationId,
        pg_sys::TriggerRelidNameIndexId,
        [(2, relation)],
        |tuple, _| {
            // SAFETY: the tuple is a row of pg_trigger, and this code reads only columns of its
            // fixed-length part.
            let row = unsafe { &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_trigger>() };
            let name = string(row.tgname.data.as_ptr()).unwrap_or_default();
            found.push((
                name,
                row.tgtype,
                row.tgisinternal,
                row.tgconstraint != pg_sys::InvalidOid,
            ));
        },
    );
    TableIterator::new(found)
}

/// `lead_audit_internal.relation_of_trigger(oid)`: returns the table and the name of a trigger, or
/// no row for a dropped trigger.
#[pg_extern(sql = false)]
fn relation_of_trigger(
    trigger: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(relation, pg_sys::Oid),
        name!(trigger_name, String),
        name!(is_own, bool),
        name!(is_audit, bool),
    ),
> {
    let mut found = Vec::new();
    for_each_row(
        pg_sys::TriggerRelationId,
        pg_sys::TriggerOidIndexId,
        [(1, trigger)],
        |tuple, _| {
            // SAFETY: the tuple is a row of pg_trigger, and this code reads only columns of its
            // fixed-length part.
            let row = unsafe { &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_trigger>() };
            let name = string(row.tgname.data.as_ptr()).unwrap_or_default();
            found.push((
                row.tgrelid,
                name,
                row.tgparentid == pg_sys::InvalidOid,
                function_is_row(row.tgfoid).is_some(),
            ));
        },
    );
    TableIterator::new(found)
}

/// `lead_audit_internal.identities_among(oid[])`: returns the watch ids of the watched tables to
/// which the relations belong. Also returns the watch ids in the arguments of the relations' audit
/// triggers.
#[pg_extern(sql = false)]
fn identities_among(relations: Vec<pg_sys::Oid>) -> SetOfIterator<'static, Uuid> {
    let mut all = BTreeSet::new();
    for relation in relations {
        pgrx::check_for_interrupts!();
        all.extend(audit_triggers(relation).iter().filter_map(|trigger| trigger.watch_id));
        all.extend(registry::identity_of(relation));
    }
    SetOfIterator::new(all.into_iter().map(Uuid::from_bytes).collect::<Vec<_>>())
}
