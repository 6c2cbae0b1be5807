//! The names of this session's temporary tables, which hide watched tables of the same name. The
//! worker may resolve a failed statement's text only after the session has ended and its temporary
//! tables are gone.

use std::cell::RefCell;

#[derive(Default)]
struct Names {
    /// Made in this transaction, each with whether it survives the transaction.
    of_transaction: Vec<(String, bool)>,
    /// Made by earlier transactions, and certain to exist. A wrong name would suppress the entry of
    /// a failure. A missing name does no harm: the worker also looks it up in the session's schema.
    of_session: Vec<String>,
}

thread_local! {
    static NAMES: RefCell<Names> = RefCell::default();
}

/// Notes a new temporary table. `stays`: it survives its transaction.
pub fn note_temporary_table(name: &str, stays: bool) {
    NAMES.with_borrow_mut(|names| names.of_transaction.push((name.to_owned(), stays)));
}

/// Called for a DROP or RENAME that may affect a temporary table.
pub fn doubt_temporary_tables() {
    NAMES.with_borrow_mut(|names| names.of_session.clear());
    subtransaction_fails();
}

/// Notes that the subtransaction's tables are gone.
pub fn subtransaction_fails() {
    NAMES.with_borrow_mut(|names| {
        names.of_transaction.iter_mut().for_each(|(_, stays)| *stays = false)
    });
}

/// The names that occur in a statement's text.
pub fn in_text(text: &str) -> Vec<String> {
    NAMES.with_borrow(|names| {
        if names.of_transaction.is_empty() && names.of_session.is_empty() {
            return Vec::new();
        }
        let text = text.to_lowercase();
        let all = names.of_transaction.iter().map(|(name, _)| name).chain(&names.of_session);
        all.filter(|name| text.contains(&name.to_lowercase())).cloned().collect()
    })
}

/// Called when the transaction has ended.
pub fn transaction_ends(committed: bool) {
    NAMES.with_borrow_mut(|names| {
        let made = std::mem::take(&mut names.of_transaction);
        if committed {
            names
                .of_session
                .extend(made.into_iter().filter(|(_, stays)| *stays).map(|(name, _)| name));
        }
    });
}
