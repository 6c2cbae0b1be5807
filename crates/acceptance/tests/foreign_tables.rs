//! Foreign tables can be partitions and child tables of watched tables. TRUNCATE of a watched table
//! also truncates these foreign tables. The entry of a failed statement on a foreign table omits
//! the rejected row if the executor may already have freed this row.

use acceptance::{Cluster, Session, assert_intact, call, try_call, value, wait_until};
use std::time::Duration;

/// Returns the entries of TRUNCATE and of DDL, in the order of the ids.
fn entries(admin: &mut Session) -> String {
    value(
        admin,
        "SELECT coalesce(string_agg(concat_ws(' ', operation, table_name, details->>'row_count', details->>'executed'), ', ' ORDER BY id), '')
         FROM lead_audit.log WHERE operation IN ('TRUNCATE', 'DDL')",
    )
}

/// Creates the database `far`. In the database `postgres`, creates the extension and a foreign
/// server that connects to the database `far`. Returns a session in `postgres` and a session in
/// `far`.
fn near_and_far(cluster: &Cluster) -> (Session, Session) {
    let mut near = cluster.admin("postgres");
    call(&mut near, "CREATE DATABASE far");
    call(
        &mut near,
        &format!(
            "CREATE EXTENSION lead_audit; CREATE EXTENSION postgres_fdw;
             CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname 'far');
             CREATE USER MAPPING FOR CURRENT_USER SERVER far",
            cluster.socket_directory().display()
        ),
    );
    (near, cluster.admin("far"))
}

#[test]
fn truncate_of_foreign_members() {
    let cluster = Cluster::start();
    let (mut admin, mut far) = near_and_far(&cluster);
    call(
        &mut far,
        "CREATE TABLE fp (id int); CREATE TABLE fc (id int); CREATE TABLE other (id int)",
    );
    call(
        &mut admin,
        "CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE FOREIGN TABLE fp PARTITION OF p FOR VALUES FROM (10) TO (20) SERVER far;
         CREATE TABLE c (id int); CREATE FOREIGN TABLE fc () INHERITS (c) SERVER far;
         SELECT lead_audit.enable('p'), lead_audit.enable('c');
         INSERT INTO p VALUES (1), (11), (12); INSERT INTO fc VALUES (1)",
    );
    assert_eq!(value::<i64>(&mut far, "SELECT count(*) FROM fp"), 2);
    let has_triggers =
        value::<i32>(&mut admin, "SELECT current_setting('server_version_num')::integer")
            >= 160_000;

    call(&mut admin, "TRUNCATE fp, fc");
    assert_eq!(value::<i64>(&mut far, "SELECT count(*) FROM fp"), 0);
    let mut expected = if has_triggers { "TRUNCATE fp, TRUNCATE fc, " } else { "" }.to_owned();
    call(&mut admin, "INSERT INTO p VALUES (11); TRUNCATE p; TRUNCATE c");
    // The row count in the entry of a TRUNCATE does not include the rows of foreign tables.
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

/// The tuple slot of a foreign table can point to a row that the executor has already freed. The
/// entry of a failed statement must not contain a freed row. The slot of an INSERT owns its row, so
/// the entry of an INSERT that the foreign server refuses contains the row.
#[test]
fn failures_in_foreign_tables() {
    let cluster = Cluster::builder().preloaded().start();
    let (mut admin, mut far) = near_and_far(&cluster);
    call(
        &mut far,
        "CREATE TABLE f (id int, n int CHECK (n < 100), t text); INSERT INTO f SELECT g, g, 'x' FROM generate_series(1, 3) g",
    );
    call(
        &mut admin,
        "CREATE TABLE p (id int, n int, t text); CREATE FOREIGN TABLE f () INHERITS (p) SERVER far;
         SELECT lead_audit.enable('p');
         CREATE FUNCTION even_fails(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
           IF n % 2 = 0 THEN RAISE 'even' USING ERRCODE = 'with_check_option_violation'; END IF;
           RETURN n;
         END $$;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$",
    );
    let worker = "SELECT state = 'on' FROM lead_audit.status() WHERE part = 'background worker'";
    wait_until(&mut admin, Duration::from_secs(30), worker);
    let started: String = value(&mut admin, "SELECT pg_postmaster_start_time()::text");
    let refused = "INSERT INTO f VALUES (5, 500, 'x')";
    let (before_triggers, in_trigger) = (
        [
            refused,
            "UPDATE f SET n = even_fails(id), t = repeat('y', 60000)",
            "DELETE FROM f WHERE even_fails(id) > 0",
        ],
        ["UPDATE f SET n = n + 1", "DELETE FROM f", "INSERT INTO f VALUES (4, 4, 'x')"],
    );
    // Each statement runs in a new session, whose server process has a stack and memory of its own.
    for statement in before_triggers {
        assert!(try_call(&mut cluster.examined("postgres"), statement).is_err(), "{statement}");
    }
    call(
        &mut admin,
        "CREATE TRIGGER refuse AFTER INSERT OR UPDATE OR DELETE ON f FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    for statement in in_trigger {
        assert!(try_call(&mut cluster.examined("postgres"), statement).is_err(), "{statement}");
    }
    let expected = before_triggers.len() + in_trigger.len();
    let are_there =
        format!("SELECT count(*) = {expected} FROM lead_audit.log WHERE outcome = 'failed'");
    wait_until(&mut admin, Duration::from_secs(30), &are_there);
    let with_row =
        "SELECT coalesce(string_agg(statement, '; ' ORDER BY id), '') FROM lead_audit.log
         WHERE outcome = 'failed' AND coalesce(new_values, old_values) IS NOT NULL";
    assert_eq!(value::<String>(&mut admin, with_row), refused);
    assert_eq!(value::<String>(&mut admin, "SELECT pg_postmaster_start_time()::text"), started);
    assert_intact(&mut admin);
}
