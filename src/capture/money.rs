//! Which types can have money in their values. Its text depends on lc_monetary, which takes time to
//! pin.

use super::type_search::{TypeSearch, attribute_types};
use pgrx::pg_sys;

/// Answers by type.
#[derive(Default)]
pub struct MoneyTypes(TypeSearch);

impl MoneyTypes {
    /// Whether values of the type can have money in them: the type itself, its elements, bounds or
    /// attributes.
    pub fn contains(&mut self, type_oid: pg_sys::Oid) -> bool {
        self.0.finds(type_oid, |candidate| candidate == pg_sys::MONEYOID, parts)
    }
}

/// Adds the types that values of a type consist of; none for a type that has no parts.
fn parts(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    // SAFETY: look-ups by oid, which give an invalid one where there is nothing.
    let part = unsafe {
        let base = pg_sys::getBaseType(type_oid);
        match pg_sys::get_typtype(base) as u8 {
            _ if base != type_oid => base,
            pg_sys::TYPTYPE_RANGE => pg_sys::get_range_subtype(base),
            pg_sys::TYPTYPE_MULTIRANGE => pg_sys::get_multirange_range(base),
            pg_sys::TYPTYPE_COMPOSITE => return attribute_types(base, to),
            _ => pg_sys::get_element_type(base),
        }
    };
    if part != pg_sys::InvalidOid {
        to.push(part);
    }
}
