//! The names of this session's temporary tables, which come before watched ones of the same name.
//! Who resolves the text of a statement that failed may come when the session has ended, and its
//! temporary tables with it.

use std::cell::RefCell;

#[derive(Default)]
struct Names {
    /// Made in this transaction, and whether the table is still there after it.
    of_transaction: Vec<(String, bool)>,
    /// Made by earlier transactions. Only names of tables that are there for certain: with one too
    /// many a failure would have no entry, while what is missing here is looked up where the
    /// session's tables are.
    of_session: Vec<String>,
}

thread_local! {
    static NAMES: RefCell<Names> = RefCell::default();
}

/// A command makes a temporary table. `stays`: beyond its transaction.
pub fn note_temporary_table(name: &str, stays: bool) {
    NAMES.with_borrow_mut(|names| names.of_transaction.push((name.to_owned(), stays)));
}

/// Something is dropped or renamed that may be one of them.
pub fn doubt_temporary_tables() {
    NAMES.with_borrow_mut(|names| names.of_session.clear());
    subtransaction_fails();
}

/// Those that were made in it are gone.
pub fn subtransaction_fails() {
    NAMES.with_borrow_mut(|names| {
        names.of_transaction.iter_mut().for_each(|(_, stays)| *stays = false)
    });
}

/// Those names that are in a statement's text.
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

/// The transaction is over.
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
