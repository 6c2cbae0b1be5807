//! Converts a row key that a user passes to the canonical text that entries store.
//!
//! The functions take texts as bytes and not as `&str`, because a text in the database's encoding
//! need not be UTF-8.
//!
//! The caller of `lead_audit.history()` can have more rights than the table's owner. Therefore this
//! module runs no code of the table's owner: neither the CHECK constraint of a domain nor a cast to
//! json.

use crate::capture::{
    ForeignCode, MoneyTypes, column_names, encoder_for, jsonb, primary_key, readable_type,
};
use crate::pg::{
    NotWritten, OpenRelation, ServerError, Text, TextWriter, attribute, attribute_name,
    in_subtransaction, relation_name,
};
use ledger::Sink;
use ledger::canonical::{compare_keys, write_string};
use pgrx::{Array, IntoDatum, PgSqlErrorCode, Uuid, pg_extern, pg_sys};
use std::ffi::{CStr, CString};

/// Implements `lead_audit.key_hash(uuid, text)`, which returns the hash by which `history()` finds
/// the entries of a row.
#[pg_extern(sql = false)]
fn key_hash(watch_id: Uuid, row_key: &[u8]) -> i64 {
    ledger::key_hash(watch_id.as_bytes(), row_key)
}

/// Tells PostgreSQL the calling convention of `lead_audit_canonical_json`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_canonical_json() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// Implements `lead_audit.canonical_json(jsonb)`. The function takes the raw datum, because pgrx
/// would convert the numbers of a jsonb argument to double precision.
///
/// # Safety
/// Only PostgreSQL may call this function, with the arguments of its declaration.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_canonical_json(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: the SQL function is strict and has one argument, a jsonb, which is detoasted before
    // use.
    let write = |out: &mut TextWriter| unsafe {
        let value = (*fcinfo).args.as_slice(1)[0].value;
        jsonb::write(out, pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast());
    };
    let text = written(write);
    text.as_str().into_datum().unwrap_or(pg_sys::Datum::from(0))
}

/// Returns the JSON value that `write` writes, in the form that entries store. Raises an error if
/// the value cannot be written.
fn written(write: impl Fn(&mut TextWriter)) -> Text {
    let mut text = Text::new();
    let together = |out: &mut TextWriter| {
        write(out);
        Ok(())
    };
    let result = match text.write(together) {
        Err(NotWritten::NotText) => text.write(|out| {
            let mut apart = TextWriter::apart();
            write(&mut apart);
            out.append_value(&apart);
            Ok(())
        }),
        result => result,
    };
    match result {
        Ok(()) => text,
        Err(reason) => ServerError::from(reason).raise(None),
    }
}

/// Returns the row key with the given values in the columns of the primary key. Returns `None` if
/// `column_names` are not the columns of the primary key. Raises an error if a value cannot be
/// converted to the type of its column.
pub fn key_of<T: AsRef<[u8]>>(
    relation: pg_sys::Oid,
    column_names: Option<Vec<T>>,
    column_values: Vec<Option<T>>,
) -> Option<String> {
    let open = OpenRelation::open(relation, pg_sys::AccessShareLock);
    // SAFETY: the relation is open.
    let columns = unsafe { primary_key(open.as_ptr()) };
    key_from(&open, &columns, column_names, &column_values)
}

/// Implements `lead_audit_internal.key_of(regclass, smallint[], text[], text[])`, which returns the
/// row key for the given values, as entries store it.
#[pg_extern(sql = false)]
fn key_of_columns(
    relation: pg_sys::Oid,
    key_columns: Vec<i16>,
    column_names: Option<Array<&[u8]>>,
    column_values: Array<&[u8]>,
) -> Option<String> {
    let open = OpenRelation::open(relation, pg_sys::AccessShareLock);
    let (names, values): (Option<Vec<_>>, Vec<_>) = (
        column_names.as_ref().map(|names| names.iter().flatten().collect()),
        column_values.iter().collect(),
    );
    key_from(&open, &key_columns, names, &values)
}

/// Returns the types of the columns of a relation's primary key.
pub fn key_types(open: &OpenRelation) -> Vec<pg_sys::Oid> {
    // SAFETY: the relation is open, and key columns are among its attributes.
    unsafe {
        let columns = primary_key(open.as_ptr());
        columns
            .into_iter()
            .map(|number| attribute(open.tuple_desc(), number as usize - 1).atttypid)
            .collect()
    }
}

/// Returns the row key as entries store it, or `None` if `given_names` are not the columns of the
/// key. Raises an error if no names are given and the key does not have exactly one column.
fn key_from<T: AsRef<[u8]>>(
    open: &OpenRelation,
    columns: &[i16],
    given_names: Option<Vec<T>>,
    values: &[Option<T>],
) -> Option<String> {
    // SAFETY: the relation is open.
    let names = unsafe { column_names(open.tuple_desc()) };
    let mut members = Vec::with_capacity(columns.len());
    for &number in columns {
        let (index, name) = names.iter().find(|(index, _)| *index + 1 == number as usize)?;
        let place = match &given_names {
            Some(given) => {
                // SAFETY: `index` is the index of a column of the open relation.
                let name = unsafe { attribute_name(open.tuple_desc(), *index) };
                given.iter().position(|given| given.as_ref() == name)?
            }
            None => 0,
        };
        members.push((name, *index, values.get(place).and_then(Option::as_ref)));
    }
    match &given_names {
        Some(names) if names.len() != columns.len() => return None,
        None if columns.len() != 1 => refuse_single_value(open, columns.len()),
        _ => {}
    }
    members.sort_by(|(a, ..), (b, ..)| compare_keys(&a.text, &b.text));
    let mut key = Text::new();
    let result = key.write(|out| {
        let mut separator = b'{';
        for (name, index, value) in members {
            out.push(std::mem::replace(&mut separator, b','));
            write_string(out, &name.text);
            out.push(b':');
            match value {
                Some(value) => {
                    // SAFETY: `index` is the index of a column of the open relation.
                    let text = unsafe { as_column(open, index, value.as_ref()) };
                    out.append(text.bytes());
                }
                None => out.append(b"null"),
            }
        }
        out.push(b'}');
        Ok(())
    });
    match result {
        Ok(()) => Some(key.into_string()),
        Err(reason) => ServerError::from(reason).raise(None),
    }
}

/// Reads `value` with the input function of the column's type. Returns the JSON that entries store
/// for the value.
///
/// # Safety
/// `index` must be the index of a column of the relation.
unsafe fn as_column(open: &OpenRelation, index: usize, value: &[u8]) -> Text {
    // SAFETY: `index` is the index of a column of the open relation (see # Safety), and the type of
    // a column exists.
    unsafe {
        let column = attribute(open.tuple_desc(), index);
        as_type(column.atttypid, column.atttypmod, value)
            .unwrap_or_else(|| refuse_foreign_code(open, index))
    }
}

/// Reads `value` as a value of the given type, and returns the JSON that entries store for it.
/// Returns `None` if the value cannot be read and written without running code of the type's owner.
///
/// # Safety
/// `type_oid` must be the oid of a type.
unsafe fn as_type(type_oid: pg_sys::Oid, modifier: i32, value: &[u8]) -> Option<Text> {
    let (type_oid, modifier) = readable_type(type_oid, modifier)?;
    if ForeignCode::default().writes(type_oid) {
        return None;
    }
    if value.contains(&0) {
        // The value contains a zero byte, which no input function accepts. Entries store a value
        // with a zero byte as a JSON string.
        return Some(written(|out| out.append_json_string(value)));
    }
    // SAFETY: the encoder and the input function belong to the same type, and the input function
    // takes a C string.
    unsafe {
        let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::getTypeInputInfo(type_oid, &mut input, &mut parameter);
        let string = pg_sys::pnstrdup(value.as_ptr().cast(), value.len());
        let datum = pg_sys::OidInputFunctionCall(input, string, parameter, modifier);
        let encoder =
            encoder_for(type_oid, pg_sys::CurrentMemoryContext, &mut MoneyTypes::default());
        Some(written(|out| encoder.write(out, datum)))
    }
}

/// Implements `lead_audit_internal.value_as(regclass, text, text)`, which returns the JSON of a
/// value of the given type. Returns `None` if the value is invalid for the type, or if reading the
/// value would run code of the type's owner. The first argument is unused, and exists only because
/// the SQL objects of version 1.0 pass a relation.
#[pg_extern(sql = false)]
fn value_as(_relation: pg_sys::Oid, type_name: &[u8], value: &[u8]) -> Option<String> {
    let type_name = CString::new(type_name).ok()?;
    let read = in_subtransaction(|| {
        let (mut type_oid, mut modifier) = (pg_sys::InvalidOid, -1);
        // SAFETY: `type_name` is a C string. In PostgreSQL 15, parseTypeString() returns an invalid
        // oid for a dropped type.
        unsafe {
            #[cfg(feature = "pg15")]
            pg_sys::parseTypeString(type_name.as_ptr(), &mut type_oid, &mut modifier, true);
            // Since PostgreSQL 16, parseTypeString() raises an error for a dropped type. The
            // enclosing subtransaction catches the error of parseTypeString().
            #[cfg(not(feature = "pg15"))]
            pg_sys::parseTypeString(
                type_name.as_ptr(),
                &mut type_oid,
                &mut modifier,
                std::ptr::null_mut(),
            );
            if type_oid == pg_sys::InvalidOid {
                return None;
            }
            as_type(type_oid, modifier, value).map(Text::into_string)
        }
    });
    read.ok().flatten()
}

/// # Safety
/// `index` must be the index of a column of the relation.
unsafe fn refuse_foreign_code(relation: &OpenRelation, index: usize) -> ! {
    // SAFETY: the relation is open and has a column at `index`. The name of a type is a C string.
    let (table, column, type_name) = unsafe {
        let definition = attribute(relation.tuple_desc(), index);
        let type_name = CStr::from_ptr(pg_sys::format_type_be(definition.atttypid));
        (
            relation_name(relation.as_ptr()),
            Text::from_server(attribute_name(relation.tuple_desc(), index)),
            Text::from_server(type_name.to_bytes()),
        )
    };
    let detail = format!("Column \"{}\" has type {}.", column.as_str(), type_name.as_str());
    ServerError {
        code: PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        message: format!(
            "reading a key of table \"{}\" would execute code of its owner",
            table.as_str()
        ),
        detail: Some(detail),
    }
    .raise(Some("Search lead_audit.log by row_key instead.".to_owned()))
}

fn refuse_single_value(relation: &OpenRelation, columns: usize) {
    // SAFETY: the relation is open.
    let name = unsafe { relation_name(relation.as_ptr()) };
    let name = name.as_str();
    let (detail, hint) = match columns {
        0 => (
            "It has no primary key.".to_owned(),
            "Search lead_audit.log by old_values or new_values instead.".to_owned(),
        ),
        n => (
            format!("Its primary key has {n} columns."),
            "Give the key as an object: \
             lead_audit.history('table', '{\"column\": value, …}'::jsonb)."
                .to_owned(),
        ),
    };
    ServerError {
        code: PgSqlErrorCode::ERRCODE_INVALID_COLUMN_REFERENCE,
        message: format!("one value is not a key of table \"{name}\""),
        detail: Some(detail),
    }
    .raise(Some(hint));
}
