//! Computes the JSON columns of the view lead_audit.log from the texts of an entry.
//!
//! An entry can store a text that jsonb cannot represent. The JSON in an entry can also be nested
//! more deeply than the stack of the reading session allows. The old and the new row together can
//! exceed PostgreSQL's maximum size of a value. If a JSON value cannot be computed, the view shows
//! NULL. An error in place of NULL would end the reader's query, and the reader would see none of
//! the entries.

use pgrx::pg_sys::JsonbIteratorToken as Token;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, direct_function_call_as_datum, pg_sys};
use std::panic::AssertUnwindSafe;

/// A diff is computed only if a row's JSON and its changed values have together at most this number
/// of bytes. All columns of an entry must fit into the 1 GB that a result row can have.
const LONGEST_FOR_DIFF: usize = 400 << 20;

/// Tells PostgreSQL the calling convention of `lead_audit_as_jsonb`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_as_jsonb() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// Implements `lead_audit_internal.as_jsonb(json)`, which returns the value as jsonb.
///
/// # Safety
/// Only PostgreSQL may call this function, with the arguments of its declaration.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_as_jsonb(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: the SQL function is strict and has one argument, a json.
    unsafe {
        let [value] = arguments(fcinfo);
        or_null(fcinfo, || parsed(value))
    }
}

/// Tells PostgreSQL the calling convention of `lead_audit_new_values_of`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_new_values_of() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// Implements `lead_audit_internal.new_values_of(json, json)`, which returns the row after an
/// UPDATE. The arguments of new_values_of() are the old row and the changed values.
///
/// # Safety
/// Only PostgreSQL may call this function, with the arguments of its declaration.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_new_values_of(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: the SQL function is strict and has two arguments, both json. jsonb_concat takes two
    // arguments of type jsonb.
    unsafe {
        let [old, changed] = arguments(fcinfo);
        or_null(fcinfo, || {
            let both = objects([old, changed])?;
            direct_function_call_as_datum(pg_sys::jsonb_concat, &both.map(Some))
        })
    }
}

/// Tells PostgreSQL the calling convention of `lead_audit_diff_of`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_diff_of() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// Implements `lead_audit_internal.diff_of(json, json)`, which returns the diff of an UPDATE. The
/// arguments of diff_of() are the old row and the changed values.
///
/// # Safety
/// Only PostgreSQL may call this function, with the arguments of its declaration.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_diff_of(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: the SQL function is strict and has two arguments, both json. `parsed` returns a new
    // jsonb, which is not toasted.
    unsafe {
        let [old, changed] = arguments(fcinfo);
        or_null(fcinfo, || {
            let length: usize =
                [old, changed].map(|json| pg_sys::toast_raw_datum_size(json)).iter().sum();
            if length > LONGEST_FOR_DIFF {
                return None;
            }
            let [old, changed] = objects([old, changed])?;
            Some(diff(old.cast_mut_ptr(), changed.cast_mut_ptr()))
        })
    }
}

/// Returns the arguments of the call, detoasted. This function must be called outside of `or_null`.
/// Detoasting can hold resources, and `or_null` does not release resources after an error.
///
/// # Safety
/// `fcinfo` must be a call with N arguments, all of them varlenas.
unsafe fn arguments<const N: usize>(fcinfo: pg_sys::FunctionCallInfo) -> [pg_sys::Datum; N] {
    // SAFETY: the call has N arguments, which are varlenas (see # Safety).
    unsafe {
        let given = (*fcinfo).args.as_slice(N);
        std::array::from_fn(|index| {
            pg_sys::Datum::from(pg_sys::pg_detoast_datum_packed(given[index].value.cast_mut_ptr()))
        })
    }
}

/// Returns the result of `work`. Returns SQL NULL if `work` returns `None`, or if jsonb or the
/// stack cannot hold the value.
///
/// # Safety
/// `fcinfo` must be a valid call. `work` must have no effect besides its result. After an error,
/// only the rollback of a subtransaction could undo other effects of `work`, and a parallel worker
/// cannot begin a subtransaction.
unsafe fn or_null(
    fcinfo: pg_sys::FunctionCallInfo,
    work: impl FnOnce() -> Option<pg_sys::Datum>,
) -> pg_sys::Datum {
    // SAFETY: the code saves and restores the current memory context, which contains all memory of
    // `work`.
    let result = unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
            .catch_others(|caught| Err(Box::new(caught)))
            .execute();
        pg_sys::CurrentMemoryContext = context;
        result
    };
    let value = result.unwrap_or_else(|caught| match is_limit(&caught) {
        true => None,
        false => caught.rethrow(),
    });
    value.unwrap_or_else(|| {
        // SAFETY: the call is valid (see # Safety).
        unsafe { (*fcinfo).isnull = true };
        pg_sys::Datum::from(0)
    })
}

/// Returns whether the error means that jsonb, or the stack, cannot hold the value.
fn is_limit(caught: &CaughtError) -> bool {
    use PgSqlErrorCode as Code;
    let (CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)) = caught else {
        return false;
    };
    match report.sql_error_code() {
        Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED
        | Code::ERRCODE_STATEMENT_TOO_COMPLEX
        | Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE
        | Code::ERRCODE_UNTRANSLATABLE_CHARACTER
        | Code::ERRCODE_INVALID_TEXT_REPRESENTATION => true,
        // PostgreSQL raises an internal error if the list of an array's elements needs more than 1
        // GB.
        Code::ERRCODE_INTERNAL_ERROR => {
            report.message().starts_with("invalid memory alloc request size")
        }
        _ => false,
    }
}

/// Converts a json to jsonb. Raises an error if jsonb cannot hold the value.
///
/// # Safety
/// `json` must be a detoasted json.
unsafe fn parsed(json: pg_sys::Datum) -> Option<pg_sys::Datum> {
    // SAFETY: a json is stored as a text, and jsonb_in takes a C string.
    unsafe {
        let text = pg_sys::text_to_cstring(json.cast_mut_ptr());
        let jsonb =
            direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text))]);
        pg_sys::pfree(text.cast());
        jsonb
    }
}

/// Converts both texts to jsonb. Returns `None` if one of the values is not an object. The library
/// stores only objects in the JSON columns of a row, but a superuser can store any JSON there.
///
/// # Safety
/// Both texts must be detoasted json.
unsafe fn objects(texts: [pg_sys::Datum; 2]) -> Option<[pg_sys::Datum; 2]> {
    // SAFETY: both texts are detoasted json (see # Safety). A jsonb that `parsed` returns is not
    // toasted, so the code can read its header.
    unsafe {
        let both = [parsed(texts[0])?, parsed(texts[1])?];
        let is_object = |jsonb: &pg_sys::Datum| {
            (*jsonb.cast_mut_ptr::<pg_sys::Jsonb>()).root.header & pg_sys::JB_FOBJECT != 0
        };
        both.iter().all(is_object).then_some(both)
    }
}

/// Returns `{"column": {"old": …, "new": …}, …}` with one member for each changed value.
///
/// # Safety
/// `old` and `changed` must be jsonb objects that are not toasted.
unsafe fn diff(old: *mut pg_sys::Jsonb, changed: *mut pg_sys::Jsonb) -> pg_sys::Datum {
    // SAFETY: the iterator, its values and the new value live in the current memory context and in
    // the two jsonb objects. The two jsonb objects outlive the iterator and the values.
    unsafe {
        let mut state = std::ptr::null_mut();
        let mut push = |token: Token::Type, value: *mut pg_sys::JsonbValue| {
            pg_sys::pushJsonbValue(&mut state, token, value)
        };
        let mut iterator = pg_sys::JsonbIteratorInit(&raw mut (*changed).root);
        let mut value = pg_sys::JsonbValue::default();
        push(Token::WJB_BEGIN_OBJECT, std::ptr::null_mut());
        loop {
            let token = pg_sys::JsonbIteratorNext(&mut iterator, &mut value, true);
            match token {
                Token::WJB_KEY => {
                    let (name, length) = (value.val.string.val, value.val.string.len);
                    push(Token::WJB_KEY, &mut value);
                    push(Token::WJB_BEGIN_OBJECT, std::ptr::null_mut());
                    push(Token::WJB_KEY, &mut key(c"old"));
                    let mut none = pg_sys::JsonbValue {
                        type_: pg_sys::jbvType::jbvNull,
                        ..Default::default()
                    };
                    let before = pg_sys::getKeyJsonValueFromContainer(
                        &raw mut (*old).root,
                        name,
                        length,
                        std::ptr::null_mut(),
                    );
                    push(Token::WJB_VALUE, if before.is_null() { &mut none } else { before });
                }
                Token::WJB_VALUE => {
                    push(Token::WJB_KEY, &mut key(c"new"));
                    push(Token::WJB_VALUE, &mut value);
                    push(Token::WJB_END_OBJECT, std::ptr::null_mut());
                }
                Token::WJB_DONE => break,
                _ => {}
            }
        }
        let object = push(Token::WJB_END_OBJECT, std::ptr::null_mut());
        pg_sys::Datum::from(pg_sys::JsonbValueToJsonb(object))
    }
}

fn key(name: &'static std::ffi::CStr) -> pg_sys::JsonbValue {
    let mut key = pg_sys::JsonbValue { type_: pg_sys::jbvType::jbvString, ..Default::default() };
    key.val.string.len = name.count_bytes() as i32;
    key.val.string.val = name.as_ptr().cast_mut();
    key
}
