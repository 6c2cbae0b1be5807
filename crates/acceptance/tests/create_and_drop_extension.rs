//! Runs CREATE EXTENSION and DROP EXTENSION in many situations. The commands run before and after
//! the creation of schemas and tables, and CREATE EXTENSION also runs again after DROP EXTENSION.
//! The commands also run in a transaction that is rolled back, and while other sessions stay open.

use acceptance::{
    Cluster, Session, add_leads, app_database, assert_intact, assert_trail_gives_table, call,
    sqlstate, value,
};
use std::time::{Duration, Instant};

const ENTRIES: &str = "SELECT count(*) FROM lead_audit.entry";

fn write(app: &mut Session, from: u32) {
    add_leads(app, from, from + 9);
    call(app, "UPDATE leads SET source = 'x'; DELETE FROM leads");
    assert_eq!(app.warnings(), [""; 0]);
}

#[test]
fn dropped_and_created_while_sessions_write() {
    for cluster in [Cluster::start(), Cluster::builder().preloaded().start()] {
        let mut admin = app_database(&cluster, "again");
        let mut app = cluster.session("app", "again");
        write(&mut app, 1);
        let first: i64 = value(&mut admin, ENTRIES);
        assert_eq!(first, 30);

        // The audit triggers depend on the extension. DROP EXTENSION without CASCADE therefore
        // fails, and cannot end the auditing by accident.
        assert_eq!(sqlstate(&mut admin, "DROP EXTENSION lead_audit"), "2BP01");
        call(&mut admin, "BEGIN; DROP EXTENSION lead_audit CASCADE; ROLLBACK");
        write(&mut app, 21);
        assert_eq!(value::<i64>(&mut admin, ENTRIES), 2 * first);
        assert_trail_gives_table(&mut admin, "leads");

        for round in 0..2 {
            call(&mut admin, "DROP EXTENSION lead_audit CASCADE");
            // DROP EXTENSION removes the extension's objects from the schema lead_audit.
            // PostgreSQL keeps the schema itself, because the control file names this schema. DROP
            // EXTENSION drops the schema lead_audit_internal, which the extension's script has
            // created.
            assert!(value::<bool>(
                &mut admin,
                "SELECT to_regnamespace('lead_audit_internal') IS NULL"
            ));
            let left = "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid) + (SELECT count(*) FROM pg_proc WHERE pronamespace = n.oid)
                FROM pg_namespace n WHERE nspname = 'lead_audit'";
            assert_eq!(value::<i64>(&mut admin, left), 0);
            assert_eq!(
                value::<i64>(&mut admin, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"),
                0
            );
            assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM pg_event_trigger"), 0);
            write(&mut app, 100 * round + 41);
            // A CREATE EXTENSION that is rolled back leaves nothing behind, not even in the session
            // that executed it.
            call(
                &mut admin,
                "BEGIN; CREATE EXTENSION lead_audit; INSERT INTO leads (id) VALUES ('gone'); ROLLBACK",
            );
            write(&mut app, 100 * round + 61);
            call(&mut admin, "CREATE EXTENSION lead_audit");
            assert_eq!(value::<i64>(&mut admin, ENTRIES), 0);
            write(&mut app, 100 * round + 81);
            assert_eq!(
                value::<i64>(&mut admin, ENTRIES),
                first,
                "round {round}: the new log, by a session that knew the old one"
            );
            assert_eq!(value::<i64>(&mut admin, "SELECT min(id) FROM lead_audit.entry"), 1);
            assert_trail_gives_table(&mut admin, "leads");
            assert_intact(&mut admin);
            assert!(value::<i64>(&mut admin, "SELECT lead_audit.seal()") >= first);
            assert_intact(&mut admin);
        }
    }
}

#[test]
fn the_worker_follows_a_new_log() {
    let cluster = Cluster::builder().preloaded().start();
    let mut admin = app_database(&cluster, "again");
    let mut app = cluster.session("app", "again");
    for round in 0..2 {
        write(&mut app, 100 * round + 1);
        let begin = Instant::now();
        // Waits until the worker has sealed all entries.
        while value::<i64>(
            &mut admin,
            "SELECT coalesce(max(tree_size), 0) FROM lead_audit.checkpoint",
        ) < value(&mut admin, ENTRIES)
        {
            assert!(begin.elapsed() < Duration::from_secs(60), "round {round}: nobody seals");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_intact(&mut admin);
        call(&mut admin, "DROP EXTENSION lead_audit CASCADE; CREATE EXTENSION lead_audit");
    }
    let log = cluster.log_text();
    assert!(!log.contains("was terminated by signal") && !log.contains("PANIC"), "{log}");
}

#[test]
fn schemas_and_tables_in_any_order() {
    let cluster = Cluster::start();
    let database = |name: &str| {
        call(&mut cluster.admin("postgres"), &format!("CREATE DATABASE {name}"));
        cluster.admin(name)
    };
    // The schema of the extension is fixed. A user cannot choose or change the schema of the
    // extension.
    let mut admin = database("elsewhere");
    call(&mut admin, "CREATE SCHEMA other");
    for statement in
        ["CREATE EXTENSION lead_audit SCHEMA other", "CREATE EXTENSION lead_audit SCHEMA public"]
    {
        assert_eq!(sqlstate(&mut admin, statement), "0A000", "{statement}");
    }
    call(&mut admin, "CREATE EXTENSION lead_audit");
    for statement in ["ALTER EXTENSION lead_audit SET SCHEMA other", "CREATE EXTENSION lead_audit"]
    {
        assert!(
            ["0A000", "42710"].contains(&sqlstate(&mut admin, statement).as_str()),
            "{statement}"
        );
    }

    // If a superuser has already created the schema lead_audit, CREATE EXTENSION uses this schema
    // and keeps the objects in the schema.
    let mut admin = database("schema_first");
    call(
        &mut admin,
        "CREATE SCHEMA lead_audit; CREATE TABLE lead_audit.mine (id int); CREATE EXTENSION lead_audit",
    );
    call(
        &mut admin,
        "CREATE TABLE leads (id int PRIMARY KEY, note text); SELECT lead_audit.enable('leads'); INSERT INTO leads VALUES (1)",
    );
    assert_trail_gives_table(&mut admin, "leads");
    call(&mut admin, "DROP EXTENSION lead_audit CASCADE; INSERT INTO lead_audit.mine VALUES (1)");
    call(
        &mut admin,
        "SET search_path = lead_audit; CREATE EXTENSION lead_audit; INSERT INTO public.leads VALUES (2)",
    );
    assert_eq!(
        value::<i64>(&mut admin, ENTRIES),
        0,
        "leads is not on this search_path: nothing is watched"
    );

    // If the schema lead_audit contains an object whose name the extension needs, CREATE EXTENSION
    // fails and leaves nothing behind. CREATE EXTENSION also fails if a schema lead_audit_internal
    // exists, no matter which role created this schema.
    for taken in [
        "CREATE SCHEMA lead_audit_internal",
        "DROP SCHEMA lead_audit; CREATE SCHEMA lead_audit_internal AUTHORIZATION pg_database_owner",
        "CREATE TABLE lead_audit.entry (id int)",
        "CREATE VIEW lead_audit.log AS SELECT 1 AS id",
        "CREATE FUNCTION lead_audit.verify(from_id bigint DEFAULT NULL, to_id bigint DEFAULT NULL, from_time timestamptz DEFAULT NULL,
           to_time timestamptz DEFAULT NULL) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ] {
        let mut admin = cluster.admin("postgres");
        call(&mut admin, &format!("DROP SCHEMA IF EXISTS lead_audit, lead_audit_internal CASCADE; CREATE SCHEMA lead_audit; {taken}"));
        let code = sqlstate(&mut admin, "CREATE EXTENSION lead_audit");
        assert!(["42P06", "42P07", "42723"].contains(&code.as_str()), "{taken}: {code}");
        assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'lead_audit')"), 0);
    }

    // Runs CREATE EXTENSION under several values of search_path, some of which contain lead_audit.
    for (number, path) in [
        "lead_audit, crm, public",
        "crm, lead_audit",
        "public, crm",
        "\"$user\", pg_temp, crm, pg_catalog",
    ]
    .into_iter()
    .enumerate()
    {
        let mut admin = database(&format!("path_{number}"));
        call(
            &mut admin,
            "CREATE SCHEMA crm; CREATE TABLE crm.leads (id int PRIMARY KEY); CREATE TABLE crm.entry (id int); CREATE TABLE crm.watch (id int)",
        );
        call(&mut admin, &format!("SET search_path = {path}; CREATE EXTENSION lead_audit"));
        call(
            &mut admin,
            "INSERT INTO crm.leads VALUES (1); INSERT INTO crm.leads VALUES (2); RESET search_path",
        );
        assert_eq!(value::<i64>(&mut admin, ENTRIES), 2, "{path}");
        assert_eq!(
            value::<i64>(
                &mut admin,
                "SELECT (SELECT count(*) FROM crm.entry) + (SELECT count(*) FROM crm.watch)"
            ),
            0,
            "{path}"
        );
        assert_trail_gives_table(&mut admin, "crm.leads");
        assert_intact(&mut admin);
    }
}
