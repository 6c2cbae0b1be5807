//! Keeps the names of this session's temporary tables. A temporary table hides a watched table of
//! the same name, so a failed statement that uses this name concerns no watched table. The worker
//! cannot always look for the temporary tables, because the session may have ended before the
//! worker reads the record.

use std::cell::RefCell;

#[derive(Default)]
struct Names {
    /// The temporary tables that this transaction has made. The flag of a table is true if the
    /// table survives the transaction.
    of_transaction: Vec<(String, bool)>,
    /// The temporary tables that earlier transactions have made and that certainly still exist. If
    /// the list contained the name of a dropped table, failed statements on a watched table of this
    /// name would get no entry. A name that is missing in `of_session` does little harm, because
    /// the worker also looks for the table in the session's temporary schema.
    of_session: Vec<String>,
}

thread_local! {
    static NAMES: RefCell<Names> = RefCell::default();
}

/// Notes a new temporary table. `stays` is true if the table survives its transaction.
pub fn note_temporary_table(name: &str, stays: bool) {
    NAMES.with_borrow_mut(|names| names.of_transaction.push((name.to_owned(), stays)));
}

/// Notes that temporary tables may no longer exist. Forgets the temporary tables of earlier
/// transactions, and notes that those of this transaction may not survive it. Called before DROP,
/// ALTER … RENAME and other commands that may remove or rename a temporary table.
pub fn doubt_temporary_tables() {
    NAMES.with_borrow_mut(|names| names.of_session.clear());
    subtransaction_fails();
}

/// Notes that the temporary tables of this transaction may not survive the transaction. The
/// function is called when a subtransaction has been rolled back.
pub fn subtransaction_fails() {
    NAMES.with_borrow_mut(|names| {
        names.of_transaction.iter_mut().for_each(|(_, stays)| *stays = false)
    });
}

/// Returns the names of the session's temporary tables that occur in a statement's text.
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

/// Moves the names of the temporary tables that survive a committed transaction from
/// `of_transaction` to `of_session`. The function is called when the transaction has ended.
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
