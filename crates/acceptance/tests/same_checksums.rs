//! The same writes must produce entries with the same bytes on each major version of PostgreSQL.
//! The test compares the checksums, because different bytes have different checksums.
//!
//! Some columns of an entry differ between two runs: id, transaction, time, process, oid and watch
//! id. The test replaces the values of these columns by fixed values, and computes the checksum of
//! the changed entry. The checksum and the other columns must equal a line of
//! `same_checksums.txt`. After a change of `many_types.sql`, a run with
//! `LEAD_AUDIT_ACCEPTANCE_WRITE=1` writes the file `same_checksums.txt`.

use acceptance::{Cluster, assert_intact, call, value, verify_with_python};
use ledger::{Entry, key_hash};
use std::path::Path;

const WRITES: &str = include_str!("../sql/many_types.sql");
const EXPECTED: &str = include_str!("same_checksums.txt");

/// The fixed value that replaces the random watch id of each table.
const WATCH_ID: [u8; 16] = *b"a watched table!";

#[test]
fn the_same_writes_have_the_same_checksums_on_each_version() {
    let cluster = Cluster::start();
    call(&mut cluster.admin("postgres"), "CREATE DATABASE same");
    let mut admin = cluster.admin("same");
    call(&mut admin, "CREATE EXTENSION lead_audit");
    // The test sends each statement as a query of its own, because a DDL entry contains the text
    // of the whole query.
    for statement in WRITES.split_inclusive(";\n") {
        call(&mut admin, statement);
    }
    assert_eq!(admin.warnings(), [""; 0]);
    // Two verifiers first check the stored checksums of the entries. This check proves that each
    // stored checksum covers the values of its entry that the test compares.
    assert_intact(&mut admin);
    let verdict = verify_with_python(&cluster, "same");
    assert!(verdict.satisfied && verdict.entries > 0, "{verdict:?}");

    let rows = admin
        .query(
            "SELECT format, table_schema, table_name, operation, outcome, soft_delete, row_key::text, row_values::text, changed_values::text,
                    details::text, user_id, user_ip, statement, key_hash IS NOT NULL, previous_key_hash IS NOT NULL
             FROM lead_audit.entry ORDER BY id",
            &[],
        )
        .expect("entries can be read");
    let mut scratch = Vec::new();
    let lines: Vec<String> = (1..)
        .zip(&rows)
        .map(|(id, row)| {
            let text = |column: usize| row.get::<_, Option<&str>>(column);
            let hashed = |column: usize| row.get::<_, bool>(column);
            let entry = Entry {
                id,
                format: row.get(0),
                watch_id: Some(WATCH_ID),
                table_schema: text(1),
                table_name: text(2),
                operation: row.get(3),
                outcome: row.get(4),
                soft_delete: text(5),
                row_key: text(6),
                row_values: text(7),
                changed_values: text(8),
                details: text(9),
                user_id: text(10),
                user_ip: text(11),
                statement: text(12),
                key_hash: text(6)
                    .filter(|_| hashed(13))
                    .map(|key| key_hash(&WATCH_ID, key.as_bytes())),
                previous_key_hash: hashed(14).then_some(1),
                ..Entry::default()
            };
            let checksum: String =
                entry.checksum(&mut scratch).iter().map(|byte| format!("{byte:02x}")).collect();
            let mut preimage = Vec::new();
            entry.write_preimage(&mut preimage);
            format!("{checksum} {}\n", String::from_utf8_lossy(&preimage))
        })
        .collect();
    let version: String = value(&mut admin, "SHOW server_version");
    if std::env::var_os("LEAD_AUDIT_ACCEPTANCE_WRITE").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/same_checksums.txt");
        std::fs::write(file, lines.concat()).expect("the file can be written");
        return;
    }
    for (line, expected) in lines.iter().zip(EXPECTED.split_inclusive('\n')) {
        assert_eq!(line, expected, "PostgreSQL {version}");
    }
    assert_eq!(lines.len(), EXPECTED.lines().count(), "entries on PostgreSQL {version}");
}
