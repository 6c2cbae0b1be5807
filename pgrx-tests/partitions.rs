//! Tests that a table is watched with all its partitions and child tables. Partitions that are
//! added later are watched too, no matter which command adds them. A detached table stays watched
//! under its own watch id. The writes of an attached table are recorded as writes of the watched
//! table, even if the attached table was watched before. Each command that attaches or detaches a
//! table has an entry. history() finds the entries of a row before and after all these commands.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    const WATCHED: &str = "SELECT relation, row_trigger_on, truncate_trigger_on, state FROM lead_audit.watched ORDER BY 1";

    fn begin_with_partitions() {
        begin();
        run("CREATE TABLE p (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
             CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (10) TO (15); CREATE TABLE p22 PARTITION OF p2 DEFAULT");
    }

    fn truncates() -> Vec<String> {
        rows(
            "SELECT table_name, details->'row_count' FROM lead_audit.log WHERE operation = 'TRUNCATE' ORDER BY id",
        )
    }

    #[pg_test]
    fn truncate_counts_each_row_once() {
        begin_with_partitions();
        run("SELECT lead_audit.enable('p')");
        for (statement, expected) in [
            ("TRUNCATE p", &["p | 5"][..]),
            ("TRUNCATE p1, p", &["p1 | 2", "p | 3"]),
            ("TRUNCATE p21, p2, p", &["p21 | 2", "p2 | 1", "p | 2"]),
            ("TRUNCATE p, p1, p22", &["p | 5"]),
            ("TRUNCATE p2, p1", &["p2 | 3", "p1 | 2"]),
            ("TRUNCATE p22 RESTART IDENTITY CASCADE", &["p22 | 1"]),
        ] {
            run("DELETE FROM p; INSERT INTO p VALUES (1), (2), (11), (12), (17);
                 ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only; DELETE FROM lead_audit.entry");
            run(statement);
            assert_eq!(truncates(), expected, "{statement}");
        }
        assert_intact();
    }

    /// A trigger of a TRUNCATE runs a second TRUNCATE, which ends before the first TRUNCATE. The
    /// entry of each TRUNCATE has the row count of this TRUNCATE.
    #[pg_test]
    fn truncate_within_a_truncate() {
        begin_with_partitions();
        run("CREATE TABLE other (id int PRIMARY KEY); SELECT lead_audit.enable('p'), lead_audit.enable('other');
             CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN TRUNCATE p; RETURN NULL; END $$;
             CREATE TRIGGER also BEFORE TRUNCATE ON other FOR EACH STATEMENT EXECUTE FUNCTION also();
             INSERT INTO p VALUES (1), (11); INSERT INTO other VALUES (1); TRUNCATE other; TRUNCATE other");
        assert_eq!(truncates(), ["p | 2", "other | 1", "p | 0", "other | 0"]);
        run(
            "INSERT INTO p VALUES (1); DO $$ BEGIN TRUNCATE p; RAISE 'undo'; EXCEPTION WHEN raise_exception THEN NULL; END $$; TRUNCATE p",
        );
        assert_eq!(truncates().split_off(4), ["p | 1"]);
    }

    #[pg_test]
    fn enabled_and_disabled_with_their_root() {
        begin_with_partitions();
        run("SELECT lead_audit.enable('p')");
        let identity = one("SELECT watch_id FROM lead_audit.watch");
        let said = messages(|| assert_eq!(one("SELECT lead_audit.enable('p21')"), identity));
        assert_eq!(said, ["NOTICE: public.p21 is watched already, as a part of public.p | "]);
        for options in ["baseline => true", "soft_delete_column => 'note'", "replica => true"] {
            assert_fails(
                &format!("SELECT lead_audit.enable('p1', {options})"),
                "42809",
                "public.p1 is watched as a part of public.p",
            );
        }
        assert_fails(
            "SELECT lead_audit.disable('p22')",
            "42809",
            "public.p22 is watched as a part of public.p",
        );
        run("INSERT INTO p1 VALUES (1); INSERT INTO p VALUES (17)");
        assert_eq!(log("operation, table_name"), ["INSERT | p1", "INSERT | p22"]);
        run("SELECT lead_audit.disable('p')");
        assert_eq!(one("SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%lead_audit%'"), "0");
        assert_eq!(one("SELECT count(*) FROM lead_audit.watch"), "1");
    }

    #[pg_test]
    fn watched_before_their_root_keep_their_history() {
        begin_with_partitions();
        run("SELECT lead_audit.enable('p21'), lead_audit.enable('p1'); INSERT INTO p VALUES (1, 'a'), (11, 'b'), (17, 'unseen');
             SELECT lead_audit.enable('p')");
        assert_eq!(rows(WATCHED), ["p | true | true | on"]);
        run("UPDATE p SET note = 'c'");
        assert_eq!(
            log("operation, table_name"),
            [
                "INSERT | p1",
                "INSERT | p21",
                "DDL | p1",
                "DDL | p21",
                "UPDATE | p1",
                "UPDATE | p21",
                "UPDATE | p22"
            ]
        );
        for (table, key) in [("p", 1), ("p", 11), ("p1", 1), ("p21", 11)] {
            assert_eq!(
                rows(&format!("SELECT operation FROM lead_audit.history('{table}', '{key}')")),
                ["INSERT", "UPDATE"],
                "{table} {key}"
            );
        }
        assert_eq!(rows("SELECT operation FROM lead_audit.history('p', '17')"), ["UPDATE"]);
        assert_eq!(one("SELECT total, verified FROM lead_audit.summary('p', '11')"), "2 | true");
        assert_intact();
    }

    #[pg_test]
    fn attached_created_and_detached() {
        begin_with_partitions();
        run("SELECT lead_audit.enable('p'); CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30); INSERT INTO p VALUES (20), (1);
             CREATE TABLE p4 (note text, id int NOT NULL PRIMARY KEY); INSERT INTO p4 VALUES ('unseen', 30);
             ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (30) TO (40); INSERT INTO p4 VALUES ('seen', 31);
             UPDATE p SET note = 'both' WHERE id >= 30; ALTER TABLE p DETACH PARTITION p1; INSERT INTO p1 VALUES (2, 'still watched');
             UPDATE p1 SET note = 'x' WHERE id = 1; TRUNCATE p1");
        assert_eq!(
            log(
                "operation, table_name, row_key->'id', details->'row_count', statement IS NOT NULL"
            ),
            [
                "INSERT | p3 | 20 | NULL | false",
                "INSERT | p1 | 1 | NULL | false",
                "DDL | p4 | NULL | NULL | true",
                "INSERT | p4 | 31 | NULL | false",
                "UPDATE | p4 | 30 | NULL | false",
                "UPDATE | p4 | 31 | NULL | false",
                "DDL | p1 | NULL | NULL | true",
                "INSERT | p1 | 2 | NULL | false",
                "UPDATE | p1 | 1 | NULL | false",
                "TRUNCATE | p1 | NULL | 2 | false"
            ]
        );
        assert_eq!(rows(WATCHED), ["p | true | true | on", "p1 | true | true | on"]);
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('p1', '1')"),
            ["INSERT", "UPDATE"]
        );
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('p', '1')"),
            ["INSERT"],
            "what became of it is another table's"
        );
        // After the partition is attached again, history() also returns the changes that were made
        // while the partition was detached.
        run(
            "INSERT INTO p1 VALUES (3); ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10); UPDATE p SET note = 'back' WHERE id = 3",
        );
        assert_eq!(
            rows("SELECT operation, diff->'note'->>'new' FROM lead_audit.history('p', '3')"),
            ["INSERT | NULL", "UPDATE | back"]
        );
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('p', '1')"),
            ["INSERT", "UPDATE"]
        );
        assert_eq!(rows(WATCHED), ["p | true | true | on"]);
        assert_eq!(
            rows("SELECT state FROM lead_audit.watch ORDER BY enabled_at"),
            ["on", "merged"]
        );
        assert_intact();
    }

    #[pg_test]
    fn detached_subtree_stays_watched() {
        begin_with_partitions();
        run("SELECT lead_audit.enable('p'); ALTER TABLE p DETACH PARTITION p2; INSERT INTO p2 VALUES (11), (17); TRUNCATE p21, p2;
             CREATE TABLE p23 PARTITION OF p2 FOR VALUES FROM (50) TO (60); INSERT INTO p23 VALUES (50); DROP TABLE p23");
        assert_eq!(
            log("operation, table_name, details->'row_count'"),
            [
                "DDL | p2 | NULL",
                "INSERT | p21 | NULL",
                "INSERT | p22 | NULL",
                "TRUNCATE | p21 | 1",
                "TRUNCATE | p2 | 1",
                "INSERT | p23 | NULL",
                "DDL | p23 | NULL"
            ]
        );
        assert_eq!(rows(WATCHED), ["p | true | true | on", "p2 | true | true | on"]);
        assert_eq!(one("SELECT lead_audit.disable('p2')"), "true");
        assert_eq!(rows(WATCHED), ["p | true | true | on"]);
    }

    /// If the watched table has a baseline, each row of an attached table has a SNAPSHOT entry.
    #[pg_test]
    fn attached_with_rows_to_a_table_with_a_baseline() {
        begin_with_partitions();
        run("SELECT lead_audit.enable('p', baseline => true); CREATE TABLE p3 (id int PRIMARY KEY, note text); INSERT INTO p3 VALUES (20, 'x'), (21, 'y');
             ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30); UPDATE p SET note = 'z' WHERE id = 20");
        assert_eq!(
            log("operation, table_name, row_key->'id', new_values->>'note'"),
            [
                "DDL | p3 | NULL | NULL",
                "SNAPSHOT | p3 | 20 | x",
                "SNAPSHOT | p3 | 21 | y",
                "UPDATE | p3 | 20 | z"
            ]
        );
    }

    #[pg_test]
    fn attach_of_a_watched_table() {
        begin_with_partitions();
        run("CREATE TABLE p3 (id int PRIMARY KEY, note text); SELECT lead_audit.enable('p'), lead_audit.enable('p3'); INSERT INTO p3 VALUES (20);
             ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30); UPDATE p SET note = 'z'; TRUNCATE p3");
        assert_eq!(
            log("operation, table_name"),
            ["INSERT | p3", "DDL | p3", "UPDATE | p3", "TRUNCATE | p3"]
        );
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('p', '20')"),
            ["INSERT", "UPDATE"]
        );
        assert_eq!(rows(WATCHED), ["p | true | true | on"]);
        // An ATTACH PARTITION that fails changes nothing in the watching of the two tables.
        run(
            "CREATE TABLE p5 (id int PRIMARY KEY, note text); SELECT lead_audit.enable('p5'); INSERT INTO p5 VALUES (99)",
        );
        assert_fails(
            "ALTER TABLE p ATTACH PARTITION p5 FOR VALUES FROM (40) TO (50)",
            "23514",
            "partition constraint",
        );
        run("UPDATE p5 SET note = 'x'");
        assert_eq!(rows(WATCHED), ["p | true | true | on", "p5 | true | true | on"]);
        assert_intact();
    }

    #[pg_test]
    fn child_tables_are_watched_with_their_parent() {
        begin();
        run("CREATE TABLE parent (id int PRIMARY KEY, note text); CREATE TABLE child (more int, PRIMARY KEY (id)) INHERITS (parent);
             SELECT lead_audit.enable('parent'); CREATE TABLE grandchild (PRIMARY KEY (id)) INHERITS (child);
             CREATE TABLE late (id int NOT NULL, note text); INSERT INTO late VALUES (9, 'came along');
             INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2); INSERT INTO grandchild VALUES (3);
             ALTER TABLE late INHERIT parent; UPDATE parent SET note = 'x'; UPDATE ONLY parent SET note = 'y';
             DELETE FROM parent WHERE id = 3; TRUNCATE parent");
        assert_eq!(
            log(
                "operation, table_name, coalesce(new_values, old_values)->'id', details->'row_count'"
            ),
            [
                "INSERT | parent | 1 | NULL",
                "INSERT | child | 2 | NULL",
                "INSERT | grandchild | 3 | NULL",
                "DDL | late | NULL | NULL",
                "UPDATE | parent | 1 | NULL",
                "UPDATE | child | 2 | NULL",
                "UPDATE | late | 9 | NULL",
                "UPDATE | grandchild | 3 | NULL",
                "UPDATE | parent | 1 | NULL",
                "DELETE | grandchild | 3 | NULL",
                "TRUNCATE | parent | NULL | 1",
                "TRUNCATE | child | NULL | 1",
                "TRUNCATE | late | NULL | 1",
                "TRUNCATE | grandchild | NULL | 0"
            ]
        );
        assert_eq!(one("SELECT count(DISTINCT watch_id) FROM lead_audit.entry"), "1");
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('parent', '2')"),
            ["INSERT", "UPDATE"]
        );
        assert_eq!(rows(WATCHED), ["parent | true | true | on"]);
        assert_fails(
            "SELECT lead_audit.disable('grandchild')",
            "42809",
            "public.grandchild is watched as a part of public.parent",
        );
        // After NO INHERIT, the former child of a watched table stays watched under its own watch
        // id, even after disable() of its former parent.
        run("ALTER TABLE grandchild NO INHERIT child; INSERT INTO grandchild VALUES (4); SELECT lead_audit.disable('parent');
             INSERT INTO child VALUES (5); INSERT INTO grandchild VALUES (6)");
        assert_eq!(
            log("operation, table_name").split_off(14),
            ["DDL | grandchild", "INSERT | grandchild", "DDL | parent", "INSERT | grandchild"]
        );
        assert_eq!(rows(WATCHED), ["grandchild | true | true | on"]);
        assert_intact();
    }

    #[pg_test]
    fn child_tables_with_a_baseline_and_their_end() {
        begin();
        run("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent); INSERT INTO parent VALUES (1);
             INSERT INTO child VALUES (2); SELECT lead_audit.enable('parent', baseline => true); DROP TABLE child; DROP TABLE parent");
        assert_eq!(
            log("operation, table_name"),
            ["SNAPSHOT | parent", "SNAPSHOT | child", "DDL | child", "DDL | parent"]
        );
        assert_eq!(rows(WATCHED), [""; 0]);
    }

    /// An UPDATE of a row has one entry, even if the UPDATE moves the row to another partition.
    #[pg_test]
    fn row_that_moves_is_an_update() {
        begin_with_partitions();
        run("CREATE TABLE p3 (note text, dropped int, id int PRIMARY KEY); ALTER TABLE p3 DROP COLUMN dropped;
             ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30); SELECT lead_audit.enable('p');
             INSERT INTO p VALUES (1, 'a'), (2, 'b'), (12, repeat('long ', 20000)); UPDATE p SET id = id + 9; UPDATE p SET id = 25, note = note || '!' WHERE id = 21;
             UPDATE p SET id = 3 WHERE id = 10; DELETE FROM p WHERE id = 3");
        assert_eq!(
            rows(
                "SELECT operation, table_name, row_key->'id', diff->'id'->'old', diff ? 'note', details->'moved_from'->>'table_name' FROM lead_audit.log ORDER BY id OFFSET 3"
            ),
            [
                "UPDATE | p21 | 10 | 1 | false | p1",
                "UPDATE | p21 | 11 | 2 | false | p1",
                "UPDATE | p3 | 21 | 12 | false | p21",
                "UPDATE | p3 | 25 | 21 | true | NULL",
                "UPDATE | p1 | 3 | 10 | false | p21",
                "DELETE | p1 | 3 | NULL | NULL | NULL"
            ]
        );
        assert_eq!(
            rows("SELECT operation, row_key->'id' FROM lead_audit.history('p', '10')"),
            ["UPDATE | 10", "UPDATE | 3"],
            "where it came from and where it went"
        );
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('p', '3')"),
            ["UPDATE", "DELETE"]
        );
        assert_eq!(one("SELECT count(previous_key_hash) FROM lead_audit.entry"), "5");
        assert_intact();
    }

    /// Tests triggers that write between the DELETE and the INSERT of a partition move, or that
    /// suppress the INSERT.
    #[pg_test]
    fn row_that_moves_and_triggers() {
        begin_with_partitions();
        run("CREATE TABLE side (id int PRIMARY KEY); SELECT lead_audit.enable('p'), lead_audit.enable('side'); INSERT INTO p VALUES (1), (2), (3), (4);
             CREATE FUNCTION aside() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO side VALUES (OLD.id);
               BEGIN UPDATE p SET id = id + 1 WHERE id = 17; INSERT INTO p VALUES (99); RAISE 'undo'; EXCEPTION WHEN others THEN NULL; END;
               INSERT INTO p VALUES (OLD.id + 4, 'made meanwhile'); RETURN NULL; END $$;
             CREATE TRIGGER zz AFTER DELETE ON p1 FOR EACH ROW EXECUTE FUNCTION aside();
             CREATE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.id = 12 THEN RETURN NULL; END IF; NEW.note := 'by trigger'; RETURN NEW; END $$;
             CREATE TRIGGER cancel BEFORE INSERT ON p21 FOR EACH ROW EXECUTE FUNCTION cancel();
             UPDATE p SET id = id + 10 WHERE id < 3");
        assert_eq!(
            rows(
                "SELECT operation, table_name, row_key->'id', coalesce(new_values, old_values)->>'note' FROM lead_audit.log ORDER BY id OFFSET 4"
            ),
            [
                "INSERT | side | 1 | NULL",
                "INSERT | p1 | 5 | made meanwhile",
                "UPDATE | p21 | 11 | by trigger",
                "INSERT | side | 2 | NULL",
                "INSERT | p1 | 6 | made meanwhile",
                "DELETE | p1 | 2 | NULL"
            ]
        );
        assert_eq!(rows("SELECT id FROM p ORDER BY id"), ["3", "4", "5", "6", "11"]);
        // If a block with EXCEPTION undoes a partition move, the move has no entry.
        run(
            "DO $$ BEGIN UPDATE p SET id = 13 WHERE id = 3; RAISE 'undo'; EXCEPTION WHEN raise_exception THEN NULL; END $$",
        );
        assert_eq!(number("SELECT count(*) FROM lead_audit.log"), 10);
        // If only one partition is watched, a partition move into it is recorded as an INSERT, and
        // a partition move out of it as a DELETE.
        run("SELECT lead_audit.disable('p'); SELECT lead_audit.enable('p21'); UPDATE p SET id = 14 WHERE id = 11; UPDATE p SET id = 9 WHERE id = 14;
             UPDATE p SET id = 12 WHERE id = 9; UPDATE p SET id = 15 WHERE id = 3");
        assert_eq!(
            rows("SELECT operation, row_key->'id' FROM lead_audit.log ORDER BY id OFFSET 11"),
            ["UPDATE | 14", "DELETE | 14", "INSERT | 9", "INSERT | 13", "INSERT | 3"]
        );
        assert_intact();
    }

    /// Tests partition moves by a foreign key's cascade, by MERGE and by UPDATE in a WITH query.
    /// The column `m` has values whose JSON is always the same.
    #[pg_test]
    fn row_that_moves_in_other_ways() {
        begin();
        run("CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);
             CREATE TYPE mood AS ENUM ('a', 'b'); CREATE FUNCTION told(mood) RETURNS json LANGUAGE sql AS $$ SELECT '\"x\"'::json $$;
             CREATE CAST (mood AS json) WITH FUNCTION told(mood);
             CREATE TABLE p (id int, parent int REFERENCES parent ON UPDATE CASCADE, m mood, gone boolean, PRIMARY KEY (id, parent)) PARTITION BY RANGE (parent);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             SELECT lead_audit.enable('p', 'gone'); INSERT INTO p VALUES (1, 1, 'a', false), (2, 1, 'b', false);
             UPDATE parent SET id = 11");
        run(
            "MERGE INTO p USING (VALUES (1)) v(id) ON p.id = v.id WHEN MATCHED THEN UPDATE SET parent = 11, m = 'b', gone = true",
        );
        run(
            "INSERT INTO parent VALUES (5);
             WITH moved AS (UPDATE p SET parent = 5 WHERE id = 1 RETURNING *) INSERT INTO p SELECT 3, parent, m, gone FROM moved",
        );
        assert_eq!(
            rows(
                "SELECT operation, table_name, soft_delete, row_key, diff - 'id' FROM lead_audit.log ORDER BY id OFFSET 2"
            ),
            [
                r#"UPDATE | p2 | NULL | {"id": 1, "parent": 11} | {"parent": {"new": 11, "old": 1}}"#,
                r#"UPDATE | p2 | NULL | {"id": 2, "parent": 11} | {"parent": {"new": 11, "old": 1}}"#,
                r#"UPDATE | p2 | deleted | {"id": 1, "parent": 11} | {"m": {"new": "x", "old": "x"}, "gone": {"new": true, "old": false}}"#,
                r#"UPDATE | p1 | NULL | {"id": 1, "parent": 5} | {"parent": {"new": 5, "old": 11}}"#,
                r#"INSERT | p1 | NULL | {"id": 3, "parent": 5} | NULL"#
            ]
        );
        assert_intact();
    }

    /// The owner of a watched table can attach and detach partitions. Writes to a detached
    /// partition still have entries. Writes also have entries after the watched table becomes a
    /// partition of a table that the owner created.
    #[pg_test]
    fn detached_and_attached_by_the_owner() {
        begin();
        run("CREATE ROLE clerk; GRANT CREATE ON SCHEMA public TO clerk; SET LOCAL ROLE clerk;
             CREATE TABLE p (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); RESET ROLE; SELECT lead_audit.enable('p')");
        run_as(
            "clerk",
            "INSERT INTO p VALUES (1, 'true'); ALTER TABLE p DETACH PARTITION p1; UPDATE p1 SET note = 'forged';
             ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10)",
        );
        assert_eq!(
            log("operation, new_values->>'note', db_current_user"),
            [
                "INSERT | true | clerk",
                "DDL | NULL | clerk",
                "UPDATE | forged | clerk",
                "DDL | NULL | clerk"
            ]
        );
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('p', '1')"),
            ["INSERT", "UPDATE"]
        );
        run_as(
            "clerk",
            "CREATE TABLE above (id int NOT NULL, note text) PARTITION BY RANGE (id);
             ALTER TABLE above ATTACH PARTITION p FOR VALUES FROM (0) TO (100); INSERT INTO above VALUES (2)",
        );
        assert_eq!(log("operation, table_name").pop().as_deref(), Some("INSERT | p1"));
        // The following command disables the triggers that partitions inherit from the table
        // `above`, but not the audit triggers.
        run_as("clerk", "ALTER TABLE above DISABLE TRIGGER ALL");
        for statement in
            ["ALTER TABLE p1 DISABLE TRIGGER USER", "DROP TRIGGER \"00_lead_audit_truncate\" ON p1"]
        {
            assert_fails_as("clerk", statement, "42501", "permission denied");
        }
        // A command that names a table of another owner fails, and does not change the watching of
        // that table.
        run(
            "CREATE TABLE stranger (id int PRIMARY KEY, note text); SELECT lead_audit.enable('stranger')",
        );
        assert_fails_as(
            "clerk",
            "ALTER TABLE p ATTACH PARTITION stranger FOR VALUES FROM (50) TO (60)",
            "42501",
            "must be owner",
        );
        assert_eq!(rows(WATCHED), ["p | true | true | on", "stranger | true | true | on"]);
        assert_intact();
    }

    /// A column that was added with a default has a value in old rows, although their tuples do not
    /// store this value.
    #[pg_test]
    fn moved_rows_have_the_values_of_added_columns() {
        begin_with_partitions();
        run("SELECT lead_audit.enable('p'); INSERT INTO p VALUES (1, 'a');
             ALTER TABLE p ADD COLUMN source text DEFAULT 'import', ADD COLUMN score int DEFAULT 7, ADD COLUMN seen date;
             UPDATE p SET id = 11");
        assert_eq!(
            rows(
                "SELECT old_values, new_values, diff FROM lead_audit.log WHERE operation = 'UPDATE'"
            ),
            [concat!(
                r#"{"id": 1, "note": "a", "seen": null, "score": 7, "source": "import"} | "#,
                r#"{"id": 11, "note": "a", "seen": null, "score": 7, "source": "import"} | "#,
                r#"{"id": {"new": 11, "old": 1}}"#
            )]
        );
        assert_intact();
    }
}
