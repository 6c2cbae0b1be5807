//! Which types bring code that a table's owner can have written. Whoever has more rights than the owner must not run it.
//!
//! Output functions of base types, ranges, enums and domains are PostgreSQL's, or a superuser's: they are in C. What an owner can
//! define is a cast to json of a type of one's own, which to_jsonb calls, and a domain's check, which reading a value calls.

use super::type_search::{TypeSearch, attribute_types};
use pgrx::pg_sys;

/// Answers for types, kept for as long as the caller keeps this. Types can change meanwhile only in other transactions.
#[derive(Default)]
pub struct ForeignCode {
    writing: TypeSearch,
}

impl ForeignCode {
    /// Whether writing a value of the type as JSON may run code that is neither in C nor PostgreSQL's own.
    pub fn writes(&mut self, type_oid: pg_sys::Oid) -> bool {
        self.writing.finds(type_oid, has_foreign_cast, parts)
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
    let without_domain = |type_oid: pg_sys::Oid, mut modifier: i32| {
        // SAFETY: looks the type up; the modifier is replaced where the type is a domain.
        let base = unsafe { pg_sys::getBaseTypeAndTypmod(type_oid, &mut modifier) };
        (base, modifier)
    };
    let reads_domains = |type_oid| TypeSearch::default().finds(type_oid, is_domain, parts_to_read);
    let (base, modifier) = without_domain(type_oid, modifier);
    if !reads_domains(base) {
        return Some((base, modifier));
    }
    // SAFETY: looks the type up; an invalid oid says that there is no such thing.
    let element = unsafe { pg_sys::get_element_type(base) };
    if element == pg_sys::InvalidOid {
        return None;
    }
    let (element, modifier) = without_domain(element, -1);
    // SAFETY: the same.
    let array = unsafe { pg_sys::get_array_type(element) };
    (array != pg_sys::InvalidOid && !reads_domains(element)).then_some((array, modifier))
}

fn is_domain(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: looks the type up.
    !is_built_in(type_oid) && unsafe { pg_sys::get_typtype(type_oid) } as u8 == pg_sys::TYPTYPE_DOMAIN
}

/// Adds the types that a value of this type is read as.
fn parts_to_read(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    if is_built_in(type_oid) {
        return;
    }
    // SAFETY: looks the type up; an invalid oid says that there is no such thing.
    let part = unsafe {
        match pg_sys::get_typtype(type_oid) as u8 {
            pg_sys::TYPTYPE_COMPOSITE => return attribute_types(type_oid, to),
            pg_sys::TYPTYPE_RANGE => pg_sys::get_range_subtype(type_oid),
            pg_sys::TYPTYPE_MULTIRANGE => pg_sys::get_multirange_range(type_oid),
            _ => pg_sys::get_element_type(type_oid),
        }
    };
    if part != pg_sys::InvalidOid {
        to.push(part);
    }
}

fn is_built_in(type_oid: pg_sys::Oid) -> bool {
    type_oid.to_u32() < pg_sys::FirstNormalObjectId
}

/// How to_jsonb takes a value apart.
enum Shape {
    BuiltIn,
    Domain(pg_sys::Oid),
    Array(pg_sys::Oid),
    Composite,
    /// As a whole: by a cast, or as its text.
    Whole,
}

fn shape(type_oid: pg_sys::Oid) -> Shape {
    // SAFETY: looks the type up; an invalid oid says that there is no such thing.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        let element = pg_sys::get_element_type(base);
        match () {
            () if base != type_oid => Shape::Domain(base),
            () if is_built_in(base) => Shape::BuiltIn,
            () if element != pg_sys::InvalidOid => Shape::Array(element),
            () if pg_sys::get_typtype(base) as u8 == pg_sys::TYPTYPE_COMPOSITE => Shape::Composite,
            () => Shape::Whole,
        }
    }
}

fn parts(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    match shape(type_oid) {
        Shape::Domain(base) => to.push(base),
        Shape::Array(element) => to.push(element),
        Shape::Composite => attribute_types(type_oid, to),
        Shape::BuiltIn | Shape::Whole => {}
    }
}

fn has_foreign_cast(type_oid: pg_sys::Oid) -> bool {
    matches!(shape(type_oid), Shape::Whole) && cast_to_json(type_oid).is_some_and(|function| !is_in_c(function))
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
