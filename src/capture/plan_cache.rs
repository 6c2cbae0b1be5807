//! The layouts of the relations that this session has written to, dropped when Postgres says that a relation changed.

use super::row_layout::RowLayout;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

thread_local! {
    static LAYOUTS: RefCell<HashMap<pg_sys::Oid, Rc<RowLayout>>> = RefCell::new(HashMap::new());
    // Set when an invalidation comes while the map is being changed.
    static ALL_STALE: Cell<bool> = const { Cell::new(false) };
}

/// A relation changed, or may have: `None` is any.
pub fn relation_changed(relation: Option<pg_sys::Oid>) {
    LAYOUTS.with(|layouts| match layouts.try_borrow() {
        Ok(layouts) => match relation {
            Some(relation) => layouts.get(&relation).into_iter().for_each(|layout| layout.valid.set(false)),
            None => layouts.values().for_each(|layout| layout.valid.set(false)),
        },
        Err(_) => ALL_STALE.set(true),
    });
}

/// The layout for an open relation, made now if there is none that holds.
///
/// # Safety
/// `relation` must be an open relation.
pub unsafe fn layout(relation: pg_sys::Relation, soft_delete_name: &str) -> Rc<RowLayout> {
    // SAFETY: it is open.
    let oid = unsafe { (*relation).rd_id };
    if ALL_STALE.take() {
        LAYOUTS.with_borrow_mut(HashMap::clear);
    }
    let known = LAYOUTS.with_borrow(|layouts| layouts.get(&oid).cloned());
    if let Some(layout) = known
        && layout.valid.get()
        && layout.soft_delete_name == soft_delete_name
    {
        return layout;
    }
    // SAFETY: it is open. Made outside of any borrow: this opens other relations, which can bring in invalidations.
    let layout = Rc::new(unsafe { RowLayout::new(relation, soft_delete_name) });
    LAYOUTS.with_borrow_mut(|layouts| {
        // Relations that are gone are never asked for again: their layouts go when others come.
        layouts.retain(|_, layout| layout.valid.get());
        layouts.insert(oid, Rc::clone(&layout));
    });
    layout
}
