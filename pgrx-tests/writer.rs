//! The library writes to the log without SQL. Tests that such a write has the same effects as an
//! INSERT. Each index on the log contains every entry that the index covers. The writing
//! transaction holds its lock on the log until it ends, or until the subtransaction that wrote
//! rolls back.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    /// Asserts that a scan of the index finds as many entries as a sequential scan. Returns the
    /// number of these entries.
    fn assert_index_has(index: &str, condition: &str) -> i64 {
        let query = format!("SELECT count(*) FROM lead_audit.entry WHERE {condition}");
        run("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexonlyscan = off;
             SET LOCAL enable_seqscan = on");
        let read = number(&query);
        run("SET LOCAL enable_indexscan = on; SET LOCAL enable_seqscan = off");
        run("CREATE OR REPLACE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS
             $$ BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || query; END $$");
        let plan = rows(&format!("SELECT * FROM plan({})", literal(&query))).join("\n");
        assert!(plan.contains(index), "{plan}");
        assert_eq!(number(&query), read, "{index}");
        read
    }

    #[pg_test]
    fn indexes_contain_the_entries() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, note text); SELECT lead_audit.enable('t');
             INSERT INTO t SELECT g, 'x' FROM generate_series(1, 3000) g;
             UPDATE t SET id = CASE WHEN id % 7 = 0 THEN -id ELSE id END, note = 'y'; UPDATE t SET id = 7 WHERE id = -7");
        assert_eq!(
            assert_index_has("entry_previous_key_hash_idx", "previous_key_hash IS NOT NULL"),
            429
        );
        assert_eq!(assert_index_has("entry_pkey", "id > 0"), 6001);
        assert_eq!(assert_index_has("entry_key_hash_idx", "key_hash > -9223372036854775808"), 6001);
        assert_intact();
    }

    #[pg_test]
    fn added_indexes_contain_the_entries() {
        begin();
        run("CREATE INDEX by_user ON lead_audit.entry (lower(user_id)) WHERE user_id IS NOT NULL;
             CREATE TABLE t (id int PRIMARY KEY); SELECT lead_audit.enable('t');
             INSERT INTO t VALUES (1); SET LOCAL lead_audit.user_id = 'U-17'; INSERT INTO t VALUES (2)");
        assert_eq!(
            assert_index_has("by_user", "lower(user_id) = 'u-17' AND user_id IS NOT NULL"),
            1
        );
        // An administrator can drop and create the index on previous_key_hash while sessions have
        // the log's relation in their relcaches.
        run("DROP INDEX lead_audit.entry_previous_key_hash_idx; UPDATE t SET id = 3 WHERE id = 2;
             CREATE INDEX again ON lead_audit.entry (previous_key_hash) WHERE previous_key_hash IS NOT NULL;
             UPDATE t SET id = 4 WHERE id = 3; DELETE FROM t WHERE id = 1");
        assert_eq!(assert_index_has("again", "previous_key_hash IS NOT NULL"), 2);
    }

    #[pg_test]
    fn index_contains_the_changes_of_a_trigger_on_the_log() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY); SELECT lead_audit.enable('t');
             CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.previous_key_hash := 42; RETURN NEW; END';
             CREATE TRIGGER fill BEFORE INSERT ON lead_audit.entry FOR EACH ROW EXECUTE FUNCTION fill();
             INSERT INTO t VALUES (1)");
        assert_eq!(assert_index_has("entry_previous_key_hash_idx", "previous_key_hash = 42"), 1);
    }

    #[pg_test]
    fn locked_again_after_the_rollback_of_the_lock() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY); SELECT lead_audit.enable('t')");
        let locked = || {
            holds(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'lead_audit.entry'::regclass AND mode = 'RowExclusiveLock'
                   AND pid = pg_backend_pid() AND granted)",
            )
        };
        let rolled_back = "DO $$ BEGIN INSERT INTO t VALUES (1); BEGIN INSERT INTO t VALUES (2); END; RAISE 'undo'; EXCEPTION WHEN raise_exception THEN END $$";
        for statement in
            [rolled_back, "INSERT INTO t VALUES (1)", rolled_back.replace("(1)", "(3)").as_str()]
        {
            run(statement);
            assert_eq!(locked(), holds("SELECT EXISTS (SELECT FROM t)"), "{statement}");
        }
        run(
            "DO $$ BEGIN INSERT INTO t VALUES (4); BEGIN INSERT INTO t VALUES (5); RAISE 'undo'; EXCEPTION WHEN raise_exception THEN END; INSERT INTO t VALUES (6); END $$",
        );
        assert!(locked());
        assert_eq!(log("row_key"), [r#"{"id": 1}"#, r#"{"id": 4}"#, r#"{"id": 6}"#]);
        assert_intact();
    }
}
