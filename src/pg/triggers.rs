//! The triggers of a relation, as its relcache entry has them.

use pgrx::pg_sys;
use std::ffi::CStr;

/// What the audit triggers of a relation say.
pub struct WatchTriggers {
    /// The relation's schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Identity of the watched table.
    pub watch_id: [u8; 16],
    /// Name of its soft-delete column, or empty.
    pub soft_delete_column: String,
}

/// Looks for a trigger that is on and calls the extension; `None` for a relation that is gone or not watched.
pub fn watch_of_triggers(relation: pg_sys::Oid) -> Option<WatchTriggers> {
    // SAFETY: within a transaction. The relcache entry is held until it is closed below; a trigger has tgnargs arguments, and
    // names and arguments are C strings.
    unsafe {
        let open = pg_sys::RelationIdGetRelation(relation);
        if open.is_null() {
            return None;
        }
        let found = triggers_of(open);
        pg_sys::RelationClose(open);
        found
    }
}

/// # Safety
/// `open` must be an open relation.
unsafe fn triggers_of(open: pg_sys::Relation) -> Option<WatchTriggers> {
    // SAFETY: as the caller promises, and as above.
    unsafe {
        let description = (*open).trigdesc;
        if description.is_null() {
            return None;
        }
        let own = pg_sys::get_namespace_oid(c"lead_audit".as_ptr(), true);
        let text = |text: *const core::ffi::c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
        let mut found = None;
        for index in 0..(*description).numtriggers as usize {
            let trigger = &*(*description).triggers.add(index);
            let is_on = matches!(trigger.tgenabled as u8, b'O' | b'A');
            if own == pg_sys::InvalidOid || !is_on || trigger.tgnargs < 1 || pg_sys::get_func_namespace(trigger.tgfoid) != own {
                continue;
            }
            let Some(watch_id) = super::text::parse_uuid(&text(*trigger.tgargs)) else { continue };
            let class = (*open).rd_rel;
            let schema = pg_sys::get_namespace_name((*class).relnamespace);
            let soft_delete_column = if trigger.tgnargs > 1 { text(*trigger.tgargs.add(1)) } else { String::new() };
            let is_row = trigger.tgnargs > 1;
            if is_row || found.is_none() {
                found = Some(WatchTriggers {
                    schema: if schema.is_null() { String::new() } else { text(schema) },
                    name: text((*class).relname.data.as_ptr()),
                    watch_id,
                    soft_delete_column,
                });
            }
        }
        found
    }
}
