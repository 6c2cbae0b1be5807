//! Tests the exact entries of every kind of SQL statement that writes. Other files in pgrx-tests
//! test rollback, order, keys and partitions. crates/acceptance/tests/multi_session_writes.rs tests
//! statements that need several sessions.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    const EVENTS: &str = "operation, table_name, row_key->'id', old_values, new_values";

    fn begin_with(tables: &str) {
        begin();
        run(tables);
    }

    #[pg_test]
    fn copy_in_every_format() {
        begin_with(
            "CREATE TABLE t (id int PRIMARY KEY, note text, at date); SELECT lead_audit.enable('t');
             CREATE TABLE source AS SELECT * FROM (VALUES (1, 'a,\"b\"', date '2024-02-29'), (2, NULL, '-infinity'), (3, E'line\\nbreak \\\\N', 'infinity')) v(id, note, at)",
        );
        for format in ["text", "csv", "binary"] {
            run(&format!(
                "DO $$ DECLARE file text := current_setting('data_directory') || '/lead_audit_copy'; BEGIN
                   EXECUTE format('COPY source TO %L (FORMAT {format})', file); EXECUTE format('COPY t FROM %L (FORMAT {format})', file); END $$"
            ));
            assert_eq!(
                log(EVENTS),
                [
                    r#"INSERT | t | 1 | NULL | {"at": "2024-02-29", "id": 1, "note": "a,\"b\""}"#,
                    r#"INSERT | t | 2 | NULL | {"at": "-infinity", "id": 2, "note": null}"#,
                    r#"INSERT | t | 3 | NULL | {"at": "infinity", "id": 3, "note": "line\nbreak \\N"}"#
                ],
                "{format}"
            );
            run("SELECT lead_audit.disable('t'); TRUNCATE t; SELECT lead_audit.enable('t');
                 ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only; DELETE FROM lead_audit.entry");
        }
    }

    #[pg_test]
    fn update_from_and_delete_using() {
        begin_with(
            "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE other (id int, n int); SELECT lead_audit.enable('t');
             INSERT INTO t VALUES (1, 1), (2, 2), (3, 3); INSERT INTO other VALUES (1, 10), (3, 30), (3, 30), (4, 40);
             UPDATE t SET n = o.n FROM other o WHERE o.id = t.id; DELETE FROM t USING other o WHERE o.id = t.id;
             WITH old AS (DELETE FROM t RETURNING *) INSERT INTO t SELECT id + 1, n FROM old RETURNING *",
        );
        let mut events = log(EVENTS);
        assert_eq!(events.len(), 3 + 2 + 2 + 2);
        events.drain(..3);
        assert_eq!(
            events[..4],
            [
                r#"UPDATE | t | 1 | {"n": 1, "id": 1} | {"n": 10, "id": 1}"#,
                r#"UPDATE | t | 3 | {"n": 3, "id": 3} | {"n": 30, "id": 3}"#,
                r#"DELETE | t | 1 | {"n": 10, "id": 1} | NULL"#,
                r#"DELETE | t | 3 | {"n": 30, "id": 3} | NULL"#
            ]
        );
        events.drain(..4);
        events.sort();
        assert_eq!(
            events,
            [
                r#"DELETE | t | 2 | {"n": 2, "id": 2} | NULL"#,
                r#"INSERT | t | 3 | NULL | {"n": 2, "id": 3}"#
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn on_conflict() {
        begin_with(
            "CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t'); INSERT INTO t VALUES (1, 1);
             INSERT INTO t VALUES (1, 5) ON CONFLICT DO NOTHING; INSERT INTO t VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET n = 6 WHERE t.n > 1;
             INSERT INTO t VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET n = t.n; INSERT INTO t VALUES (1, 5), (2, 7) ON CONFLICT (id) DO UPDATE SET n = excluded.n",
        );
        assert_eq!(
            log(EVENTS),
            [
                r#"INSERT | t | 1 | NULL | {"n": 1, "id": 1}"#,
                r#"UPDATE | t | 1 | {"n": 1, "id": 1} | {"n": 5, "id": 1}"#,
                r#"INSERT | t | 2 | NULL | {"n": 7, "id": 2}"#
            ]
        );
    }

    #[pg_test]
    fn foreign_key_actions_of_every_kind() {
        begin_with(
            "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (0), (1), (2);
             CREATE TABLE cascades (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE);
             CREATE TABLE nulls (id int PRIMARY KEY, a int REFERENCES a ON DELETE SET NULL ON UPDATE SET NULL);
             CREATE TABLE defaults (id int PRIMARY KEY, a int DEFAULT 0 REFERENCES a ON DELETE SET DEFAULT ON UPDATE SET DEFAULT);
             CREATE TABLE below (id int PRIMARY KEY, c int REFERENCES cascades ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO cascades VALUES (10, 1), (11, 2); INSERT INTO nulls VALUES (20, 1), (21, 2); INSERT INTO defaults VALUES (30, 1), (31, 2);
             INSERT INTO below VALUES (40, 10), (41, 11); SET CONSTRAINTS ALL IMMEDIATE;
             SELECT lead_audit.enable(t) FROM (VALUES ('a'::regclass), ('cascades'), ('nulls'), ('defaults'), ('below')) v(t);
             DELETE FROM a WHERE id = 1",
        );
        let mut deleted = log(EVENTS);
        assert_eq!(deleted.remove(0), r#"DELETE | a | 1 | {"id": 1} | NULL"#);
        deleted.sort();
        assert_eq!(
            deleted,
            [
                r#"DELETE | below | 40 | {"c": 10, "id": 40} | NULL"#,
                r#"DELETE | cascades | 10 | {"a": 1, "id": 10} | NULL"#,
                r#"UPDATE | defaults | 30 | {"a": 1, "id": 30} | {"a": 0, "id": 30}"#,
                r#"UPDATE | nulls | 20 | {"a": 1, "id": 20} | {"a": null, "id": 20}"#
            ]
        );
        run("UPDATE a SET id = 3 WHERE id = 2");
        let mut updated = log(EVENTS).split_off(5);
        assert_eq!(updated.remove(0), r#"UPDATE | a | 3 | {"id": 2} | {"id": 3}"#);
        updated.sort();
        assert_eq!(
            updated,
            [
                r#"UPDATE | cascades | 11 | {"a": 2, "id": 11} | {"a": 3, "id": 11}"#,
                r#"UPDATE | defaults | 31 | {"a": 2, "id": 31} | {"a": 0, "id": 31}"#,
                r#"UPDATE | nulls | 21 | {"a": 2, "id": 21} | {"a": null, "id": 21}"#
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn views_rules_and_instead_of() {
        begin_with(
            "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE shadow (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t'), lead_audit.enable('shadow');
             CREATE VIEW small AS SELECT * FROM t WHERE n < 10 WITH CHECK OPTION; CREATE VIEW smaller AS SELECT * FROM small WHERE n < 5;
             CREATE VIEW sums AS SELECT id, n * 2 AS twice FROM t;
             CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF TG_OP = 'DELETE' THEN DELETE FROM t WHERE id = OLD.id; RETURN OLD; END IF;
               UPDATE t SET n = NEW.twice / 2 WHERE id = NEW.id; IF NOT FOUND THEN INSERT INTO t VALUES (NEW.id, NEW.twice / 2); END IF; RETURN NEW; END $$;
             CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON sums FOR EACH ROW EXECUTE FUNCTION instead();
             CREATE RULE also AS ON INSERT TO t DO ALSO INSERT INTO shadow VALUES (NEW.id, NEW.n);
             CREATE RULE never AS ON DELETE TO t WHERE OLD.id = 1 DO INSTEAD NOTHING;
             CREATE RULE other AS ON UPDATE TO shadow DO INSTEAD UPDATE t SET n = NEW.n WHERE id = OLD.id;
             INSERT INTO smaller VALUES (1, 1); UPDATE smaller SET n = 2; INSERT INTO sums VALUES (2, 8); UPDATE sums SET twice = 10 WHERE id = 2;
             UPDATE shadow SET n = 3 WHERE id = 1; DELETE FROM sums WHERE id = 2; DELETE FROM t",
        );
        assert!(failure("INSERT INTO small VALUES (3, 11)").starts_with("44000"));
        assert_eq!(
            log(EVENTS),
            [
                r#"INSERT | t | 1 | NULL | {"n": 1, "id": 1}"#,
                r#"INSERT | shadow | 1 | NULL | {"n": 1, "id": 1}"#,
                r#"UPDATE | t | 1 | {"n": 1, "id": 1} | {"n": 2, "id": 1}"#,
                r#"INSERT | t | 2 | NULL | {"n": 4, "id": 2}"#,
                r#"INSERT | shadow | 2 | NULL | {"n": 4, "id": 2}"#,
                r#"UPDATE | t | 2 | {"n": 4, "id": 2} | {"n": 5, "id": 2}"#,
                r#"UPDATE | t | 1 | {"n": 2, "id": 1} | {"n": 3, "id": 1}"#,
                r#"DELETE | t | 2 | {"n": 5, "id": 2} | NULL"#
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn truncate_cascade_and_restart_identity() {
        begin_with(
            "CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
             CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b); SELECT lead_audit.enable(t) FROM (VALUES ('a'::regclass), ('b'), ('c')) v(t);
             INSERT INTO a DEFAULT VALUES; INSERT INTO a DEFAULT VALUES; INSERT INTO b VALUES (1, 1), (2, 1), (3, 2); INSERT INTO c VALUES (1, 1)",
        );
        assert_fails("TRUNCATE a", "0A000", "cannot truncate");
        run("TRUNCATE a RESTART IDENTITY CASCADE; INSERT INTO a DEFAULT VALUES");
        assert_eq!(
            rows(
                "SELECT operation, table_name, row_key, details FROM lead_audit.log ORDER BY id OFFSET 6"
            ),
            [
                r#"TRUNCATE | a | NULL | {"row_count":2}"#,
                r#"TRUNCATE | b | NULL | {"row_count":3}"#,
                r#"TRUNCATE | c | NULL | {"row_count":1}"#,
                r#"INSERT | a | {"id": 1} | NULL"#
            ]
        );
    }

    /// With session_replication_role = replica, writes have no entries by default, because the
    /// server on which they were first made has recorded them. If the table was enabled with
    /// `replica => true`, these writes have entries too.
    #[pg_test]
    fn session_replication_role() {
        begin_with(
            "CREATE TABLE plain (id int PRIMARY KEY); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE child (id int PRIMARY KEY);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE parent (id int PRIMARY KEY); ALTER TABLE child INHERIT parent;
             SELECT lead_audit.enable('plain'), lead_audit.enable('p', replica => true), lead_audit.enable('parent', replica => true);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)",
        );
        assert_eq!(
            rows(
                "SELECT relation, row_trigger_on, truncate_trigger_on, replica FROM lead_audit.watched ORDER BY 1"
            ),
            [
                "p | true | true | true",
                "parent | true | true | true",
                "plain | true | true | false"
            ]
        );
        let write =
            "INSERT INTO plain VALUES (1); TRUNCATE plain; INSERT INTO p VALUES (1), (11); UPDATE p SET id = 2 WHERE id = 11;
                     INSERT INTO child VALUES (1); DELETE FROM parent; TRUNCATE p1; TRUNCATE p";
        for role in ["origin", "local", "replica"] {
            run(&format!(
                "SET LOCAL session_replication_role = {role}; {write}; SET LOCAL session_replication_role = origin"
            ));
            let mut events = log("operation, table_name");
            let of_plain = ["INSERT | plain", "TRUNCATE | plain"];
            if role != "replica" {
                assert_eq!(events[..2], of_plain, "{role}");
                events.drain(..2);
            }
            assert_eq!(
                events,
                [
                    "INSERT | p1",
                    "INSERT | p2",
                    "UPDATE | p1",
                    "INSERT | child",
                    "DELETE | child",
                    "TRUNCATE | p1",
                    "TRUNCATE | p"
                ],
                "{role}"
            );
            run(
                "ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only; DELETE FROM lead_audit.entry",
            );
        }
        // Each call of enable() that changes the option `replica` has an entry. ENABLE TRIGGER turns
        // the audit triggers into ordinary triggers, which do not fire with
        // session_replication_role = replica. A table with `replica => true` then has the state
        // `disabled`, because its writes in the replica role have no entries.
        run("SELECT lead_audit.enable('p', replica => false); SELECT lead_audit.enable('plain', replica => true, baseline => true);
             SELECT lead_audit.enable('plain', replica => true); SET LOCAL session_replication_role = replica; INSERT INTO p VALUES (1);
             INSERT INTO plain VALUES (1); SET LOCAL session_replication_role = origin; ALTER TABLE plain ENABLE TRIGGER ALL");
        assert_eq!(
            log("operation, table_name"),
            ["DDL | p", "DDL | plain", "INSERT | plain", "DDL | plain"]
        );
        assert_eq!(
            rows("SELECT state FROM lead_audit.watched WHERE relation = 'plain'"),
            ["disabled"]
        );
        run("CREATE ROLE clerk; ALTER TABLE parent OWNER TO clerk");
        assert_fails_as(
            "clerk",
            "ALTER TABLE parent ENABLE TRIGGER USER",
            "42501",
            "permission denied to disable",
        );
        assert_intact();
    }
}
