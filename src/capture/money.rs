//! Which types can have money in their values. Its text depends on lc_monetary, which takes time to pin.

use crate::pg::{attribute, new_context};
use pgrx::pg_sys;
use std::collections::HashMap;

/// Answers by type. Each type is looked at once, however often it occurs within others.
#[derive(Default)]
pub struct MoneyTypes(HashMap<pg_sys::Oid, bool>);

impl MoneyTypes {
    /// Whether values of the type can have money in them: the type itself, its elements, bounds or attributes.
    pub fn contains(&mut self, type_oid: pg_sys::Oid) -> bool {
        if let Some(&known) = self.0.get(&type_oid) {
            return known;
        }
        let mut found = false;
        let mut seen = Vec::new();
        let mut ahead = vec![type_oid];
        while let Some(next) = ahead.pop().filter(|_| !found) {
            pgrx::check_for_interrupts!();
            match self.0.get(&next) {
                Some(&known) => found = known,
                None if next == pg_sys::MONEYOID => found = true,
                None => {
                    // Should there be money behind it, the search ends, and the answers for the others are not known.
                    self.0.insert(next, false);
                    seen.push(next);
                    parts(next, &mut ahead);
                }
            }
        }
        if found {
            for oid in seen {
                self.0.remove(&oid);
            }
        }
        self.0.insert(type_oid, found);
        found
    }
}

/// Adds the types that values of a type consist of; none for a type that has no parts.
fn parts(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    // SAFETY: look-ups by oid, which give an invalid one where there is nothing.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        let part = match pg_sys::get_typtype(base) as u8 {
            _ if base != type_oid => base,
            pg_sys::TYPTYPE_RANGE => pg_sys::get_range_subtype(base),
            pg_sys::TYPTYPE_MULTIRANGE => pg_sys::get_multirange_range(base),
            pg_sys::TYPTYPE_COMPOSITE => return attributes(base, to),
            _ => pg_sys::get_element_type(base),
        };
        if part != pg_sys::InvalidOid {
            to.push(part);
        }
    }
}

/// Adds the types of a composite type's attributes.
fn attributes(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    // SAFETY: the type is composite. The copy of its row type is in a context of its own, which goes at the end; an error leaves it
    // to its parent.
    unsafe {
        let context = new_context(pg_sys::CurrentMemoryContext, c"lead_audit row type");
        let former = pg_sys::MemoryContextSwitchTo(context);
        let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
        for index in 0..(*descriptor).natts as usize {
            let attribute = attribute(descriptor, index);
            if !attribute.attisdropped {
                to.push(attribute.atttypid);
            }
        }
        pg_sys::MemoryContextSwitchTo(former);
        pg_sys::MemoryContextDelete(context);
    }
}
