//! Tests the commands that begin and end watching: CREATE EXTENSION, enable(), disable(), DROP
//! EXTENSION. enable() watches a table, and writes a baseline on request. It refuses relations that
//! cannot be watched, with an SQLSTATE for the reason. Rows and columns of a table are never
//! changed.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    #[pg_test]
    fn enable_records_from_now_on() {
        begin_with_leads();
        let watched = "SELECT relation, row_trigger_on, truncate_trigger_on, state, soft_delete_column, baseline_at
             FROM lead_audit.watched";
        assert_eq!(rows(watched), ["leads | true | true | on | is_deleted | NULL"]);
        assert_eq!(one("SELECT tables_watched FROM lead_audit.stats"), "1");
        run("INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(
            log("operation, table_schema, table_name, relation = 'leads'::regclass"),
            ["INSERT | public | leads | true"]
        );
        assert_eq!(
            one(
                "SELECT count(*) FROM lead_audit.entry e JOIN lead_audit.watched w USING (watch_id)
                 WHERE w.relation = 'leads'"
            ),
            "1"
        );
        assert_intact();
    }

    #[pg_test]
    fn enable_twice_changes_nothing() {
        begin_with_leads();
        let watch = "SELECT watch_id, table_schema, table_name, soft_delete_column, state, enabled_at FROM lead_audit.watch";
        let before = rows(watch);
        assert_eq!(
            one("SELECT lead_audit.enable('leads')"),
            one("SELECT watch_id FROM lead_audit.watch")
        );
        assert_eq!(
            one("SELECT lead_audit.enable('public.leads', NULL, false)"),
            one("SELECT watch_id FROM lead_audit.watch")
        );
        assert_eq!(rows(watch), before);
        assert_eq!(one("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'leads'::regclass"), "2");
        run("INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(log("operation"), ["INSERT"]);
    }

    #[pg_test]
    fn disable_ends_recording_and_is_an_entry() {
        begin_with_leads();
        let identity = one("SELECT watch_id FROM lead_audit.watch");
        run("INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(one("SELECT lead_audit.disable('leads')"), "true");
        assert_eq!(one("SELECT lead_audit.disable('leads')"), "false");
        assert_eq!(one("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'leads'::regclass"), "0");
        assert_eq!(rows("SELECT 1 FROM lead_audit.watched"), [""; 0]);
        run("UPDATE leads SET email = 'x'; DELETE FROM leads; TRUNCATE leads");
        assert_eq!(log("operation, table_name"), ["INSERT | leads", "DDL | leads"]);
        // When the table is watched again, it has the watch id and the history that it had before.
        assert_eq!(one("SELECT lead_audit.enable('leads')"), identity);
        run("INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('leads', 'a')"),
            ["INSERT", "INSERT"]
        );
        assert_eq!(rows("SELECT state, ended_at FROM lead_audit.watch"), ["on | NULL"]);
        assert_intact();
    }

    #[pg_test]
    fn disable_of_a_table_that_was_never_watched() {
        begin();
        run("CREATE TABLE plain (id int PRIMARY KEY)");
        assert_eq!(one("SELECT lead_audit.disable('plain')"), "false");
        assert_eq!(log("1"), [""; 0]);
        assert_fails(
            "SELECT lead_audit.disable(4200000000::oid::regclass)",
            "42P01",
            "does not exist",
        );
    }

    #[pg_test]
    fn soft_delete_column_is_kept_and_can_be_changed() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, gone boolean, is_deleted boolean);
             SELECT lead_audit.enable('t', 'gone');
             SELECT lead_audit.enable('t')");
        let column = "SELECT soft_delete_column FROM lead_audit.watched";
        assert_eq!(one(column), "gone", "a second call without the column keeps it");
        run(
            "INSERT INTO t VALUES (1, false, false); UPDATE t SET gone = true; SELECT lead_audit.enable('t', 'is_deleted')",
        );
        assert_eq!(one(column), "is_deleted");
        run("UPDATE t SET gone = false; UPDATE t SET is_deleted = true");
        assert_eq!(
            log("operation, soft_delete"),
            [
                "INSERT | NULL",
                "UPDATE | deleted",
                "DDL | NULL",
                "UPDATE | NULL",
                "UPDATE | deleted"
            ]
        );
    }

    #[pg_test]
    fn table_without_primary_key() {
        begin();
        run("CREATE TABLE loose (a int, b text UNIQUE); SELECT lead_audit.enable('loose');
             INSERT INTO loose VALUES (1, 'x'), (1, NULL); UPDATE loose SET a = 2 WHERE b = 'x';
             DELETE FROM loose WHERE b IS NULL");
        assert_eq!(
            log("operation, row_key, old_values, new_values, diff"),
            [
                r#"INSERT | NULL | NULL | {"a": 1, "b": "x"} | NULL"#,
                r#"INSERT | NULL | NULL | {"a": 1, "b": null} | NULL"#,
                r#"UPDATE | NULL | {"a": 1, "b": "x"} | {"a": 2, "b": "x"} | {"a": {"new": 2, "old": 1}}"#,
                r#"DELETE | NULL | {"a": 1, "b": null} | NULL | NULL"#
            ]
        );
        assert_eq!(
            one("SELECT count(key_hash) + count(previous_key_hash) FROM lead_audit.entry"),
            "0"
        );
        assert_fails("SELECT * FROM lead_audit.history('loose', '1')", "42P10", "not a key");
        assert_intact();
    }

    #[pg_test]
    fn baseline_is_one_snapshot_of_each_row_once() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, note text, at timestamptz);
             INSERT INTO t SELECT g, 'note ' || g, '2020-01-01 12:00+05'::timestamptz + g * interval '1 s'
             FROM generate_series(1, 2500) g;
             DELETE FROM t WHERE id % 10 = 0;
             UPDATE t SET note = 'changed' WHERE id % 7 = 0;
             SELECT lead_audit.enable('t', baseline => true)");
        assert_eq!(
            one(
                "SELECT count(*), count(DISTINCT row_key) FROM lead_audit.log WHERE operation = 'SNAPSHOT'"
            ),
            "2250 | 2250"
        );
        run("SET LOCAL TimeZone = 'UTC'");
        assert_eq!(
            one("SELECT count(*) FROM t JOIN lead_audit.log l ON l.row_key = jsonb_build_object('id', t.id)
                 AND l.new_values::text = to_jsonb(t)::text AND l.old_values IS NULL AND l.diff IS NULL"),
            "2250"
        );
        let said = messages(|| run("SELECT lead_audit.enable('t', baseline => true)"));
        assert!(
            said.iter().any(|m| m.starts_with("NOTICE: public.t already has a baseline")),
            "{said:?}"
        );
        assert_eq!(one("SELECT count(*) FROM lead_audit.log"), "2250");
        assert!(holds("SELECT baseline_at IS NOT NULL FROM lead_audit.watched"));
        // The rows can have changed while the table was not watched, so enable() writes a new
        // baseline.
        run(
            "SELECT lead_audit.disable('t'); DELETE FROM t WHERE id > 5; SELECT lead_audit.enable('t', baseline => true)",
        );
        assert_eq!(one("SELECT count(*) FROM lead_audit.log WHERE operation = 'SNAPSHOT'"), "2255");
        assert_intact();
    }

    #[pg_test]
    fn baseline_of_a_partitioned_table() {
        begin();
        run("CREATE TABLE p (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
             CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu');
             CREATE TABLE p_us PARTITION OF p FOR VALUES IN ('us');
             INSERT INTO p VALUES (1, 'eu'), (2, 'us');
             SELECT lead_audit.enable('p', baseline => true);
             INSERT INTO p VALUES (3, 'eu'); UPDATE p SET region = 'us' WHERE id = 3; TRUNCATE p");
        assert_eq!(
            rows(
                "SELECT operation, row_key FROM lead_audit.log WHERE operation <> 'TRUNCATE' ORDER BY id"
            ),
            [
                r#"SNAPSHOT | {"id": 1, "region": "eu"}"#,
                r#"SNAPSHOT | {"id": 2, "region": "us"}"#,
                r#"INSERT | {"id": 3, "region": "eu"}"#,
                r#"UPDATE | {"id": 3, "region": "us"}"#
            ]
        );
        assert_eq!(one("SELECT count(DISTINCT watch_id) FROM lead_audit.entry"), "1");
        assert_eq!(
            one(
                "SELECT sum((details->>'row_count')::int) FROM lead_audit.log WHERE operation = 'TRUNCATE'"
            ),
            "3"
        );
        assert_eq!(
            rows(
                r#"SELECT operation FROM lead_audit.history('p', '{"region": "eu", "id": 3}'::jsonb)"#
            ),
            ["INSERT", "UPDATE"]
        );
        assert_eq!(
            rows("SELECT relation, row_trigger_on, truncate_trigger_on FROM lead_audit.watched"),
            ["p | true | true"]
        );
        assert_intact();
    }

    #[pg_test]
    fn what_cannot_be_watched_is_refused() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, gone text, flag int); CREATE VIEW v AS SELECT * FROM t;
             CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE SEQUENCE s; CREATE TEMP TABLE temporary_one (id int);
             CREATE INDEX i ON t (gone); CREATE TYPE c AS (a int)");
        for (call, sqlstate, message) in [
            ("enable('v')", "42809", "not a table"),
            ("enable('m')", "42809", "not a table"),
            ("enable('s')", "42809", "not a table"),
            ("enable('i')", "42809", "not a table"),
            ("enable('c')", "42809", "not a table"),
            ("enable('temporary_one')", "42809", "temporary"),
            ("enable('pg_catalog.pg_class')", "42809", "pg_catalog"),
            ("enable('information_schema.sql_features')", "42809", "information_schema"),
            ("enable('lead_audit.entry')", "42809", "lead_audit"),
            ("enable('lead_audit.watch')", "42809", "lead_audit"),
            ("enable('t', 'nowhere')", "42703", "\"nowhere\""),
            ("enable('t', 'gone')", "42804", "text"),
            ("enable('t', 'flag')", "42804", "integer"),
            ("enable('t', 'ctid')", "42703", "\"ctid\""),
            ("enable('nothing')", "42P01", "nothing"),
            ("enable(4200000000::oid::regclass)", "42P01", "does not exist"),
            ("enable(NULL)", "42P01", "does not exist"),
        ] {
            assert_fails(&format!("SELECT lead_audit.{call}"), sqlstate, message);
        }
        assert_eq!(rows("SELECT 1 FROM lead_audit.watch"), [""; 0]);
        assert_eq!(rows("SELECT 1 FROM pg_trigger WHERE tgrelid = 't'::regclass"), [""; 0]);
    }

    #[pg_test]
    fn drop_extension_leaves_the_table() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'), ('b'); DROP EXTENSION lead_audit CASCADE");
        assert_eq!(rows("SELECT id FROM leads ORDER BY id"), ["a", "b"]);
        assert_eq!(one("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'leads'::regclass"), "0");
        run("UPDATE leads SET email = 'x'; DELETE FROM leads WHERE id = 'a'; INSERT INTO leads (id) VALUES ('c');
                 TRUNCATE leads;
             ALTER TABLE leads ADD COLUMN more int; DROP TABLE leads");
    }

    #[pg_test]
    fn create_extension_watches_leads_at_once() {
        begin();
        run("DROP EXTENSION lead_audit CASCADE;
             CREATE SCHEMA crm; CREATE TABLE crm.leads (id int PRIMARY KEY); CREATE TABLE public.leads (id int PRIMARY KEY);
             SET LOCAL search_path = crm, public");
        let said = messages(|| run("CREATE EXTENSION lead_audit"));
        assert!(!said.iter().any(|m| m.contains("leads")), "{said:?}");
        assert_eq!(
            rows("SELECT table_schema, table_name, state FROM lead_audit.watch"),
            ["crm | leads | on"]
        );
        run("INSERT INTO crm.leads VALUES (1); INSERT INTO public.leads VALUES (2)");
        assert_eq!(log("table_schema, row_key"), [r#"crm | {"id": 1}"#]);
        assert_eq!(one("SELECT current_setting('search_path')"), "crm, public");
        assert_intact();
    }

    #[pg_test]
    fn create_extension_without_leads_names_the_call() {
        begin();
        run("DROP EXTENSION lead_audit CASCADE; CREATE SCHEMA crm; CREATE TABLE crm.leads (id int PRIMARY KEY);
             SET LOCAL search_path = public");
        let said = messages(|| run("CREATE EXTENSION lead_audit"));
        let notices: Vec<_> = said.iter().filter(|m| m.contains("leads")).collect();
        assert!(
            notices.len() == 1 && notices[0].starts_with("NOTICE: there is no table \"leads\""),
            "{said:?}"
        );
        assert_eq!(one("SELECT count(*) FROM lead_audit.watch"), "0");
        run("INSERT INTO crm.leads VALUES (1)");
        assert_eq!(log("1"), [""; 0]);
    }

    #[pg_test]
    fn create_extension_takes_no_view_or_temporary_leads() {
        begin();
        run("DROP EXTENSION lead_audit CASCADE; CREATE VIEW public.leads AS SELECT 1 AS id");
        assert!(
            messages(|| run("CREATE EXTENSION lead_audit"))
                .iter()
                .any(|m| m.contains("no table \"leads\""))
        );
        run(
            "DROP EXTENSION lead_audit CASCADE; DROP VIEW public.leads; CREATE TEMP TABLE leads (id int PRIMARY KEY)",
        );
        assert!(
            messages(|| run("CREATE EXTENSION lead_audit"))
                .iter()
                .any(|m| m.contains("no table \"leads\""))
        );
        assert_eq!(one("SELECT count(*) FROM lead_audit.watch"), "0");
    }

    #[pg_test]
    fn into_a_schema_of_somebody_else_is_refused() {
        begin();
        run("DROP EXTENSION lead_audit CASCADE; DROP SCHEMA IF EXISTS lead_audit CASCADE; CREATE ROLE clerk;
             CREATE SCHEMA lead_audit AUTHORIZATION clerk");
        assert_fails("CREATE EXTENSION lead_audit", "42501", "does not belong to a superuser");
    }

    /// An existing schema lead_audit_internal is refused, because its owner could replace functions
    /// that run with the rights of a superuser.
    #[pg_test]
    fn beside_an_internal_schema_of_somebody_else_is_refused() {
        begin();
        run("DROP EXTENSION lead_audit CASCADE; CREATE ROLE clerk");
        for owner in ["clerk", "CURRENT_USER"] {
            run(&format!("CREATE SCHEMA lead_audit_internal AUTHORIZATION {owner}"));
            assert_fails(
                "CREATE EXTENSION lead_audit",
                "42P06",
                "schema \"lead_audit_internal\" already exists",
            );
            run("DROP SCHEMA lead_audit_internal");
        }
        run("CREATE EXTENSION lead_audit; DROP EXTENSION lead_audit");
        assert!(
            holds("SELECT to_regnamespace('lead_audit_internal') IS NULL"),
            "the extension's schema goes with it"
        );
    }

    #[pg_test]
    fn public_has_no_rights_on_anything() {
        begin();
        run("CREATE ROLE anybody; GRANT USAGE ON SCHEMA lead_audit TO anybody");
        let granted = rows(
            "SELECT oid::regclass::text FROM pg_class
             WHERE relnamespace IN ('lead_audit'::regnamespace, 'lead_audit_internal'::regnamespace) AND relkind IN ('r', 'v', 'm', 'p')
               AND has_table_privilege('anybody', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
             UNION ALL
             SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'lead_audit'::regnamespace
               AND CASE relkind WHEN 'S' THEN has_sequence_privilege('anybody', oid, 'SELECT, USAGE, UPDATE') END
             UNION ALL
             SELECT oid::regprocedure::text FROM pg_proc
             WHERE pronamespace IN ('lead_audit'::regnamespace, 'lead_audit_internal'::regnamespace)
               AND has_function_privilege('anybody', oid, 'EXECUTE') ORDER BY 1",
        );
        // PostgreSQL requires the right to execute capture() from the owner of a partitioned table.
        // Triggers that other roles create with capture() are refused (privileges.rs). The views
        // lead_audit.log and lead_audit.stats call the other functions as the role that reads the
        // views.
        assert_eq!(
            granted,
            [
                "lead_audit.capture()",
                "lead_audit_internal.as_jsonb(json)",
                "lead_audit_internal.diff_of(json,json)",
                "lead_audit_internal.new_values_of(json,json)",
                "lead_audit_internal.own_queue()",
                "lead_audit_internal.quarantined()"
            ]
        );
        assert_fails_as(
            "anybody",
            "SELECT * FROM lead_audit_internal.own_queue()",
            "42501",
            "permission denied for schema",
        );
        run("REVOKE USAGE ON SCHEMA lead_audit FROM anybody");
        for schema in ["lead_audit", "lead_audit_internal"] {
            assert!(
                !holds(&format!(
                    "SELECT has_schema_privilege('anybody', '{schema}', 'USAGE, CREATE')"
                )),
                "{schema}"
            );
        }
    }

    /// The list of `\df lead_audit.*` contains only functions that users need or that dumps name.
    #[pg_test]
    fn users_see_only_their_functions() {
        begin();
        assert_eq!(
            rows(
                "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'lead_audit'::regnamespace
                 AND proname NOT IN ('capture', 'capture_truncate') ORDER BY 1"
            ),
            [
                "canonical_json",
                "check_watched",
                "consistency_proof",
                "disable",
                "enable",
                "history",
                "inclusion_proof",
                "key_hash",
                "latest_checkpoint",
                "origin",
                "queue",
                "seal",
                "status",
                "summary",
                "verifier_key",
                "verify",
                "verify_entry"
            ]
        );
    }

    /// Each function that is not in C, or is SECURITY DEFINER, sets its search_path, so it finds no
    /// object through the search_path of its caller.
    #[pg_test]
    fn every_function_has_its_search_path() {
        begin();
        let without = rows(
            "SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
             WHERE p.pronamespace IN ('lead_audit'::regnamespace, 'lead_audit_internal'::regnamespace)
               AND (l.lanname <> 'c' OR p.prosecdef)
               AND p.proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp']",
        );
        assert_eq!(without, [""; 0]);
    }

    #[pg_test]
    fn every_object_has_a_comment() {
        begin();
        let without = rows(
            "WITH schema(oid) AS (VALUES ('lead_audit'::regnamespace::oid), ('lead_audit_internal'::regnamespace)),
             -- The index of a constraint says nothing that the constraint does not.
             class AS (SELECT c.oid, c.relkind FROM pg_class c JOIN schema s ON s.oid = c.relnamespace
                       WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid)),
             object(classid, objid, objsubid) AS (
               SELECT 'pg_namespace'::regclass, oid, 0 FROM schema
               UNION ALL SELECT 'pg_class'::regclass, oid, 0 FROM class
               UNION ALL SELECT 'pg_class'::regclass, a.attrelid, a.attnum FROM class c
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v')
               UNION ALL SELECT 'pg_proc'::regclass, p.oid, 0 FROM pg_proc p JOIN schema s ON s.oid = p.pronamespace
               UNION ALL SELECT 'pg_trigger'::regclass, t.oid, 0 FROM pg_trigger t JOIN class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
               UNION ALL SELECT 'pg_event_trigger'::regclass, oid, 0 FROM pg_event_trigger WHERE evtname LIKE 'lead_audit%'
               UNION ALL SELECT 'pg_extension'::regclass, oid, 0 FROM pg_extension WHERE extname = 'lead_audit')
             SELECT pg_describe_object(o.classid, o.objid, o.objsubid) FROM object o
             WHERE NOT EXISTS (SELECT FROM pg_description d
                               WHERE (d.classoid, d.objoid, d.objsubid) = (o.classid, o.objid, o.objsubid)) ORDER BY 1",
        );
        assert_eq!(without, [""; 0]);
    }
}
