//! The plans of the relations that this session has written to, dropped when Postgres says that a relation changed.

use super::plan::Plan;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

thread_local! {
    static PLANS: RefCell<HashMap<pg_sys::Oid, Rc<Plan>>> = RefCell::new(HashMap::new());
    // Set when an invalidation comes while the map is being changed.
    static ALL_STALE: Cell<bool> = const { Cell::new(false) };
}

/// A relation changed, or may have: `None` is any.
pub fn relation_changed(relation: Option<pg_sys::Oid>) {
    PLANS.with(|plans| match plans.try_borrow() {
        Ok(plans) => match relation {
            Some(relation) => plans.get(&relation).into_iter().for_each(|plan| plan.valid.set(false)),
            None => plans.values().for_each(|plan| plan.valid.set(false)),
        },
        Err(_) => ALL_STALE.set(true),
    });
}

/// The plan for an open relation, made now if there is none that holds.
///
/// # Safety
/// `relation` must be an open relation.
pub unsafe fn plan(relation: pg_sys::Relation, soft_delete_name: &str) -> Rc<Plan> {
    // SAFETY: it is open.
    let oid = unsafe { (*relation).rd_id };
    if ALL_STALE.take() {
        PLANS.with_borrow_mut(HashMap::clear);
    }
    let known = PLANS.with_borrow(|plans| plans.get(&oid).cloned());
    if let Some(plan) = known
        && plan.valid.get()
        && plan.soft_delete_name == soft_delete_name
    {
        return plan;
    }
    // SAFETY: it is open. Made outside of any borrow: this opens other relations, which can bring in invalidations.
    let plan = Rc::new(unsafe { Plan::new(relation, soft_delete_name) });
    PLANS.with_borrow_mut(|plans| {
        // Relations that are gone are never asked for again: their plans go when others come.
        plans.retain(|_, plan| plan.valid.get());
        plans.insert(oid, Rc::clone(&plan));
    });
    plan
}
