//! Checks the Merkle tree of a database, seals entries, and counts unsealed entries.

use crate::client::{Session, value};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A query that returns the input of `python/tree.py`. Each line of the input is a JSON array with
/// the kind of a row and the row's columns.
const ROWS: &str = "
    SELECT json_build_array('checkpoint', tree_size::text, encode(root, 'hex'), note,
                            entry_ids::text)::text
      FROM lead_audit.checkpoint
    UNION ALL SELECT json_build_array('entry', id::text, encode(checksum, 'hex'))::text
      FROM lead_audit.entry
    UNION ALL SELECT json_build_array('leaf_range', first_id::text, last_id::text,
                                      first_leaf::text)::text
      FROM lead_audit.leaf_range
    UNION ALL SELECT json_build_array('tile', level::text, index::text,
                                      encode(hashes, 'hex'))::text FROM
      (SELECT level, index, hashes FROM lead_audit.tree_tile UNION ALL
       SELECT level, index, hashes FROM lead_audit.tree_edge WHERE hashes <> '') t
    UNION ALL SELECT json_build_array('tree', tree_size::text)::text FROM lead_audit.tree";

/// Checks with python/tree.py that the tree's checkpoints and tiles match the sealed entries.
///
/// # Panics
/// Panics if a checkpoint or a tile does not match the sealed entries.
#[track_caller]
pub fn assert_tree_whole(admin: &mut Session) {
    let rows: Vec<String> = match admin.query(ROWS, &[]) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(error) => panic!("{error}"),
    };
    let mut verifier = Command::new("python3")
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/tree.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut input = verifier.stdin.take().expect("standard input is a pipe");
    // The verifier writes nothing until it has read its whole input. The test and the verifier can
    // therefore not deadlock on full pipes.
    input.write_all((rows.join("\n") + "\n").as_bytes()).expect("the verifier reads the rows");
    drop(input);
    let output = verifier.wait_with_output().expect("the verifier ends");
    assert!(output.status.success(), "the verifier failed");
    let faults = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        faults.lines().take(20).collect::<Vec<_>>(),
        [""; 0],
        "the tree is not that of the entries"
    );
}

/// Seals entries, and returns the new size of the tree.
///
/// # Panics
/// Panics if sealing fails.
#[track_caller]
pub fn seal(session: &mut Session) -> i64 {
    value(session, "SELECT lead_audit.seal()")
}

/// Returns the number of visible entries that no checkpoint contains.
///
/// # Panics
/// Panics if the query fails.
#[track_caller]
pub fn unsealed(session: &mut Session) -> i64 {
    value(
        session,
        "SELECT count(*) FROM (SELECT id FROM lead_audit.entry EXCEPT
         SELECT generate_series(first_id, last_id) FROM lead_audit.leaf_range) e",
    )
}
