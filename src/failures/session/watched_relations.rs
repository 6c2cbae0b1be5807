//! Keeps descriptions of the watched tables that this session has used. While an error is being
//! raised, the session cannot read a catalog. Therefore the session makes the description of a
//! watched table before the session's first statement on the table runs.

use super::name_filter::note_name;
use crate::failures::queue::record::Table;
use crate::pg::watch_of_triggers;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// A watched table.
pub struct Watched {
    /// The description of the table in the form that records contain.
    pub table: Table,
    /// The name of the table's soft-delete column, or an empty string.
    pub soft_delete_column: String,
}

#[derive(Default)]
struct Known {
    relations: HashMap<u32, Option<Box<Watched>>>,
    /// The outdated descriptions, which a statement in progress may still use. The outdated
    /// descriptions are freed at the end of the transaction.
    #[expect(
        clippy::vec_box,
        reason = "scopes point to what is in the box, which must stay where it is"
    )]
    outdated: Vec<Box<Watched>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
    static ALL_STALE: Cell<bool> = const { Cell::new(false) };
    /// The number of calls of `relation_changed` and `schema_changed`.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    /// The argument of the last call of `watched`, and the result of this call.
    static LAST: Cell<(u32, *const Watched)> = const { Cell::new((0, std::ptr::null())) };
}

/// Marks the description of a relation as outdated. `None` stands for all relations. The function
/// is called when a relation has changed or may have changed.
pub fn relation_changed(relation: Option<pg_sys::Oid>) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
    LAST.set((0, std::ptr::null()));
    KNOWN.with(|known| match (known.try_borrow_mut(), relation) {
        (Ok(mut known), None) => known.forget_all(),
        (Ok(mut known), Some(relation)) => known.forget(relation.to_u32()),
        (Err(_), _) => ALL_STALE.set(true),
    });
}

/// Marks all descriptions as outdated. The function is called when a schema was renamed or may have
/// been renamed.
pub fn schema_changed() {
    CHANGES.set(CHANGES.get().wrapping_add(1));
    LAST.set((0, std::ptr::null()));
    ALL_STALE.set(true);
}

impl Known {
    fn forget(&mut self, relation: u32) {
        if let Some(Some(watched)) = self.relations.remove(&relation) {
            self.outdated.push(watched);
        }
    }

    fn forget_all(&mut self) {
        let all = std::mem::take(&mut self.relations);
        self.outdated.extend(all.into_values().flatten());
    }
}

/// Frees the outdated descriptions. The function is called at the end of a transaction, because no
/// statement of an ended transaction can use the descriptions.
pub fn transaction_ends() {
    KNOWN.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            known.outdated.clear();
        }
    });
}

/// Returns the description of a watched relation, or null if the relation is not watched. The
/// pointer is valid until the transaction ends.
///
/// The look-up of the relation reads the catalogs and can raise errors, so the function must not be
/// called while an error is being raised.
pub fn watched(relation: pg_sys::Oid) -> *const Watched {
    let oid = relation.to_u32();
    let (last, answer) = LAST.get();
    if last == oid && oid != 0 && !ALL_STALE.get() {
        return answer;
    }
    if ALL_STALE.take() {
        KNOWN.with_borrow_mut(Known::forget_all);
    }
    let address = |entry: &Option<Box<Watched>>| {
        entry.as_ref().map_or(std::ptr::null(), |watched| std::ptr::from_ref(&**watched))
    };
    let known = KNOWN.with_borrow(|known| known.relations.get(&oid).map(address));
    let answer = known.unwrap_or_else(|| {
        let changes = CHANGES.get();
        let found = look_up(relation);
        // The look-up can process an invalidation of the relation after it has read the relation.
        // In this case, the new description is already outdated, and the next call makes another
        // description.
        if CHANGES.get() != changes {
            ALL_STALE.set(true);
        }
        KNOWN.with_borrow_mut(|known| {
            known.forget(oid);
            address(known.relations.entry(oid).insert_entry(found).get())
        })
    });
    LAST.set((oid, answer));
    answer
}

fn look_up(relation: pg_sys::Oid) -> Option<Box<Watched>> {
    let found = watch_of_triggers(relation)?;
    note_name(&found.name);
    let table = Table {
        relation: relation.to_u32(),
        watch_id: Some(found.watch_id),
        schema: found.schema,
        name: found.name,
    };
    Some(Box::new(Watched { table, soft_delete_column: found.soft_delete_column }))
}
