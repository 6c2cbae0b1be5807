//! Tests that every change of a row has an entry with the complete old and new row, the diff and
//! the key. The change can come from INSERT, UPDATE, DELETE, MERGE, COPY, a cascade of a foreign
//! key, or a trigger. A TRUNCATE also has an entry. A write that is rolled back has no entry, and
//! an UPDATE that changes no value has no entry.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    #[pg_test]
    fn insert_update_delete() {
        begin_with_leads();
        run("CREATE TEMP TABLE version (n int, row jsonb);
             INSERT INTO leads (id, email) VALUES ('a', 'a@x.org'); INSERT INTO version SELECT 1, to_jsonb(l) FROM leads l;
             UPDATE leads SET email = NULL, enrichment_status = 'DONE'; INSERT INTO version SELECT 2, to_jsonb(l) FROM leads l;
             DELETE FROM leads");
        assert_eq!(
            log("operation, outcome, row_key, soft_delete,
                 old_values = (SELECT row FROM version WHERE n = CASE operation WHEN 'UPDATE' THEN 1 WHEN 'DELETE' THEN 2 END),
                 new_values = (SELECT row FROM version WHERE n = CASE operation WHEN 'INSERT' THEN 1 WHEN 'UPDATE' THEN 2 END), diff"),
            [
                r#"INSERT | ok | {"id": "a"} | NULL | NULL | true | NULL"#,
                r#"UPDATE | ok | {"id": "a"} | NULL | true | true | {"email": {"new": null, "old": "a@x.org"}, "enrichment_status": {"new": "DONE", "old": "PENDING"}}"#,
                r#"DELETE | ok | {"id": "a"} | NULL | true | NULL | NULL"#
            ]
        );
        assert_eq!(
            one("SELECT count(*) FROM lead_audit.log WHERE (operation <> 'UPDATE' OR old_values IS NOT NULL)
                   AND num_nulls(error_code, error_message, error_detail, statement, details) = 5"),
            "3"
        );
        assert_intact();
    }

    #[pg_test]
    fn time_transaction_and_identity() {
        begin_with_leads();
        run("CREATE TEMP TABLE clock AS SELECT clock_timestamp() AS before; SELECT pg_sleep(0.01);
             INSERT INTO leads (id) VALUES ('a'); SELECT pg_sleep(0.01); UPDATE leads SET email = 'x'");
        assert_eq!(
            log("occurred_at > (SELECT before FROM clock) AND occurred_at > now() AND occurred_at <= clock_timestamp(),
                 txid = pg_current_xact_id(), backend_pid = pg_backend_pid(), length(checksum),
                 db_session_user = session_user, db_current_user = current_user, client_addr IS NOT DISTINCT
                 FROM host(inet_client_addr()),
                 coalesce(application_name, '') = current_setting('application_name')"),
            ["true | true | true | 32 | true | true | true | true", "true | true | true | 32 | true | true | true | true"]
        );
        assert!(
            holds("SELECT max(occurred_at) > min(occurred_at) FROM lead_audit.log"),
            "the clock, not the transaction's start"
        );
    }

    #[pg_test]
    fn truncate_counts_the_rows() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'), ('b'), ('c'); DELETE FROM leads WHERE id = 'b'; TRUNCATE leads;
                 TRUNCATE leads");
        assert_eq!(
            rows(
                "SELECT operation, row_key, old_values, new_values, diff, details FROM lead_audit.log ORDER BY id OFFSET 4"
            ),
            [
                r#"TRUNCATE | NULL | NULL | NULL | NULL | {"row_count":2}"#,
                r#"TRUNCATE | NULL | NULL | NULL | NULL | {"row_count":0}"#
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn truncate_of_several_tables_and_cascade() {
        begin();
        run("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a); CREATE TABLE c (id int);
             SELECT lead_audit.enable(t) FROM (VALUES ('a'::regclass), ('b'), ('c')) v(t);
             INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1); TRUNCATE a, c CASCADE");
        assert_eq!(
            rows(
                "SELECT table_name, details FROM lead_audit.log WHERE operation = 'TRUNCATE' ORDER BY table_name"
            ),
            [r#"a | {"row_count":2}"#, r#"b | {"row_count":1}"#, r#"c | {"row_count":0}"#]
        );
    }

    /// Each partition has its own TRUNCATE trigger, because PostgreSQL does not copy statement
    /// triggers from a partitioned table to its partitions.
    #[pg_test]
    fn truncate_of_one_partition() {
        begin();
        run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             SELECT lead_audit.enable('p'); INSERT INTO p VALUES (1), (2); TRUNCATE p1");
        assert_eq!(
            rows("SELECT operation, table_name, details FROM lead_audit.log ORDER BY id OFFSET 2"),
            [r#"TRUNCATE | p1 | {"row_count":2}"#]
        );
    }

    #[pg_test]
    fn soft_delete_and_restore() {
        begin_with_leads();
        run("INSERT INTO leads (id, is_deleted) VALUES ('a', false), ('b', true);
             UPDATE leads SET is_deleted = true, deleted_at = now() WHERE id = 'a';
             UPDATE leads SET email = 'still deleted' WHERE id = 'a';
             UPDATE leads SET is_deleted = false WHERE id = 'a';
             DELETE FROM leads");
        assert_eq!(
            log("operation, row_key->>'id', soft_delete"),
            [
                "INSERT | a | NULL",
                "INSERT | b | NULL",
                "UPDATE | a | deleted",
                "UPDATE | a | NULL",
                "UPDATE | a | restored",
                "DELETE | b | NULL",
                "DELETE | a | NULL"
            ]
        );
    }

    #[pg_test]
    fn soft_delete_column_of_other_name_domain_and_null() {
        begin();
        run(
            r#"CREATE DOMAIN flag AS boolean; CREATE TABLE t (id int PRIMARY KEY, "Is ""Gone""" flag, is_deleted boolean);
               SELECT lead_audit.enable('t', 'Is "Gone"');
               INSERT INTO t VALUES (1, NULL, false);
               UPDATE t SET is_deleted = true;
               UPDATE t SET "Is ""Gone""" = true;
               UPDATE t SET "Is ""Gone""" = NULL;
               UPDATE t SET "Is ""Gone""" = false"#,
        );
        assert_eq!(
            log("operation, soft_delete"),
            [
                "INSERT | NULL",
                "UPDATE | NULL",
                "UPDATE | deleted",
                "UPDATE | restored",
                "UPDATE | NULL"
            ]
        );
    }

    #[pg_test]
    fn update_that_changes_nothing_is_no_entry() {
        begin_with_leads();
        run("INSERT INTO leads (id, email) VALUES ('a', 'x'); UPDATE leads SET email = email;
                 UPDATE leads SET email = 'x', is_manual = false");
        assert_eq!(log("operation"), ["INSERT"]);
        run("SET LOCAL lead_audit.log_unchanged = on; UPDATE leads SET email = 'x'");
        assert_eq!(
            log("operation, diff, old_values = new_values"),
            ["INSERT | NULL | NULL", "UPDATE | {} | true"]
        );
        run("SET LOCAL lead_audit.log_unchanged = off; UPDATE leads SET email = 'x'");
        assert_eq!(log("operation"), ["INSERT", "UPDATE"]);
        assert_intact();
    }

    #[pg_test]
    fn update_that_changes_only_the_spelling_of_a_value() {
        begin();
        run(
            r#"CREATE TABLE t (id int PRIMARY KEY, n numeric, j json, f float8); SELECT lead_audit.enable('t');
               INSERT INTO t VALUES (1, 1.1, '{"a":1}', 0);
               UPDATE t SET n = 1.10; UPDATE t SET j = '{ "a" : 1 }'; UPDATE t SET f = '-0'"#,
        );
        // The JSON of a numeric shows its scale. White space in a json value and the sign of a zero
        // do not appear in a row image. An UPDATE that changes only the white space or the sign
        // still has an entry.
        assert_eq!(
            log("operation, diff"),
            [
                "INSERT | NULL",
                r#"UPDATE | {"n": {"new": 1.10, "old": 1.1}}"#,
                r#"UPDATE | {"j": {"new": {"a": 1}, "old": {"a": 1}}}"#,
                r#"UPDATE | {"f": {"new": 0, "old": 0}}"#
            ]
        );
    }

    #[pg_test]
    fn many_rows_of_one_statement() {
        begin_with_leads();
        for batch_memory in ["0", "64kB", "1GB"] {
            run(&format!("SET LOCAL lead_audit.batch_memory = '{batch_memory}'"));
            run("INSERT INTO leads (id, email) SELECT 'lead ' || g, md5(g::text) FROM generate_series(1, 3500) g;
                 UPDATE leads SET email = upper(email), enrichment_status = 'X'; DELETE FROM leads");
            // Each row has exactly one INSERT, one UPDATE and one DELETE entry. The entries are in
            // the order of the events, and contain the values of their row.
            assert_eq!(
                one("SELECT count(*), count(DISTINCT row_key), bool_and(good), count(DISTINCT id) FROM (
                       SELECT id, row_key, CASE operation
                         WHEN 'INSERT' THEN n = 1 AND new_values->>'email' = md5(substr(row_key->>'id', 6))
                         WHEN 'UPDATE' THEN n = 2 AND diff->'email'->>'new' = upper(diff->'email'->>'old')
                                       AND old_values->>'email' = md5(substr(row_key->>'id', 6))
                         WHEN 'DELETE' THEN n = 3 AND old_values->>'email' = upper(md5(substr(row_key->>'id', 6))) END AS good
                       FROM (SELECT *, row_number() OVER (PARTITION BY row_key ORDER BY id) AS n FROM lead_audit.log) l) q"),
                "10500 | 3500 | true | 10500",
                "batch_memory {batch_memory}"
            );
            assert_eq!(
                one("SELECT bool_and(occurred_at >= before) FROM
                       (SELECT occurred_at, lag(occurred_at) OVER (ORDER BY id) AS before FROM lead_audit.log) l"),
                "true"
            );
            run(
                "ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only; DELETE FROM lead_audit.entry",
            );
        }
    }

    #[pg_test]
    fn two_statements_in_order() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'), ('b'); UPDATE leads SET email = id || '1';
                 UPDATE leads SET email = id || '2' WHERE id = 'b'");
        assert_eq!(
            log("operation, new_values->>'email'"),
            ["INSERT | NULL", "INSERT | NULL", "UPDATE | a1", "UPDATE | b1", "UPDATE | b2"]
        );
        assert!(holds(
            "SELECT count(DISTINCT id) = 5 AND count(DISTINCT txid) = 1 FROM lead_audit.log"
        ));
    }

    #[pg_test]
    fn copy() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, note text DEFAULT 'by default'); SELECT lead_audit.enable('t');
             COPY t (id) FROM PROGRAM 'seq 1 3000'");
        assert_eq!(
            one("SELECT count(*), min(id) < max(id), bool_and(new_values = jsonb_build_object('id', (row_key->>'id')::int, 'note', 'by default'))
                 FROM lead_audit.log WHERE operation = 'INSERT'"),
            "3000 | true | true"
        );
        assert!(
            failure("COPY t (id) FROM PROGRAM 'seq 3001 4000; echo wrong'").starts_with("22P02")
        );
        assert_eq!(one("SELECT count(*) FROM lead_audit.log"), "3000");
        assert_intact();
    }

    #[pg_test]
    fn upsert_merge_and_writing_ctes() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t');
             INSERT INTO t VALUES (1, 1);
             INSERT INTO t VALUES (1, 10), (2, 20) ON CONFLICT (id) DO UPDATE SET n = excluded.n;
             INSERT INTO t VALUES (1, 11), (2, 21) ON CONFLICT DO NOTHING");
        run("MERGE INTO t USING (VALUES (1, 100), (2, 0), (3, 300)) v(id, n) ON t.id = v.id
               WHEN MATCHED AND v.n = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET n = v.n WHEN NOT MATCHED THEN INSERT
               VALUES (v.id, v.n)");
        run("WITH gone AS (DELETE FROM t WHERE id = 3 RETURNING *), changed AS (UPDATE t SET n = 7 WHERE id = 1 RETURNING *)
               INSERT INTO t SELECT id + 1, n FROM gone");
        let mut events = log("operation, row_key->'id', coalesce(new_values, old_values)->'n'");
        assert_eq!(
            events[..6],
            [
                "INSERT | 1 | 1",
                "UPDATE | 1 | 10",
                "INSERT | 2 | 20",
                "UPDATE | 1 | 100",
                "DELETE | 2 | 20",
                "INSERT | 3 | 300"
            ]
        );
        // The order of the last three entries is not tested, because PostgreSQL decides in which
        // order the parts of a WITH run.
        let mut last = events.split_off(6);
        last.sort();
        assert_eq!(last, ["DELETE | 3 | 300", "INSERT | 4 | 300", "UPDATE | 1 | 7"]);
        assert_intact();
    }

    #[pg_test]
    fn before_trigger_that_changes_or_cancels() {
        begin_with_leads();
        run("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF TG_OP = 'DELETE' THEN RETURN NULL; END IF;
               IF NEW.email = 'cancel' THEN RETURN NULL; END IF;
               NEW.company_name := 'set by trigger'; RETURN NEW; END $$;
             CREATE TRIGGER zz BEFORE INSERT OR UPDATE OR DELETE ON leads FOR EACH ROW EXECUTE FUNCTION touch();
             INSERT INTO leads (id, email) VALUES ('a', 'x'), ('b', 'cancel'); UPDATE leads SET company_name = 'y', email = 'z';
             UPDATE leads SET email = 'cancel'; DELETE FROM leads");
        assert_eq!(
            log("operation, row_key->>'id', new_values->>'company_name', diff"),
            [
                "INSERT | a | set by trigger | NULL",
                r#"UPDATE | a | set by trigger | {"email": {"new": "z", "old": "x"}}"#
            ]
        );
    }

    #[pg_test]
    fn foreign_key_actions() {
        begin();
        run("CREATE TABLE parent (id int PRIMARY KEY);
             CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
             CREATE TABLE friend (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE SET NULL);
             SELECT lead_audit.enable(t) FROM (VALUES ('parent'::regclass), ('child'), ('friend')) v(t);
             INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (10, 1), (11, 1), (12, 2);
             INSERT INTO friend VALUES (20, 2);
             UPDATE parent SET id = 3 WHERE id = 1; DELETE FROM parent");
        let mut events = rows(
            "SELECT operation, table_name, coalesce(new_values, old_values) FROM lead_audit.log
             WHERE operation <> 'INSERT' ORDER BY id",
        );
        assert_eq!(events.remove(0), r#"UPDATE | parent | {"id": 3}"#);
        let place = |event: &str| {
            events
                .iter()
                .position(|e| e == event)
                .unwrap_or_else(|| panic!("no {event} in {events:?}"))
        };
        for event in [
            r#"UPDATE | child | {"id": 10, "parent": 3}"#,
            r#"UPDATE | child | {"id": 11, "parent": 3}"#,
        ] {
            assert!(place(event) < place(r#"DELETE | parent | {"id": 3}"#));
        }
        assert!(
            place(r#"DELETE | parent | {"id": 3}"#)
                < place(r#"DELETE | child | {"id": 10, "parent": 3}"#)
        );
        assert!(
            place(r#"DELETE | parent | {"id": 2}"#)
                < place(r#"DELETE | child | {"id": 12, "parent": 2}"#)
        );
        assert!(
            place(r#"DELETE | parent | {"id": 2}"#)
                < place(r#"UPDATE | friend | {"id": 20, "parent": null}"#)
        );
        assert_eq!(events.len(), 8);
        assert_intact();
    }

    #[pg_test]
    fn through_view_cursor_and_function() {
        begin_with_leads();
        run("CREATE VIEW fine AS SELECT id, email FROM leads WHERE NOT is_deleted;
             INSERT INTO fine VALUES ('a', 'x'); UPDATE fine SET email = 'y';
             DO $$ DECLARE c CURSOR FOR SELECT * FROM leads FOR UPDATE; r record; BEGIN
               OPEN c; FETCH c INTO r; UPDATE leads SET email = 'by cursor' WHERE CURRENT OF c; CLOSE c; END $$;
             CREATE FUNCTION remove(text) RETURNS void LANGUAGE sql AS 'DELETE FROM leads WHERE id = $1'; SELECT remove('a');
             PREPARE put (text) AS INSERT INTO leads (id) VALUES ($1); EXECUTE put('b'); EXECUTE put('c'); DEALLOCATE put");
        assert_eq!(
            log("operation, row_key->>'id', coalesce(new_values, old_values)->>'email'"),
            [
                "INSERT | a | x",
                "UPDATE | a | y",
                "UPDATE | a | by cursor",
                "DELETE | a | by cursor",
                "INSERT | b | NULL",
                "INSERT | c | NULL"
            ]
        );
    }

    #[pg_test]
    fn create_table_as_select_from_a_writing_function() {
        begin_with_leads();
        run("CREATE FUNCTION put(text) RETURNS text LANGUAGE sql AS 'INSERT INTO leads (id) VALUES ($1) RETURNING id';
             CREATE TABLE copies AS SELECT put('x' || g) FROM generate_series(1, 3) g;
             CREATE MATERIALIZED VIEW m AS SELECT 1; DO 'BEGIN PERFORM put(''y''); END'");
        assert_eq!(log("row_key->>'id'"), ["x1", "x2", "x3", "y"]);
    }

    #[pg_test]
    fn deferred_trigger_that_writes() {
        begin_with_leads();
        run("CREATE TABLE source (id int);
             CREATE FUNCTION derive() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO leads (id) VALUES ('derived ' || NEW.id); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER later AFTER INSERT ON source DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
             EXECUTE FUNCTION derive();
             INSERT INTO source VALUES (1), (2)");
        assert_eq!(log("1"), [""; 0]);
        run("SET CONSTRAINTS ALL IMMEDIATE");
        assert_eq!(log("row_key->>'id'"), ["derived 1", "derived 2"]);
        assert_intact();
    }

    /// The innermost of several nested composite types occurs a million times in the table's row
    /// type. Capture inspects each type only once. CREATE TABLE itself inspects every occurrence of
    /// a type.
    #[pg_test]
    fn types_nested_in_many_places() {
        begin();
        run("CREATE TYPE t0 AS (c1 int, c2 int)");
        for level in 1..=6 {
            let attributes: Vec<_> = (1..=10).map(|i| format!("c{i} t{}", level - 1)).collect();
            run(&format!("CREATE TYPE t{level} AS ({})", attributes.join(", ")));
        }
        run("CREATE TYPE priced AS (deep t6, price money);
             CREATE TABLE nested (id int PRIMARY KEY, a t6, b t6[], c priced); SELECT lead_audit.enable('nested');
             SET LOCAL statement_timeout = '2s';
             INSERT INTO nested VALUES (1, NULL, '{}', ROW(NULL, 1.5));
             SET LOCAL statement_timeout = 0");
        assert_eq!(log("new_values->'a', new_values->'c'->>'price'"), ["NULL | $1.50"]);
        assert_intact();
    }
}
