//! Finds types whose values can contain money. The text of money depends on lc_monetary. Setting
//! lc_monetary costs time, so the library sets lc_monetary only for values that can contain money.

use super::type_search::{TypeSearch, attribute_types};
use pgrx::pg_sys;

/// Answers whether a type can contain money. Caches the answer for each type.
#[derive(Default)]
pub struct MoneyTypes(TypeSearch);

impl MoneyTypes {
    /// Returns whether the type is money, or has elements, bounds or attributes of type money.
    pub fn contains(&mut self, type_oid: pg_sys::Oid) -> bool {
        self.0.finds(type_oid, |candidate| candidate == pg_sys::MONEYOID, parts)
    }
}

/// Adds to `to` the types that values of a type consist of, for example the element type of an
/// array. Adds nothing for a scalar type.
fn parts(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    // SAFETY: these look-ups by oid return an invalid oid if they find nothing.
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
