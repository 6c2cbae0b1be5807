//! Searches for a wanted type within another type, for example among the types of a composite
//! type's attributes. The search does not recurse, because types can be nested more deeply than the
//! stack allows.

use crate::pg::{attribute, new_context};
use pgrx::pg_sys;
use std::collections::HashMap;

/// Maps the oid of each examined type to true if the type is, or contains, a wanted type. Each type
/// is examined once, even if it occurs within several other types.
#[derive(Default)]
pub struct TypeSearch(HashMap<pg_sys::Oid, bool>);

impl TypeSearch {
    /// Returns whether the type is, or contains, a type for which `is_wanted` returns true.
    /// `parts(one, to)` adds to `to` the types that a value of the type `one` consists of.
    ///
    /// Every call on one `TypeSearch` must pass the same two functions.
    pub fn finds(
        &mut self,
        type_oid: pg_sys::Oid,
        is_wanted: impl Fn(pg_sys::Oid) -> bool,
        parts: impl Fn(pg_sys::Oid, &mut Vec<pg_sys::Oid>),
    ) -> bool {
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
                None if is_wanted(next) => found = true,
                None => {
                    // At first, the search assumes that this type contains no wanted type. If the
                    // search finds a wanted type, it ends early, and each type in `seen` may
                    // contain the wanted type. In this case, the code after the loop removes the
                    // assumptions for the types in `seen`.
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

/// Adds to `to` the types of a composite type's attributes.
pub fn attribute_types(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    // SAFETY: PostgreSQL raises an error for a type that is not composite. The copy of the row type
    // is in a memory context of its own, which is deleted at the end of this function. After an
    // error, PostgreSQL frees that memory context with its parent.
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
