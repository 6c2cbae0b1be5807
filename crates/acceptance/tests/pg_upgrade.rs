//! pg_upgrade must move the audit trail unchanged to the next major version of PostgreSQL. In the
//! upgraded cluster, writes must continue the trail.

use acceptance::populated_database::{self, Trail, assert_restored};
use acceptance::{Builder, Cluster, Session, assert_trail_gives_table, call, value};
use std::path::PathBuf;

/// Returns the members of the extension, without the row types of the extension's tables. CREATE
/// EXTENSION records these row types as members, but pg_upgrade does not.
fn members(admin: &mut Session) -> String {
    value(
        admin,
        "SELECT string_agg(pg_describe_object(classid, objid, objsubid), E'\\n' ORDER BY pg_describe_object(classid, objid, objsubid))
         FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND classid <> 'pg_type'::regclass
           AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'lead_audit')",
    )
}

fn upgrade(mode: &[&str], builder: fn() -> Builder) {
    let next = std::env::var_os("LEAD_AUDIT_NEXT_PG_CONFIG").map(PathBuf::from);
    let next = next.expect("LEAD_AUDIT_NEXT_PG_CONFIG is pg_config of the next major version with lead_audit: make test-upgrade");
    let old = builder().start();
    drop(populated_database::make(&old, "app_db"));
    let mut admin = old.admin("app_db");
    // A trigger of this table is disabled. The call of enable() enables the trigger, so that
    // pg_upgrade moves only tables whose audit triggers are enabled.
    call(&mut admin, "SELECT lead_audit.enable('\"switched off\"')");
    call(
        &mut admin,
        "CREATE ROLE auditor; GRANT USAGE ON SCHEMA lead_audit TO auditor; GRANT SELECT ON lead_audit.log TO auditor",
    );
    let (before, members_before) = (Trail::of(&mut admin), members(&mut admin));
    let id: i64 = value(&mut admin, "SELECT last_value FROM lead_audit.entry_id_seq");
    let identities =
        "SELECT string_agg(watch_id::text, ' ' ORDER BY watch_id) FROM lead_audit.watch";
    let watched: String = value(&mut admin, identities);
    drop(admin);
    old.stop("fast");

    let new = builder().installation(next).create();
    let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let program = path(&new.bin().join("pg_upgrade"));
    let (old_bin, new_bin) = (path(old.bin()), path(new.bin()));
    let (old_data, new_data, socket) =
        (path(&old.data()), path(&new.data()), path(new.socket_directory()));
    let clusters = [
        "-b", &old_bin, "-B", &new_bin, "-d", &old_data, "-D", &new_data, "-s", &socket, "-U",
        "postgres",
    ];
    new.run_server_program(&program, &[&clusters, mode].concat());

    new.start_again();
    let mut admin = new.admin("app_db");
    let (from, to): (i32, i32) =
        (15, value(&mut admin, "SELECT current_setting('server_version_num')::int / 10000"));
    assert!(to > from, "PostgreSQL {from} was to be upgraded, not copied to {to}");
    assert_eq!(members(&mut admin), members_before);
    assert_eq!(value::<i64>(&mut admin, "SELECT last_value FROM lead_audit.entry_id_seq"), id);
    assert_eq!(value::<String>(&mut admin, identities), watched);
    // The rights that were granted in the old cluster must exist in the upgraded cluster.
    call(&mut admin, "SET ROLE auditor; SELECT count(*) FROM lead_audit.log; RESET ROLE");
    drop(admin);
    // pg_upgrade keeps oids, so even the column `relation` of the entries must be unchanged.
    assert_restored(&new, "app_db", &before);
    assert_trail_gives_table(&mut new.admin("app_db"), "leads");

    // CREATE EXTENSION must work in a new database of the upgraded cluster.
    drop(populated_database::make(&new, "made_here"));
    populated_database::assert_watched_as_before(&new, "made_here");
    assert_trail_gives_table(&mut new.admin("made_here"), "leads");
}

#[test]
#[ignore = "needs another major version: make test-upgrade"]
fn by_copying() {
    upgrade(&["--copy"], Cluster::builder);
}

#[test]
#[ignore = "needs another major version: make test-upgrade"]
fn by_linking_where_the_library_is_preloaded() {
    upgrade(&["--link"], || Cluster::builder().preloaded().setting("lead_audit.seal_interval = 0"));
}
