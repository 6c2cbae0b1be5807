//! Tests enable() and disable(), which begin and end the watching of a table. enable() writes a
//! baseline on request. enable() refuses a relation that cannot be watched, with an SQLSTATE for
//! the reason. Neither function changes the rows or columns of a table.

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
        // A table that is watched again after disable() has the same watch id and history as
        // before.
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
        // While the table was not watched, its rows could change without entries. So enable()
        // writes a new baseline.
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
}
