//! Tests that a write that is rolled back leaves no entry and does not affect other entries.
//! PL/pgSQL executes each block with EXCEPTION in a subtransaction. Blocks with EXCEPTION can be
//! nested, and can run in the middle of a statement. The writes of a block have entries if the
//! block, all blocks around it and the transaction commit.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    #[pg_test]
    fn block_keeps_the_outer_entries() {
        begin_with_leads();
        run("DO $$ BEGIN
               INSERT INTO leads (id) VALUES ('before');
               BEGIN
                 INSERT INTO leads (id) VALUES ('inside'); UPDATE leads SET email = 'inside'; DELETE FROM leads; RAISE 'undo';
               EXCEPTION WHEN raise_exception THEN NULL; END;
               INSERT INTO leads (id) VALUES ('after');
             END $$");
        assert_eq!(log("operation, row_key->>'id'"), ["INSERT | before", "INSERT | after"]);
        assert_eq!(
            rows("SELECT id, email FROM leads ORDER BY id"),
            ["after | NULL", "before | NULL"]
        );
        assert_intact();
    }

    #[pg_test]
    fn nested_blocks() {
        begin_with_leads();
        run("DO $$ BEGIN
               INSERT INTO leads (id) VALUES ('1');
               BEGIN
                 INSERT INTO leads (id) VALUES ('2');
                 BEGIN INSERT INTO leads (id) VALUES ('3 committed, then undone with 2'); EXCEPTION WHEN others THEN NULL; END;
                 RAISE 'undo';
               EXCEPTION WHEN others THEN
                 INSERT INTO leads (id) VALUES ('4 in the handler');
               END;
               BEGIN
                 INSERT INTO leads (id) VALUES ('5');
                 BEGIN INSERT INTO leads (id) VALUES ('6 undone'); RAISE 'undo'; EXCEPTION WHEN others THEN NULL; END;
                 BEGIN INSERT INTO leads (id) VALUES ('7'); EXCEPTION WHEN others THEN NULL; END;
               EXCEPTION WHEN others THEN NULL; END;
             END $$");
        assert_eq!(log("row_key->>'id'"), ["1", "4 in the handler", "5", "7"]);
        assert_eq!(rows("SELECT id FROM leads ORDER BY id"), ["1", "4 in the handler", "5", "7"]);
        assert_eq!(
            rows("SELECT DISTINCT txid = pg_current_xact_id() FROM lead_audit.log"),
            ["true"],
            "the transaction, not the block"
        );
        assert_intact();
    }

    #[pg_test]
    fn statement_that_fails_half_way() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('taken')");
        for batch_memory in ["0", "1MB"] {
            run(&format!("SET LOCAL lead_audit.batch_memory = '{batch_memory}'"));
            assert!(
                failure("INSERT INTO leads (id) VALUES ('a'), ('b'), ('taken'), ('c')")
                    .starts_with("23505")
            );
            assert!(failure("UPDATE leads SET enrichment_status = NULL").starts_with("23502"));
        }
        // The INSERT below fails in its statement trigger, after its row triggers have run.
        run("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
             CREATE TRIGGER zz AFTER INSERT ON leads FOR EACH STATEMENT EXECUTE FUNCTION refuse()");
        assert!(failure("INSERT INTO leads (id) VALUES ('a'), ('b')").starts_with("P0001"));
        run("DROP TRIGGER zz ON leads; INSERT INTO leads (id) VALUES ('z')");
        assert_eq!(log("row_key->>'id'"), ["taken", "z"]);
        assert_intact();
    }

    /// The entries of rows 1 to 3 stay in the batch until the end of the INSERT. The trigger's
    /// blocks with EXCEPTION begin and end before the end of the INSERT.
    #[pg_test]
    fn block_in_an_after_trigger() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE side (id int PRIMARY KEY);
             SELECT lead_audit.enable('t'), lead_audit.enable('side');
             CREATE FUNCTION aside() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               BEGIN
                 INSERT INTO side VALUES (NEW.id); UPDATE side SET id = id + 100 WHERE id = NEW.id;
                 IF NEW.id = 2 THEN RAISE 'undo'; END IF;
               EXCEPTION WHEN others THEN INSERT INTO side VALUES (-NEW.id); END;
               RETURN NULL; END $$;
             CREATE TRIGGER zz AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION aside(); INSERT INTO t VALUES (1), (2), (3)");
        let mut entries = log("table_name, operation, new_values->'id'");
        entries.sort();
        assert_eq!(
            entries,
            [
                "side | INSERT | -2",
                "side | INSERT | 1",
                "side | INSERT | 3",
                "side | UPDATE | 101",
                "side | UPDATE | 103",
                "t | INSERT | 1",
                "t | INSERT | 2",
                "t | INSERT | 3"
            ]
        );
        assert_eq!(one("SELECT count(DISTINCT id) FROM lead_audit.log"), "8");
        assert_intact();
    }

    #[pg_test]
    fn statement_around_committed_blocks() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE side (id int PRIMARY KEY);
             SELECT lead_audit.enable('t'), lead_audit.enable('side');
             CREATE FUNCTION aside() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               BEGIN INSERT INTO side VALUES (NEW.id); EXCEPTION WHEN others THEN NULL; END;
               IF NEW.id = 3 THEN RAISE 'third'; END IF; RETURN NULL; END $$;
             CREATE TRIGGER zz AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION aside()");
        assert!(failure("INSERT INTO t VALUES (1), (2), (3)").contains("third"));
        assert_eq!(log("1"), [""; 0]);
        run("INSERT INTO t VALUES (1), (2)");
        assert_eq!(one("SELECT count(*) FROM lead_audit.log"), "4");
        assert_intact();
    }

    #[pg_test]
    fn truncate_and_ddl() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a');
             DO $$ BEGIN TRUNCATE leads; RAISE 'undo'; EXCEPTION WHEN others THEN NULL; END $$;
             DO $$ BEGIN PERFORM lead_audit.disable('leads'); RAISE 'undo'; EXCEPTION WHEN others THEN NULL; END $$;
             DO $$ BEGIN ALTER TABLE leads DISABLE TRIGGER ALL; RAISE 'undo'; EXCEPTION WHEN others THEN NULL; END $$;
             DO $$ BEGIN DROP TABLE leads; RAISE 'undo'; EXCEPTION WHEN others THEN NULL; END $$;
             DO $$ BEGIN ALTER TABLE leads ADD COLUMN more int DEFAULT 5; UPDATE leads SET email = 'x'; RAISE 'undo';
             EXCEPTION WHEN others THEN NULL; END $$;
             UPDATE leads SET email = 'kept'");
        assert_eq!(log("operation, new_values ? 'more'"), ["INSERT | false", "UPDATE | false"]);
        assert_eq!(rows("SELECT state, row_trigger_on FROM lead_audit.watched"), ["on | true"]);
        assert_intact();
    }

    #[pg_test]
    fn thousands_of_blocks_in_a_loop() {
        begin_with_leads();
        run("DO $$ BEGIN FOR i IN 1 .. 3000 LOOP
               BEGIN
                 INSERT INTO leads (id) VALUES (i::text);
                 IF i % 3 = 0 THEN RAISE 'undo'; END IF;
               EXCEPTION WHEN raise_exception THEN NULL; END;
             END LOOP; END $$");
        assert_eq!(
            one("SELECT count(*), count(DISTINCT row_key), count(*) FILTER (WHERE (row_key->>'id')::int % 3 = 0)
                     FROM lead_audit.log"),
            "2000 | 2000 | 0"
        );
        assert_intact();
    }
}
