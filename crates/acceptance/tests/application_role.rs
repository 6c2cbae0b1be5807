//! Tests the role of an application, which owns the watched table and has no other rights. The
//! writes of the application's role are audited, and the role cannot prevent the auditing. No role
//! can change an entry while the triggers that protect the log are enabled.

use acceptance::{
    Cluster, app_database, assert_intact, assert_trail_gives_table, call, sqlstate, value,
};

const REFUSED: &str = "42501";
const ENTRIES: &str = "SELECT count(*) FROM lead_audit.entry";

#[test]
fn the_application_cannot_touch_the_trail() {
    for preloaded in [false, true] {
        let builder = Cluster::builder();
        let cluster = if preloaded { builder.preloaded() } else { builder }.start();
        let mut admin = app_database(&cluster, "rights");
        call(
            &mut admin,
            "CREATE ROLE colleague LOGIN; GRANT ALL ON leads TO colleague; GRANT CREATE ON SCHEMA public TO app",
        );
        let mut app = cluster.session("app", "rights");
        call(
            &mut app,
            "INSERT INTO leads (id) VALUES ('a'), ('b'); UPDATE leads SET source = 'x' WHERE id = 'a'",
        );
        assert_eq!(value::<i64>(&mut admin, ENTRIES), 3);
        let all = "SELECT md5(string_agg(e::text, ',' ORDER BY id)) FROM lead_audit.entry e";
        let before: String = value(&mut admin, all);

        for sql in [
            // These statements try to read the log.
            "SELECT * FROM lead_audit.log",
            "SELECT count(*) FROM lead_audit.entry",
            "SELECT * FROM lead_audit.watched",
            "SELECT * FROM lead_audit.watch",
            "SELECT * FROM lead_audit.stats",
            "SELECT * FROM lead_audit.history('leads', 'a'::text)",
            "SELECT * FROM lead_audit.summary('leads', 'a'::text)",
            "SELECT * FROM lead_audit.verify()",
            "SELECT lead_audit.verify_entry(1)",
            "COPY lead_audit.entry TO STDOUT",
            "SELECT last_value FROM lead_audit.entry_id_seq",
            // These statements try to change the log.
            "INSERT INTO lead_audit.entry SELECT * FROM lead_audit.entry",
            "UPDATE lead_audit.entry SET user_id = NULL",
            "DELETE FROM lead_audit.entry",
            "TRUNCATE lead_audit.entry",
            "MERGE INTO lead_audit.entry e USING leads l ON e.row_key->>'id' = l.id WHEN MATCHED THEN DELETE",
            "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE",
            "UPDATE lead_audit.watch SET state = 'off'",
            "SELECT setval('lead_audit.entry_id_seq', 1)",
            "SELECT nextval('lead_audit.entry_id_seq')",
            "ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only",
            "ALTER TABLE lead_audit.entry ADD CHECK (false)",
            "DROP TABLE lead_audit.entry",
            "CREATE TABLE lead_audit.mine ()",
            "CREATE INDEX ON lead_audit.entry (user_id)",
            "COMMENT ON TABLE lead_audit.entry IS 'mine'",
            "DROP EXTENSION lead_audit",
            "DROP EXTENSION lead_audit CASCADE",
            "DROP SCHEMA lead_audit CASCADE",
            "DROP EVENT TRIGGER lead_audit_ddl",
            "ALTER EVENT TRIGGER lead_audit_ddl DISABLE",
            // These statements try to begin or to end the watching of a table.
            "SELECT lead_audit.disable('leads')",
            "SELECT lead_audit.enable('leads')",
            "SET lead_audit.enabled = off",
            "SET LOCAL lead_audit.enabled = off",
            "SELECT set_config('lead_audit.enabled', 'off', false)",
            "SET lead_audit.log_soft_deletes = off",
            "SET lead_audit.log_unchanged = on",
            "SET lead_audit.on_error = 'abort'",
            "SET lead_audit.batch_memory = 0",
            "ALTER ROLE app SET lead_audit.enabled = off",
            "ALTER DATABASE rights SET lead_audit.enabled = off",
            "ALTER SYSTEM SET lead_audit.enabled = off",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET lead_audit.enabled = off AS 'SELECT 1'",
            "SET session_replication_role = replica",
            "ALTER TABLE leads DISABLE TRIGGER \"00_lead_audit_row\"",
            "ALTER TABLE leads DISABLE TRIGGER \"00_lead_audit_truncate\"",
            "ALTER TABLE leads DISABLE TRIGGER USER",
            "ALTER TABLE leads DISABLE TRIGGER ALL",
            "ALTER TABLE leads ENABLE REPLICA TRIGGER \"00_lead_audit_row\"",
            "ALTER TRIGGER \"00_lead_audit_row\" ON leads RENAME TO zz_mine",
            "DROP TRIGGER \"00_lead_audit_row\" ON leads",
            "DROP TRIGGER \"00_lead_audit_truncate\" ON leads",
            "CREATE OR REPLACE TRIGGER \"00_lead_audit_row\" AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            // These statements try to forge entries.
            "SELECT lead_audit_internal.write_ddl(NULL, NULL, NULL, NULL, 'forged')",
            "SELECT lead_audit_internal.write_baseline('leads', gen_random_uuid(), '')",
            "CREATE TRIGGER forged AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION lead_audit.capture('00000000-0000-0000-0000-000000000000', '')",
            "SELECT lead_audit.key_hash(gen_random_uuid(), '{}')",
            "SELECT lead_audit.canonical_json('{}')",
            "SET ROLE postgres",
            "SET SESSION AUTHORIZATION postgres",
        ] {
            let state = sqlstate(&mut app, sql);
            assert_eq!(state, REFUSED, "{sql} (preloaded: {preloaded})");
            call(&mut app, "ROLLBACK");
        }
        assert_eq!(value::<String>(&mut admin, all), before, "not an entry more, not one less");
        let nothing_by_app: i64 = value(
            &mut admin,
            "SELECT count(*) FROM lead_audit.watched WHERE relation = 'leads' AND row_trigger_on AND truncate_trigger_on AND state = 'on'",
        );
        assert_eq!(nothing_by_app, 1);

        // The owner of a watched table can run DDL on the table. The DDL must have entries, and
        // must not end the auditing of the table.
        for (sql, more) in [
            ("INSERT INTO leads (id) VALUES ('c')", 1),
            (
                "ALTER TABLE leads ADD COLUMN extra int DEFAULT 7; UPDATE leads SET extra = 8 WHERE id = 'c'",
                2,
            ),
            (
                "ALTER TABLE leads RENAME TO prospects; UPDATE prospects SET extra = 9 WHERE id = 'c'; ALTER TABLE prospects RENAME TO leads",
                3,
            ),
            (
                "ALTER TABLE leads ALTER COLUMN extra TYPE text; UPDATE leads SET extra = 'ten' WHERE id = 'c'",
                2,
            ),
            (
                "BEGIN; SET LOCAL row_security = off; UPDATE leads SET extra = 'twelve' WHERE id = 'c'; COMMIT",
                1,
            ),
            (
                "SET search_path = ''; UPDATE public.leads SET extra = 'thirteen' WHERE id = 'c'; RESET search_path",
                1,
            ),
            (
                "CREATE FUNCTION sneaky() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ DELETE FROM leads WHERE id = 'c' $$; SELECT sneaky()",
                1,
            ),
            ("TRUNCATE leads; INSERT INTO leads (id) VALUES ('a')", 2),
        ] {
            let before: i64 = value(&mut admin, ENTRIES);
            call(&mut app, sql);
            assert_eq!(
                value::<i64>(&mut admin, ENTRIES) - before,
                more,
                "{sql} (preloaded: {preloaded})"
            );
        }
        assert_intact(&mut admin);

        // The owner of a watched table can drop the table. An entry records the DROP TABLE.
        let before: i64 = value(&mut admin, ENTRIES);
        call(&mut app, "DROP TABLE leads");
        assert_eq!(value::<i64>(&mut admin, ENTRIES) - before, 1);
        let last: String = value(
            &mut admin,
            "SELECT concat_ws('|', operation, table_name, db_current_user, statement) FROM lead_audit.log ORDER BY id DESC LIMIT 1",
        );
        assert_eq!(last, "DDL|leads|app|DROP TABLE leads");
        assert_intact(&mut admin);
    }
}

#[test]
fn the_database_records_the_caller() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "who");
    call(
        &mut admin,
        "CREATE ROLE colleague LOGIN NOINHERIT; CREATE ROLE team; GRANT team TO colleague; GRANT ALL ON leads TO team;
         CREATE FUNCTION on_behalf(what text) RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ INSERT INTO leads (id) VALUES (what) $$;
         ALTER FUNCTION on_behalf(text) OWNER TO app",
    );
    let mut colleague = cluster.session("colleague", "who");
    assert_eq!(sqlstate(&mut colleague, "INSERT INTO leads (id) VALUES ('not allowed')"), REFUSED);
    call(
        &mut colleague,
        "SET lead_audit.user_id = 'postgres'; SELECT on_behalf('through a function')",
    );
    call(
        &mut colleague,
        "SET ROLE team; SET application_name = 'the team''s'; INSERT INTO leads (id) VALUES ('as team'); RESET ROLE",
    );
    call(
        &mut admin,
        "SET SESSION AUTHORIZATION app; INSERT INTO leads (id) VALUES ('authorized'); RESET SESSION AUTHORIZATION",
    );
    let pid = colleague.pid();
    let rows = admin
        .query(
            "SELECT concat_ws('|', row_key->>'id', db_session_user, db_current_user, application_name, coalesce(client_addr, '-'), user_id),
                    backend_pid FROM lead_audit.log ORDER BY id",
            &[],
        )
        .expect("the log can be read");
    let said: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        said,
        [
            "through a function|colleague|app|acceptance|-|postgres",
            "as team|colleague|team|the team's|-|postgres",
            "authorized|app|app|acceptance|-",
        ]
    );
    assert_eq!(rows.iter().take(2).map(|row| row.get(1)).collect::<Vec<i32>>(), [pid, pid]);
    assert_intact(&mut admin);
}

#[test]
fn no_ordinary_path_changes_an_entry() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "append_only");
    call(
        &mut admin,
        "CREATE ROLE keeper LOGIN; GRANT USAGE ON SCHEMA lead_audit TO keeper; GRANT ALL ON lead_audit.entry TO keeper;
         INSERT INTO leads (id) VALUES ('a'), ('b')",
    );
    let all = "SELECT md5(string_agg(e::text, ',' ORDER BY id)) FROM lead_audit.entry e";
    let before: String = value(&mut admin, all);
    let sql = [
        "UPDATE lead_audit.entry SET user_id = 'x'",
        "UPDATE lead_audit.entry SET user_id = 'x' WHERE false",
        "DELETE FROM lead_audit.entry",
        "TRUNCATE lead_audit.entry",
        "TRUNCATE lead_audit.entry CASCADE",
        "INSERT INTO lead_audit.entry SELECT * FROM lead_audit.entry ON CONFLICT (id) DO UPDATE SET user_id = 'x'",
        "MERGE INTO lead_audit.entry e USING (VALUES (1)) v(id) ON e.id = v.id WHEN MATCHED THEN UPDATE SET user_id = 'x'",
        "MERGE INTO lead_audit.entry e USING (VALUES (1)) v(id) ON e.id = v.id WHEN MATCHED THEN DELETE",
        "WITH w AS (DELETE FROM lead_audit.entry RETURNING 1) SELECT * FROM w",
        "DO $$ BEGIN DELETE FROM lead_audit.entry; EXCEPTION WHEN division_by_zero THEN NULL; END $$",
        "UPDATE lead_audit.log SET user_id = 'x'",
        "DELETE FROM lead_audit.log",
    ];
    // In the round "granted", the role `keeper` has every right on lead_audit.entry that can be
    // granted. In the round "owner", the role `keeper` owns lead_audit.entry. In both rounds, the
    // statements also run in the superuser's session `admin`.
    let mut keeper = cluster.session("keeper", "append_only");
    for round in ["granted", "owner"] {
        if round == "owner" {
            call(&mut admin, "ALTER TABLE lead_audit.entry OWNER TO keeper");
        }
        for sql in sql {
            for session in [&mut admin, &mut keeper] {
                let state = sqlstate(session, sql);
                // For an UPDATE of the view lead_audit.log, PostgreSQL itself raises 55000, because
                // the column that the UPDATE sets is an expression in the view.
                assert!(
                    state == REFUSED || (sql.contains("lead_audit.log") && state == "55000"),
                    "{state}: {sql} ({round})"
                );
            }
        }
    }
    // The triggers that protect the log also fire if session_replication_role is replica, in
    // contrast to ordinary triggers.
    for sql in &sql[..8] {
        let state = sqlstate(
            &mut admin,
            &format!("BEGIN; SET LOCAL session_replication_role = replica; {sql}"),
        );
        assert_eq!(state, REFUSED, "{sql}");
        call(&mut admin, "ROLLBACK");
    }
    assert_eq!(value::<String>(&mut admin, all), before);
    assert_intact(&mut admin);
    // The role `keeper` now owns the log. The application's writes must still have entries.
    let mut app = cluster.session("app", "append_only");
    call(&mut app, "UPDATE leads SET source = 'x'");
    assert_eq!(app.warnings(), [""; 0]);
    assert_eq!(value::<i64>(&mut admin, ENTRIES), 4);
    assert_trail_gives_table(&mut admin, "leads");
}

/// Under REPEATABLE READ, a transaction does not see that another session has renamed a table or
/// begun to watch a table. The DDL guard must nevertheless know the new name of the table, and that
/// the table is watched.
#[test]
fn an_old_snapshot_does_not_bypass_the_guard() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "snapshot");
    let mut app = cluster.session("app", "snapshot");
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1";

    call(&mut app, begin);
    call(&mut admin, "ALTER TABLE leads RENAME TO prospects");
    assert_eq!(sqlstate(&mut app, r#"DROP TRIGGER "00_lead_audit_row" ON prospects"#), REFUSED);
    call(&mut app, "ROLLBACK");

    call(&mut admin, "CREATE TABLE fresh (id int PRIMARY KEY); ALTER TABLE fresh OWNER TO app");
    call(&mut app, begin);
    call(&mut admin, "SELECT lead_audit.enable('fresh')");
    assert_eq!(sqlstate(&mut app, "ALTER TABLE fresh DISABLE TRIGGER ALL"), REFUSED);
    call(&mut app, "ROLLBACK; INSERT INTO fresh VALUES (1)");
    assert_eq!(value::<i64>(&mut admin, ENTRIES), 2, "the table renamed, the row");
}

/// Long comments make the text of each DDL command longer than the text that an entry can contain.
/// The entry of a DDL command must name the command and the table, even if it contains only a part
/// of the text.
#[test]
fn a_command_behind_a_long_comment_is_recorded() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "hidden");
    // The owner needs CREATE on the schema to rename the table.
    call(&mut admin, "GRANT CREATE ON SCHEMA public TO app");
    let mut app = cluster.session("app", "hidden");
    let comment = "x".repeat(20_000);
    call(
        &mut app,
        &format!("/* {comment} */ ALTER TABLE leads RENAME TO prospects /* {comment} */"),
    );
    call(&mut app, &format!("DO $$ BEGIN /* {comment} */ DROP TABLE prospects; END $$"));
    let said: String = value(
        &mut admin,
        "SELECT string_agg(concat_ws(' ', operation, table_name, length(statement), details->>'command', details->'statement_length'), ', ' ORDER BY id)
         FROM lead_audit.log",
    );
    assert_eq!(said, "DDL leads 10000 ALTER TABLE 40051, DDL prospects 10000 DROP TABLE 20047");
    assert_intact(&mut admin);
}
