//! A tamperer is a superuser who also has the file of the signing key and knows docs/FORMAT.md. A
//! verifier outside of the database has the verifier key and one kept checkpoint. Verification
//! must find each rewrite of history, and must report no fault in an honest database.
//!
//! `LEAD_AUDIT_ACCEPTANCE_TAMPERINGS` sets the number of tampering attempts; by default 30.

use acceptance::{
    Cluster, LeadAudit, Random, Session, add_leads, app_database, call, seal, setting, text_of,
    value,
};
use std::fs;

/// SQL that disables the triggers that protect the log.
const UNGUARDED: &str = "ALTER TABLE lead_audit.entry DISABLE TRIGGER ALL; ALTER TABLE lead_audit.checkpoint DISABLE TRIGGER ALL;
    ALTER TABLE lead_audit.tree_tile DISABLE TRIGGER ALL; ALTER TABLE lead_audit.tree_edge DISABLE TRIGGER ALL;
    ALTER TABLE lead_audit.tree DISABLE TRIGGER ALL; ALTER TABLE lead_audit.leaf_range DISABLE TRIGGER ALL;
    ALTER TABLE lead_audit.open_gap DISABLE TRIGGER ALL;";

/// Returns SQL that replaces an entry by a forged entry with the same id. The extension itself
/// writes the forged entry, so its checksum is correct.
fn forge(id: i64) -> String {
    format!(
        "DELETE FROM lead_audit.entry WHERE id = {id};
         SELECT setval('lead_audit.entry_id_seq', {id}, false);
         INSERT INTO leads (id, email) VALUES ('forged-' || gen_random_uuid(), 'nobody@example.com');
         SELECT setval('lead_audit.entry_id_seq', (SELECT max(id) FROM lead_audit.entry));"
    )
}

/// Returns SQL that computes an entry's leaf from the entry's checksum, and overwrites the stored
/// leaf in its tile.
fn forge_leaf(id: i64) -> String {
    format!(
        "UPDATE lead_audit.tree_edge SET hashes = overlay(hashes PLACING sha256('\\x00'::bytea || (SELECT checksum FROM lead_audit.entry WHERE id = {id}))
           FROM ((SELECT (first_leaf + {id} - first_id)::int FROM lead_audit.leaf_range WHERE {id} BETWEEN first_id AND last_id) % 256) * 32 + 1 FOR 32)
         WHERE level = 0 AND index = (SELECT (first_leaf + {id} - first_id) / 256 FROM lead_audit.leaf_range WHERE {id} BETWEEN first_id AND last_id);
         UPDATE lead_audit.tree_tile SET hashes = overlay(hashes PLACING sha256('\\x00'::bytea || (SELECT checksum FROM lead_audit.entry WHERE id = {id}))
           FROM ((SELECT (first_leaf + {id} - first_id)::int FROM lead_audit.leaf_range WHERE {id} BETWEEN first_id AND last_id) % 256) * 32 + 1 FOR 32)
         WHERE level = 0 AND index = (SELECT (first_leaf + {id} - first_id) / 256 FROM lead_audit.leaf_range WHERE {id} BETWEEN first_id AND last_id);"
    )
}

/// The separator between two transactions in the statements of an attempt.
const THEN: &str = "-- then --";

/// SQL that deletes the tree and all checkpoints, and lets the server seal all entries again. The
/// log's own key signs the new checkpoint.
const RESEAL: &str = "-- then --
    TRUNCATE lead_audit.checkpoint, lead_audit.tree_tile, lead_audit.tree_edge, lead_audit.leaf_range, lead_audit.open_gap;
    UPDATE lead_audit.tree SET tree_size = 0, looked_to = 0, open_gaps = 0, waits_for = '{}';
    SELECT lead_audit.seal();";

/// Returns one attempt: its name, its statements, and the expected message. `gap` is an id that a
/// rolled-back transaction took from the sequence.
fn attempt(number: u64, id: i64, other: i64, gap: i64) -> (&'static str, String, String) {
    let entry = |kind: &str| format!("{kind}: entry {id}:");
    match number % 16 {
        0 => ("a column", format!("UPDATE lead_audit.entry SET user_id = 'nobody' WHERE id = {id}"), entry("changed")),
        1 => (
            "a value in the row",
            format!("UPDATE lead_audit.entry SET row_values = replace(row_values::text, '@example', '@evil')::json WHERE id = {id}"),
            entry("changed"),
        ),
        2 => ("an entry with its checksum", forge(id), entry("changed")),
        3 => ("an entry with its checksum and its leaf", forge(id) + &forge_leaf(id), "changed".to_owned()),
        4 => ("everything, signed anew", forge(id) + RESEAL, "history forked".to_owned()),
        5 => ("an entry away", format!("DELETE FROM lead_audit.entry WHERE id = {id}"), entry("missing")),
        6 => (
            "an entry away, and from its checkpoint",
            format!(
                "DELETE FROM lead_audit.entry WHERE id = {id};
                 UPDATE lead_audit.checkpoint SET entry_ids = entry_ids - int8multirange(int8range({id}, {id}, '[]')) WHERE entry_ids @> {id}::bigint"
            ),
            "missing".to_owned(),
        ),
        7 => ("an entry away, all signed anew", format!("DELETE FROM lead_audit.entry WHERE id = {id}; {RESEAL}"), "history".to_owned()),
        8 => ("an entry into a gap", forge(gap), format!("inserted: entry {gap}:")),
        9 => (
            "two entries change places",
            format!(
                "UPDATE lead_audit.entry SET id = -1 WHERE id = {id}; UPDATE lead_audit.entry SET id = {id} WHERE id = {other};
                 UPDATE lead_audit.entry SET id = {other} WHERE id = -1"
            ),
            entry("changed"),
        ),
        10 => (
            "a checkpoint's root",
            "UPDATE lead_audit.checkpoint SET root = sha256(root) WHERE tree_size = (SELECT min(tree_size) FROM lead_audit.checkpoint)".to_owned(),
            "checkpoint changed".to_owned(),
        ),
        11 => (
            "a checkpoint's note",
            "UPDATE lead_audit.checkpoint SET note = regexp_replace(note, E'\\n[0-9]+\\n', E'\\n1\\n')".to_owned(),
            "signature bad".to_owned(),
        ),
        12 => (
            "the signatures",
            "UPDATE lead_audit.checkpoint SET note = split_part(note, E'\\n\\n', 1) || E'\\n'".to_owned(),
            "signature bad".to_owned(),
        ),
        13 => (
            "the newest away",
            "DELETE FROM lead_audit.entry WHERE id IN (SELECT id FROM lead_audit.entry, lead_audit.checkpoint WHERE entry_ids @> id
               AND tree_size = (SELECT max(tree_size) FROM lead_audit.checkpoint));
             DELETE FROM lead_audit.checkpoint WHERE tree_size = (SELECT max(tree_size) FROM lead_audit.checkpoint)"
                .to_owned(),
            "history gone back".to_owned(),
        ),
        14 => ("everything away", format!("TRUNCATE lead_audit.entry; {RESEAL}"), "history gone back".to_owned()),
        _ => (
            "text from one column into another",
            format!(
                "UPDATE lead_audit.entry SET row_values = (row_values::text || ',\"statement\":\"x\"')::text::json WHERE id = {id} AND false;
                 UPDATE lead_audit.entry SET details = '{{}} ' WHERE id = {id}"
            ),
            entry("changed"),
        ),
    }
}

#[test]
fn each_attempt_is_found_and_nothing_else_is() {
    let cluster = Cluster::start();
    let tool = LeadAudit::new();
    let secret = cluster.directory().join("key");
    let key = tool
        .expect(0, &["keygen", "--name", "example.com/leads", "-o", text_of(&secret)])
        .trim()
        .to_owned();
    cluster.give_to_server(&secret);
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    drop(app_database(&cluster, "honest"));
    let mut postgres = cluster.admin("postgres");
    let sign = |postgres: &mut Session, database: &str| {
        call(
            postgres,
            &format!(
                "ALTER DATABASE {database} SET lead_audit.signing_key_file = '{}'",
                secret.display()
            ),
        );
    };
    sign(&mut postgres, "honest");
    let (last, gap) = {
        let (mut admin, mut app) = (cluster.admin("honest"), cluster.session("app", "honest"));
        for part in 0..4 {
            add_leads(&mut app, part * 150 + 1, part * 150 + 150);
            call(&mut app, "BEGIN; INSERT INTO leads (id) VALUES ('undone'); ROLLBACK");
            seal(&mut admin);
        }
        let gap: i64 = value(
            &mut admin,
            "SELECT min(g) FROM generate_series(1, 300::bigint) g WHERE NOT EXISTS (SELECT FROM lead_audit.entry e WHERE e.id = g)",
        );
        (value::<i64>(&mut admin, "SELECT max(id) FROM lead_audit.entry"), gap)
    };
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept");
    fs::write(
        &kept,
        value::<String>(&mut cluster.admin("honest"), "SELECT lead_audit.latest_checkpoint()"),
    )
    .unwrap();
    let verify = |database: &str, status: i32| {
        let url = cluster.connection_string("postgres", database);
        tool.expect(
            status,
            &["verify", "--database", &url, "--key", &key, "--checkpoint", text_of(&kept)],
        )
    };
    assert!(verify("honest", 0).contains("INTACT"));
    let mut random = Random::new(55);
    for number in 0..setting("LEAD_AUDIT_ACCEPTANCE_TAMPERINGS", 30) {
        call(&mut postgres, "DROP DATABASE IF EXISTS victim");
        call(&mut postgres, "CREATE DATABASE victim TEMPLATE honest");
        sign(&mut postgres, "victim");
        let mut pick = || loop {
            let id = 1 + random.below(last as u64) as i64;
            if id != gap && id % 151 != gap % 151 {
                break id;
            }
        };
        let (id, other) = (pick(), pick());
        let other = if other == id { if id == 1 { 2 } else { 1 } } else { other };
        let (name, statements, said) = attempt(number, id, other, gap);
        let mut admin = cluster.admin("victim");
        call(&mut admin, UNGUARDED);
        statements.split(THEN).for_each(|transaction| call(&mut admin, transaction));
        drop(admin);
        let answer = verify("victim", 1);
        assert!(
            answer.contains(&said),
            "attempt {number}: {name} (entry {id}): {said:?} is not in\n{answer}"
        );
        // If verification names single entries, it may name only the entries that the attempt has
        // changed.
        for line in answer.lines().filter(|line| {
            line.starts_with("changed: entry ") || line.starts_with("missing: entry ")
        }) {
            let named: i64 = line.split([' ', ':']).find_map(|word| word.parse().ok()).unwrap();
            assert!(
                named == id || named == other,
                "attempt {number}: {name} (entry {id}):\n{answer}"
            );
        }
    }
    assert!(verify("honest", 0).contains("INTACT"));
}
