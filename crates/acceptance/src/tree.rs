//! What must be true of any tree.

use crate::client::{Session, call, value};

const ORACLE: &str = include_str!("../sql/tree.sql");

/// The tree is that of the sealed entries, each of which is one leaf of it, and is stored as such.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn assert_tree_whole(admin: &mut Session) {
    call(admin, ORACLE);
    let faults: Vec<String> = match admin.query("SELECT * FROM pg_temp.tree_faults() LIMIT 20", &[]) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(faults, [""; 0], "the tree is not that of the entries");
}

/// Seals; returns the size of the tree.
///
/// # Panics
/// If that fails.
#[track_caller]
pub fn seal(session: &mut Session) -> i64 {
    value(session, "SELECT lead_audit.seal()")
}

/// How many visible entries no checkpoint has.
///
/// # Panics
/// If they cannot be counted.
#[track_caller]
pub fn unsealed(session: &mut Session) -> i64 {
    value(
        session,
        "SELECT count(*) FROM (SELECT id FROM lead_audit.entry EXCEPT
         SELECT generate_series(first_id, last_id) FROM lead_audit.leaf_range) e",
    )
}
