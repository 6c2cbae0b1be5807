//! Finds and watches the table `leads` at CREATE EXTENSION.

use crate::pg::with_search_path;
use crate::settings;
use pgrx::datum::DatumWithOid;
use pgrx::{PgLogLevel, PgSqlErrorCode, Spi, pg_extern, pg_sys};
use std::ffi::CString;

/// `lead_audit_internal.watch_leads()`: watches the table `leads` that the caller of CREATE
/// EXTENSION has on the search_path. If there is no such table, raises a NOTICE that shows how to
/// call enable().
#[pg_extern(sql = false)]
fn watch_leads() {
    match leads_of_caller() {
        Some(leads) => {
            // SAFETY: the argument is an oid, and its declared type is oid.
            let argument = unsafe { DatumWithOid::new(leads, pg_sys::OIDOID) };
            if let Err(error) =
                Spi::run_with_args("SELECT lead_audit.enable($1::pg_catalog.regclass)", &[argument])
            {
                notice(&format!("table \"leads\" is not watched: {error}"));
            }
        }
        None => notice("there is no table \"leads\" on the search_path: nothing is watched yet"),
    }
}

/// Returns the permanent table `leads` on the search_path of CREATE EXTENSION's caller. CREATE
/// EXTENSION itself runs the extension's script with a search_path of its own.
fn leads_of_caller() -> Option<pg_sys::Oid> {
    let path = CString::new(settings::outer_text_value(c"search_path")?).ok()?;
    // SAFETY: RelnameGetRelid() accepts any C string, and returns an invalid oid for an unknown
    // name.
    let found = with_search_path(&path, || unsafe { pg_sys::RelnameGetRelid(c"leads".as_ptr()) });
    // SAFETY: the look-ups accept any oid.
    let is_table = unsafe {
        matches!(
            pg_sys::get_rel_relkind(found) as u8,
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE
        ) && pg_sys::get_rel_persistence(found) as u8 != pg_sys::RELPERSISTENCE_TEMP
    };
    is_table.then_some(found)
}

/// Raises a NOTICE that the client sees during CREATE EXTENSION. By default, the client sees no
/// message below WARNING during CREATE EXTENSION.
fn notice(message: &str) {
    // SAFETY: client_min_messages is a variable of this process. The value of client_min_messages
    // is restored in any case, because a NOTICE does not raise an error.
    unsafe {
        let former = pg_sys::client_min_messages;
        pg_sys::client_min_messages = former.min(PgLogLevel::NOTICE as i32);
        pgrx::pg_sys::panic::ErrorReport::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            message.to_owned(),
            "lead_audit",
        )
        .set_hint("To watch a table: SELECT lead_audit.enable('schema.table');")
        .report(PgLogLevel::NOTICE);
        pg_sys::client_min_messages = former;
    }
}
