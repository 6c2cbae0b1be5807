//! Which types bring code that a table's owner can have written. Whoever has more rights than the owner must not run it.
//!
//! Output functions of base types, ranges, enums and domains are PostgreSQL's, or a superuser's: they are in C. What an owner can
//! define is a cast to json of a type of one's own, which to_jsonb calls, and a domain's check, which reading a value calls.

use crate::server::attribute;
use pgrx::pg_sys;
use std::collections::HashMap;

/// Answers for types, kept for as long as the caller keeps this. Types can change meanwhile only in other transactions.
#[derive(Default)]
pub struct ForeignCode {
    writing: HashMap<pg_sys::Oid, bool>,
}

impl ForeignCode {
    /// Whether writing a value of the type as JSON may run code that is neither in C nor PostgreSQL's own.
    pub fn writes(&mut self, type_oid: pg_sys::Oid) -> bool {
        if let Some(&known) = self.writing.get(&type_oid) {
            return known;
        }
        pgrx::check_for_interrupts!();
        // A type that contains itself by some way is not trusted.
        self.writing.insert(type_oid, true);
        // SAFETY: looks the type up.
        let base = unsafe { pg_sys::getBaseType(type_oid) };
        let found = if is_built_in(base) {
            false
        } else if let Some(element) = element_type(base) {
            self.writes(element)
        } else if let Some(attributes) = attribute_types(base) {
            attributes.into_iter().any(|attribute| self.writes(attribute))
        } else {
            cast_to_json(base).is_some_and(|function| !is_in_c(function))
        };
        self.writing.insert(type_oid, found);
        found
    }

    /// Whether reading a value of the type from text may run such code.
    pub fn reads(&self, type_oid: pg_sys::Oid) -> bool {
        // SAFETY: looks the type up.
        !is_built_in(type_oid) && unsafe { pg_sys::get_typtype(type_oid) } as u8 != pg_sys::TYPTYPE_ENUM
    }
}

/// The type, and its modifier, as which a value of this type can be read from text without running code that is neither in C nor
/// PostgreSQL's own: a domain's check is left out. `None` if there is no such type.
pub fn readable_type(type_oid: pg_sys::Oid, modifier: i32) -> Option<(pg_sys::Oid, i32)> {
    let mut modifier = modifier;
    // SAFETY: looks the type up; the modifier is replaced where the type is a domain.
    let base = unsafe { pg_sys::getBaseTypeAndTypmod(type_oid, &mut modifier) };
    if is_built_in(base) {
        return Some((base, modifier));
    }
    // SAFETY: raises an error where the stack is nearly used up, which is not yet; and looks the type up.
    let kind = unsafe {
        pg_sys::check_stack_depth();
        pg_sys::get_typtype(base) as u8
    };
    let stays = |part: pg_sys::Oid| readable_type(part, -1).is_some_and(|(readable, _)| readable == part);
    let is_readable = match kind {
        pg_sys::TYPTYPE_ENUM => true,
        pg_sys::TYPTYPE_BASE => match element_type(base) {
            None => true,
            Some(element) if stays(element) => true,
            Some(element) => {
                let (element, modifier) = readable_type(element, modifier)?;
                // SAFETY: looks the type up.
                let array = unsafe { pg_sys::get_array_type(element) };
                return (array != pg_sys::InvalidOid).then_some((array, modifier));
            }
        },
        pg_sys::TYPTYPE_COMPOSITE => attribute_types(base)?.into_iter().all(stays),
        // SAFETY: look the type up.
        pg_sys::TYPTYPE_RANGE => stays(unsafe { pg_sys::get_range_subtype(base) }),
        // SAFETY: as above.
        pg_sys::TYPTYPE_MULTIRANGE => stays(unsafe { pg_sys::get_multirange_range(base) }),
        _ => false,
    };
    is_readable.then_some((base, modifier))
}

fn is_built_in(type_oid: pg_sys::Oid) -> bool {
    type_oid.to_u32() < pg_sys::FirstNormalObjectId
}

fn element_type(type_oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: looks the type up.
    Some(unsafe { pg_sys::get_element_type(type_oid) }).filter(|&element| element != pg_sys::InvalidOid)
}

/// The types of a composite type's attributes; `None` for any other type.
fn attribute_types(type_oid: pg_sys::Oid) -> Option<Vec<pg_sys::Oid>> {
    // SAFETY: looks the type up; the copy of its descriptor is in the current memory context, and freed when it has been read.
    unsafe {
        if pg_sys::get_typtype(type_oid) as u8 != pg_sys::TYPTYPE_COMPOSITE {
            return None;
        }
        let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
        let attributes = (0..(*descriptor).natts as usize).map(|index| attribute(descriptor, index));
        let types = attributes.filter(|attribute| !attribute.attisdropped).map(|attribute| attribute.atttypid).collect();
        pg_sys::FreeTupleDesc(descriptor);
        Some(types)
    }
}

/// The function by which to_jsonb makes JSON of a type that is not PostgreSQL's own, as json_categorize_type() looks for it.
fn cast_to_json(type_oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let mut function = pg_sys::InvalidOid;
    // SAFETY: looks the cast up.
    let path = unsafe {
        let explicit = pg_sys::CoercionContext::COERCION_EXPLICIT;
        pg_sys::find_coercion_pathway(pg_sys::JSONOID, type_oid, explicit, &mut function)
    };
    (path == pg_sys::CoercionPathType::COERCION_PATH_FUNC).then_some(function)
}

/// Oids of the languages, which are fixed (catalog/pg_language.dat).
const INTERNAL: usize = 12;
const C: usize = 13;

/// Whether a function is in C, which only a superuser can make one of.
fn is_in_c(function: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the system catalog; the tuple is released when its column, which is never null, was read.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return false;
        }
        let mut is_null = false;
        let language = pg_sys::SysCacheGetAttr(cache, tuple, pg_sys::Anum_pg_proc_prolang as i16, &mut is_null);
        pg_sys::ReleaseSysCache(tuple);
        [INTERNAL, C].contains(&language.value())
    }
}
