//! Runs honest operations on a database. Verifiers must not mistake honest operations for
//! tampering.

use crate::{ORIGIN, Stage};
use acceptance::{call, seal, text_of};

#[test]
fn what_is_done_honestly_is_not_found() {
    let stage = Stage::new();
    let cluster = &stage.cluster;
    stage.findings("honest").assert_nothing("as it was");
    seal(&mut cluster.admin("honest"));
    stage.findings("honest").assert_nothing("sealed");
    let mut admin = cluster.admin("honest");
    for statement in [
        "VACUUM FULL",
        "REINDEX DATABASE honest",
        "CLUSTER lead_audit.entry USING entry_pkey",
        "ANALYZE",
        "CHECKPOINT",
    ] {
        call(&mut admin, statement);
    }
    drop(admin);
    stage.findings("honest").assert_nothing("maintenance");
    for how in ["fast", "immediate"] {
        cluster.stop(how);
        cluster.start_again();
    }
    stage.findings("honest").assert_nothing("restart and crash");
    // The watched table gets new columns while writers continue.
    let mut admin = cluster.admin("honest");
    call(
        &mut admin,
        "ALTER TABLE leads ADD COLUMN score int DEFAULT 5, DROP COLUMN contact_name; ALTER TABLE leads RENAME COLUMN domain TO site;
         UPDATE leads SET score = 6 WHERE id = 'there'; INSERT INTO leads (id, score) VALUES ('scored', 7)",
    );
    seal(&mut admin);
    drop(admin);
    stage.findings("honest").assert_nothing("columns added and dropped");
    // The log gets a new signing key of the same name. Both the auditor and the witness have the
    // old and the new verifier key.
    let file = &stage.facts.other_keys[0];
    let both = [&stage.key, &stage.same_name];
    call(
        &mut cluster.admin("postgres"),
        &format!("ALTER DATABASE honest SET lead_audit.signing_key_file = '{}'", file.display()),
    );
    let mut admin = cluster.admin("honest");
    call(&mut admin, "INSERT INTO leads (id) VALUES ('with the new key')");
    seal(&mut admin);
    drop(admin);
    stage.findings_with("honest", &both.map(String::as_str)).assert_nothing("another key");
    assert!(stage.same_name.starts_with(ORIGIN));
    // A dump and a restore move the whole log to another database.
    let dump = cluster.directory().join("dump");
    cluster.run("pg_dump", &["-Fc", "-d", "honest", "-f", text_of(&dump)]);
    call(&mut cluster.admin("postgres"), "CREATE DATABASE moved");
    cluster.run("pg_restore", &["-d", "moved", "--exit-on-error", text_of(&dump)]);
    call(
        &mut cluster.admin("postgres"),
        &format!("ALTER DATABASE moved SET lead_audit.signing_key_file = '{}'", file.display()),
    );
    stage.findings_with("moved", &both.map(String::as_str)).assert_nothing("restored");
    let mut admin = cluster.admin("moved");
    call(&mut admin, "INSERT INTO leads (id) VALUES ('after the move')");
    seal(&mut admin);
    drop(admin);
    stage.findings_with("moved", &both.map(String::as_str)).assert_nothing("grown after the move");
}
