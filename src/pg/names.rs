//! Names of what is in the catalog. Like any text of the server they need not be UTF-8.

use super::{Text, attribute};
use pgrx::pg_sys;
use std::ffi::CStr;

/// The relation's name.
///
/// # Safety
/// `relation` must be an open relation.
pub unsafe fn relation_name(relation: pg_sys::Relation) -> Text {
    // SAFETY: an open relation has its row of pg_class; a name is a C string within its 64 bytes.
    unsafe { Text::from_server(CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr()).to_bytes()) }
}

/// The bytes of the name of the attribute at `index`, counted from 0.
///
/// # Safety
/// As for [`attribute`].
pub unsafe fn attribute_name<'a>(descriptor: pg_sys::TupleDesc, index: usize) -> &'a [u8] {
    // SAFETY: as the caller promises; a name is a C string within its 64 bytes.
    unsafe { CStr::from_ptr(attribute(descriptor, index).attname.data.as_ptr()).to_bytes() }
}

/// The schema's name; empty for one that is gone.
pub fn schema_name(schema: pg_sys::Oid) -> Text {
    // SAFETY: a look-up by oid: null, or a C string in the current memory context.
    unsafe {
        let name = pg_sys::get_namespace_name(schema);
        if name.is_null() { Text::new() } else { Text::from_server(CStr::from_ptr(name).to_bytes()) }
    }
}
