//! From a key as a user writes it to the canonical text under which entries store it.

use super::jsonb;
use super::plan::{encoder_for, primary_key};
use crate::server::{OpenRelation, ServerError, Text, as_owner_restricted, attribute, in_subtransaction};
use ledger::canonical::{compare_keys, write_string};
use pgrx::{IntoDatum, PgSqlErrorCode, Uuid, pg_extern, pg_sys};
use std::ffi::{CStr, CString};

/// `lead_audit.key_hash(uuid, text)`.
#[pg_extern(sql = false)]
fn key_hash(watch_id: Uuid, row_key: &str) -> i64 {
    ledger::key_hash(watch_id.as_bytes(), row_key.as_bytes())
}

/// Tells Postgres how `lead_audit_canonical_json` is to be called.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_canonical_json() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit.canonical_json(jsonb)`. Takes the datum as it is: pgrx's own jsonb argument sends numbers through a double.
///
/// # Safety
/// Called by Postgres only, with the arguments of its declaration.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_canonical_json(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let mut text = Text::new();
    // SAFETY: the function is strict and has one argument, a jsonb; detoasting gives one in place.
    let written = unsafe {
        let value = (*fcinfo).args.as_slice(1)[0].value;
        jsonb::write(text.buffer(), pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast())
    };
    raise_on_error(written);
    text.as_str().into_datum().unwrap_or(pg_sys::Datum::from(0))
}

/// The key of a row of the relation by its primary key: see `key_from`.
pub fn key_of(relation: pg_sys::Oid, column_names: Option<Vec<String>>, column_values: Vec<Option<String>>) -> Option<String> {
    let open = OpenRelation::open(relation, pg_sys::AccessShareLock);
    // SAFETY: the relation is open.
    let columns = unsafe { primary_key(open.as_ptr()) };
    key_from(&open, &columns, column_names, &column_values)
}

/// `lead_audit.key_of(regclass, smallint[], text[], text[])`.
#[pg_extern(sql = false)]
fn key_of_columns(
    relation: pg_sys::Oid,
    key_columns: Vec<i16>,
    column_names: Option<Vec<String>>,
    column_values: Vec<Option<String>>,
) -> Option<String> {
    let open = OpenRelation::open(relation, pg_sys::AccessShareLock);
    key_from(&open, &key_columns, column_names, &column_values)
}

/// The types of a relation's primary key.
pub fn key_types(open: &OpenRelation) -> Vec<pg_sys::Oid> {
    // SAFETY: the relation is open, and key columns are among its attributes.
    unsafe {
        let columns = primary_key(open.as_ptr());
        columns.into_iter().map(|number| attribute(open.tuple_desc(), number as usize - 1).atttypid).collect()
    }
}

/// The row's key as entries have it, or `None` if `column_names` are not the columns of the key. Without names the key must
/// have one column, which is taken.
fn key_from(
    open: &OpenRelation,
    columns: &[i16],
    column_names: Option<Vec<String>>,
    column_values: &[Option<String>],
) -> Option<String> {
    let mut members: Vec<(String, usize, Option<String>)> = Vec::with_capacity(columns.len());
    for &number in columns {
        let index = number as usize - 1;
        // SAFETY: key columns are among the attributes of the open relation; a name is a C string.
        let name =
            unsafe { CStr::from_ptr(attribute(open.tuple_desc(), index).attname.data.as_ptr()) }.to_string_lossy().into_owned();
        let place = match &column_names {
            Some(names) => names.iter().position(|given| *given == name)?,
            None => 0,
        };
        members.push((name, index, column_values.get(place).cloned().flatten()));
    }
    match &column_names {
        Some(names) if names.len() != columns.len() => return None,
        None if columns.len() != 1 => refuse_single_value(open, columns.len()),
        _ => {}
    }
    members.sort_by(|(a, ..), (b, ..)| compare_keys(a, b));
    let mut key = Text::new();
    let mut separator = b'{';
    for (name, index, value) in members {
        let out = key.buffer();
        out.push(separator);
        separator = b',';
        write_string(out, &name);
        out.push(b':');
        match value {
            // SAFETY: the attribute is one of the open relation's.
            Some(value) => raise_on_error(unsafe {
                as_owner_restricted(open.as_ptr(), || write_as_column(out, attribute(open.tuple_desc(), index), &value))
            }),
            None => out.extend_from_slice(b"null"),
        }
    }
    key.buffer().push(b'}');
    Some(key.as_str().to_owned())
}

/// Reads `value` with the input function of the column's type and writes it as entries have it.
///
/// # Safety
/// `column` must be an attribute of an open relation.
unsafe fn write_as_column(out: &mut Vec<u8>, column: &pg_sys::FormData_pg_attribute, value: &str) -> Result<(), ServerError> {
    // A NUL cannot come in through SQL's text.
    let value = CString::new(value).unwrap_or_default();
    // SAFETY: a column's type is one.
    unsafe { write_as_type(out, column.atttypid, column.atttypmod, &value) }
}

/// # Safety
/// `type_oid` must be a type.
unsafe fn write_as_type(out: &mut Vec<u8>, type_oid: pg_sys::Oid, modifier: i32, value: &CStr) -> Result<(), ServerError> {
    let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: the type's own input function makes a datum of the type that the encoder is for.
    unsafe {
        pg_sys::getTypeInputInfo(type_oid, &mut input, &mut parameter);
        let datum = pg_sys::OidInputFunctionCall(input, value.as_ptr().cast_mut(), parameter, modifier);
        encoder_for(type_oid, pg_sys::CurrentMemoryContext).write(out, datum)
    }
}

/// `lead_audit.value_as(regclass, text, text)`: the JSON of a value that was of this type, or `None` if it is none of it.
#[pg_extern(sql = false)]
fn value_as(relation: pg_sys::Oid, type_name: &str, value: &str) -> Option<String> {
    let open = OpenRelation::open(relation, pg_sys::AccessShareLock);
    let (type_name, value) = (CString::new(type_name).ok()?, CString::new(value).ok()?);
    let read = in_subtransaction(|| {
        let (mut type_oid, mut modifier) = (pg_sys::InvalidOid, -1);
        // SAFETY: the names are C strings. A type that is gone gives no oid; the relation is open. The type's own input function
        // makes a datum of the type that the encoder is for.
        unsafe {
            #[cfg(feature = "pg15")]
            pg_sys::parseTypeString(type_name.as_ptr(), &mut type_oid, &mut modifier, true);
            // Since 16 it raises an error for a type that is gone, which the subtransaction takes.
            #[cfg(not(feature = "pg15"))]
            pg_sys::parseTypeString(type_name.as_ptr(), &mut type_oid, &mut modifier, std::ptr::null_mut());
            if type_oid == pg_sys::InvalidOid {
                return None;
            }
            as_owner_restricted(open.as_ptr(), || {
                let mut json = Text::new();
                write_as_type(json.buffer(), type_oid, modifier, &value).ok()?;
                Some(json.as_str().to_owned())
            })
        }
    });
    read.ok().flatten()
}

fn refuse_single_value(relation: &OpenRelation, columns: usize) {
    // SAFETY: the relation is open; a name is a C string.
    let name = unsafe { CStr::from_ptr((*(*relation.as_ptr()).rd_rel).relname.data.as_ptr()) }.to_string_lossy().into_owned();
    let (detail, hint) = match columns {
        0 => ("It has no primary key.".to_owned(), "Search lead_audit.log by old_values or new_values instead.".to_owned()),
        n => (
            format!("Its primary key has {n} columns."),
            r#"Give the key as an object: lead_audit.history('table', '{"column": value, …}'::jsonb)."#.to_owned(),
        ),
    };
    ServerError {
        code: PgSqlErrorCode::ERRCODE_INVALID_COLUMN_REFERENCE,
        message: format!("one value is not a key of table \"{name}\""),
        detail: Some(detail),
    }
    .raise(Some(hint));
}

fn raise_on_error(result: Result<(), ServerError>) {
    if let Err(error) = result {
        error.raise(None);
    }
}
