//! TRUNCATE of a watched table also truncates the foreign tables among its partitions and child
//! tables.

use acceptance::{Cluster, Session, assert_intact, call, value};

/// Returns the entries of TRUNCATE and of DDL, in the order of the ids.
fn entries(admin: &mut Session) -> String {
    value(
        admin,
        "SELECT coalesce(string_agg(concat_ws(' ', operation, table_name, details->>'row_count', details->>'executed'), ', ' ORDER BY id), '')
         FROM lead_audit.log WHERE operation IN ('TRUNCATE', 'DDL')",
    )
}

#[test]
fn truncate_of_foreign_members() {
    let cluster = Cluster::start();
    call(&mut cluster.admin("postgres"), "CREATE DATABASE far");
    let mut far = cluster.admin("far");
    call(
        &mut far,
        "CREATE TABLE fp (id int); CREATE TABLE fc (id int); CREATE TABLE other (id int)",
    );
    let mut admin = cluster.admin("postgres");
    call(
        &mut admin,
        &format!(
            "CREATE EXTENSION lead_audit; CREATE EXTENSION postgres_fdw;
             CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname 'far');
             CREATE USER MAPPING FOR CURRENT_USER SERVER far;
             CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE FOREIGN TABLE fp PARTITION OF p FOR VALUES FROM (10) TO (20) SERVER far;
             CREATE TABLE c (id int); CREATE FOREIGN TABLE fc () INHERITS (c) SERVER far;
             SELECT lead_audit.enable('p'), lead_audit.enable('c');
             INSERT INTO p VALUES (1), (11), (12); INSERT INTO fc VALUES (1)",
            cluster.socket_directory().display()
        ),
    );
    assert_eq!(value::<i64>(&mut far, "SELECT count(*) FROM fp"), 2);
    let has_triggers =
        value::<i32>(&mut admin, "SELECT current_setting('server_version_num')::integer")
            >= 160_000;

    call(&mut admin, "TRUNCATE fp, fc");
    assert_eq!(value::<i64>(&mut far, "SELECT count(*) FROM fp"), 0);
    let mut expected = if has_triggers { "TRUNCATE fp, TRUNCATE fc, " } else { "" }.to_owned();
    call(&mut admin, "INSERT INTO p VALUES (11); TRUNCATE p; TRUNCATE c");
    // The rows of a foreign table are not counted in the entry of a TRUNCATE.
    expected += "TRUNCATE p 1, TRUNCATE c 0";
    expected += if has_triggers { ", TRUNCATE fc" } else { "" };
    assert_eq!(entries(&mut admin), expected);
    assert_eq!(value::<i64>(&mut far, "SELECT count(*) FROM fp"), 0);

    for command in [
        "ALTER FOREIGN TABLE fp OPTIONS (ADD table_name 'other')",
        "ALTER SERVER far OPTIONS (SET dbname 'postgres')",
    ] {
        call(&mut admin, command);
    }
    expected += ", DDL fp, DDL fp, DDL fc";
    assert_eq!(entries(&mut admin), expected);

    // No entry may contain the password of a user mapping, not even if one query contains the user
    // mapping and another command.
    for text in [
        "ALTER TABLE c ADD note text; ALTER USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (ADD password 'pass1')",
        "DO $$BEGIN ALTER TABLE c DROP note;
         ALTER USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (SET password 'pass2'); END$$",
    ] {
        call(&mut admin, text);
    }
    let with_password = "SELECT count(*) FROM lead_audit.entry e WHERE e::text ~ 'pass[12]'";
    assert_eq!(value::<i64>(&mut admin, with_password), 0);
    let shown = "SELECT count(*) FROM lead_audit.log WHERE table_name = 'c' AND operation = 'DDL'
         AND details->>'executed' IN ('ALTER TABLE c ADD note text', 'ALTER TABLE c DROP note')";
    assert_eq!(value::<i64>(&mut admin, shown), 2);
    assert_eq!(admin.warnings(), [""; 0]);
    assert_intact(&mut admin);
}
