//! Tests entries that cannot be written. With on_error = warn, the row and all other entries are
//! written, and a WARNING names the table, the row key and the cause. The counter of unwritten
//! entries grows by one for each unwritten entry. With on_error = abort, the statement fails with
//! the error that prevented the entry, and writes neither row nor entry.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    const DROP_VIEW: &str =
        "ALTER EXTENSION lead_audit DROP FUNCTION lead_audit.history(regclass, text);
         ALTER EXTENSION lead_audit DROP FUNCTION lead_audit.history(regclass, jsonb);
        ALTER EXTENSION lead_audit DROP VIEW lead_audit.log; DROP VIEW lead_audit.log CASCADE;";

    /// Runs the SQL `damage`, after which the entry of the lead with the id 2 cannot be written,
    /// but all other entries can. Asserts the effects under both values of on_error.
    fn assert_only_lead_2_is_lost(damage: &str, cause: &str) {
        let before = not_written();
        run(damage);
        for batch_memory in ["0", "1MB"] {
            run(&format!(
                "SET LOCAL lead_audit.batch_memory = '{batch_memory}'; SET LOCAL lead_audit.enabled = off; DELETE FROM leads;
                     SET LOCAL lead_audit.enabled = on"
            ));
            let at_first = number("SELECT count(*) FROM lead_audit.log");
            let counted = not_written();
            let said = warnings(|| {
                run("INSERT INTO leads (id, email) VALUES ('1', 'ok'), ('2', 'bad'), ('3', 'ok')")
            });
            assert_eq!(
                rows("SELECT id FROM leads ORDER BY id"),
                ["1", "2", "3"],
                "the statement succeeds: {damage}"
            );
            let written = rows(&format!(
                "SELECT row_key->>'id' FROM (SELECT * FROM lead_audit.log ORDER BY id OFFSET {at_first}) l ORDER BY id"
            ));
            assert_eq!(written, ["1", "3"], "the others of the statement are written: {damage}");
            assert_eq!(said.len(), 1, "{damage}: {said:?}");
            for part in ["INSERT", "public.leads", r#"{"id":"2"}"#, cause] {
                assert!(said[0].contains(part), "{damage}: no {part} in {said:?}");
            }
            assert_eq!(not_written(), counted + 1, "{damage}");
        }
        assert_eq!(not_written(), before + 2);
        assert_intact();
        run("SET LOCAL lead_audit.on_error = abort; SET LOCAL lead_audit.enabled = off; DELETE FROM leads;
                 SET LOCAL lead_audit.enabled = on");
        let entries = number("SELECT count(*) FROM lead_audit.log");
        let outcome =
            failure("INSERT INTO leads (id, email) VALUES ('1', 'ok'), ('2', 'bad'), ('3', 'ok')");
        assert!(outcome != "no error" && outcome.contains(cause), "{damage}: {outcome}");
        assert_eq!(rows("SELECT id FROM leads"), [""; 0], "{damage}");
        assert_eq!(number("SELECT count(*) FROM lead_audit.log"), entries, "{damage}");
        assert_eq!(not_written(), before + 2, "a failed statement is not a lost entry: {damage}");
        run("INSERT INTO leads (id, email) VALUES ('1', 'ok')");
        assert_eq!(number("SELECT count(*) FROM lead_audit.log"), entries + 1);
    }

    /// Runs the SQL `damage`, after which no entry can be written. Asserts that the statements
    /// succeed, and that each entry has a WARNING and is counted.
    fn assert_every_entry_is_lost(damage: &str, cause: &str) {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('before')");
        let before = crate::entries::not_written_yet_counted();
        run(damage);
        let said = warnings(|| {
            run("INSERT INTO leads (id) VALUES ('1'), ('2'); UPDATE leads SET email = 'x'; DELETE FROM leads WHERE id = '1';
                 TRUNCATE leads;
                 INSERT INTO leads (id) VALUES ('3')");
        });
        assert_eq!(rows("SELECT id, email FROM leads"), ["3 | NULL"], "{damage}");
        assert_eq!(said.len(), 2 + 3 + 1 + 1 + 1, "{damage}: {said:?}");
        assert!(
            said.iter().all(|warning| warning.contains(cause) && warning.contains("leads")),
            "{damage}: {said:?}"
        );
        let counter = crate::entries::not_written_yet_counted();
        assert_eq!(counter, before + 8, "{damage}");
        run("SET LOCAL lead_audit.on_error = abort");
        for statement in [
            "INSERT INTO leads (id) VALUES ('4')",
            "UPDATE leads SET email = 'y'",
            "DELETE FROM leads",
            "TRUNCATE leads",
            "COPY leads (id) FROM PROGRAM 'echo 5'",
        ] {
            let outcome = failure(statement);
            assert!(outcome.contains(cause), "{damage}: {statement}: {outcome}");
        }
        assert_eq!(rows("SELECT id, email FROM leads"), ["3 | NULL"], "{damage}");
    }

    #[pg_test]
    fn check_constraint_on_the_log() {
        begin_with_leads();
        assert_only_lead_2_is_lost(
            "ALTER TABLE lead_audit.entry ADD CONSTRAINT no_two
                 CHECK (coalesce(row_key->>'id', '') <> '2' OR operation <> 'INSERT')",
            "no_two",
        );
    }

    #[pg_test]
    fn trigger_on_the_log() {
        begin_with_leads();
        assert_only_lead_2_is_lost(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.row_values->>'email' = 'bad' AND NEW.operation = 'INSERT' THEN RAISE 'refused by trigger' USING ERRCODE = 'LA001'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON lead_audit.entry FOR EACH ROW EXECUTE FUNCTION refuse()",
            "refused by trigger",
        );
    }

    #[pg_test]
    fn after_trigger_on_the_log() {
        begin_with_leads();
        assert_only_lead_2_is_lost(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.row_values->>'email' = 'bad' AND NEW.operation = 'INSERT' THEN RAISE 'refused afterwards'; END IF;
               RETURN NULL; END $$;
             CREATE TRIGGER refuse AFTER INSERT ON lead_audit.entry FOR EACH ROW EXECUTE FUNCTION refuse()",
            "refused afterwards",
        );
    }

    #[pg_test]
    fn index_on_the_log() {
        begin_with_leads();
        assert_only_lead_2_is_lost(
            "CREATE INDEX bad ON lead_audit.entry ((1 / CASE WHEN row_key->>'id' = '2' AND operation = 'INSERT' THEN 0 ELSE 1 END))",
            "division by zero",
        );
    }

    #[pg_test]
    fn unique_index_on_the_log() {
        begin_with_leads();
        run("INSERT INTO leads (id, email) VALUES ('2', 'bad')");
        assert_only_lead_2_is_lost(
            "CREATE UNIQUE INDEX once ON lead_audit.entry ((row_key->>'id'))
                 WHERE operation = 'INSERT' AND row_key->>'id' = '2'",
            "once",
        );
    }

    /// The application's function for a cast to json raises an error, so the entry cannot be
    /// written.
    #[pg_test]
    fn cast_to_json() {
        begin();
        run("CREATE TYPE mood AS ENUM ('ok', 'bad');
             CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
               IF $1 = 'bad' THEN RAISE 'no JSON for bad'; END IF; RETURN to_json($1::text || '!'); END $$;
             CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
             CREATE TABLE leads (id text PRIMARY KEY, email mood); SELECT lead_audit.enable('leads')");
        let before = not_written();
        let said = warnings(|| {
            run(
                "INSERT INTO leads VALUES ('1', 'ok'), ('2', 'bad'), ('3', 'ok'); UPDATE leads SET email = 'ok'",
            )
        });
        assert_eq!(
            log("operation, row_key->>'id', new_values->>'email'"),
            ["INSERT | 1 | ok!", "INSERT | 3 | ok!"]
        );
        assert_eq!(
            rows("SELECT email FROM leads"),
            ["ok!", "ok!", "ok!"],
            "rows are there; json_each_text shows them by the cast"
        );
        assert_eq!(not_written(), before + 2);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said.iter().all(|w| w.contains("no JSON for bad")
                && w.contains("public.leads")
                && w.contains(r#"{"id":"2"}"#)),
            "{said:?}"
        );
        run("SET LOCAL lead_audit.on_error = abort");
        assert_fails(
            "INSERT INTO leads VALUES ('4', 'ok'), ('5', 'bad')",
            "P0001",
            "no JSON for bad",
        );
        assert_eq!(log("row_key->>'id'"), ["1", "3"]);
        assert_intact();
    }

    /// PostgreSQL cannot convert the json value `"\u0000"` to jsonb, so the entry cannot be
    /// written.
    #[pg_test]
    fn json_that_is_no_jsonb() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, j json); SELECT lead_audit.enable('t')");
        let before = not_written();
        let said = warnings(|| {
            run(r#"INSERT INTO t VALUES (1, '{"a":1}'), (2, '{"a":"\u0000"}'), (3, '[]')"#)
        });
        assert_eq!(one("SELECT count(*) FROM t"), "3");
        assert_eq!(log("row_key->'id'"), ["1", "3"]);
        assert_eq!(not_written(), before + 1);
        assert!(said.len() == 1 && said[0].contains(r#"public.t with key {"id":2}"#), "{said:?}");
    }

    #[pg_test]
    fn constraint_that_refuses_every_entry() {
        assert_every_entry_is_lost(
            "ALTER TABLE lead_audit.entry ADD CONSTRAINT never CHECK (false) NOT VALID",
            "never",
        );
    }

    #[pg_test]
    fn column_that_must_not_be_null() {
        assert_every_entry_is_lost(
            "ALTER TABLE lead_audit.entry ADD COLUMN more int;
                 ALTER TABLE lead_audit.entry ADD CONSTRAINT more_needed CHECK (more IS NOT NULL) NOT VALID",
            "more_needed",
        );
    }

    #[pg_test]
    fn column_renamed() {
        assert_every_entry_is_lost(
            "ALTER TABLE lead_audit.entry RENAME COLUMN user_id TO user_identity",
            "user_id",
        );
    }

    #[pg_test]
    fn column_dropped() {
        assert_every_entry_is_lost(
            &format!("{DROP_VIEW} ALTER TABLE lead_audit.entry DROP COLUMN statement"),
            "statement",
        );
    }

    /// No entry can be written if a column of the log has a type that the library does not expect.
    #[pg_test]
    fn column_of_another_type() {
        assert_every_entry_is_lost(
            &format!(
                "{DROP_VIEW} ALTER TABLE lead_audit.entry ALTER COLUMN db_session_user TYPE integer USING NULL"
            ),
            "db_session_user",
        );
    }

    #[pg_test]
    fn log_renamed() {
        assert_every_entry_is_lost(
            "ALTER TABLE lead_audit.entry RENAME TO entry_elsewhere",
            "missing",
        );
    }

    #[pg_test]
    fn id_sequence_renamed() {
        assert_every_entry_is_lost(
            "ALTER SEQUENCE lead_audit.entry_id_seq RENAME TO elsewhere",
            "missing",
        );
    }

    #[pg_test]
    fn id_sequence_dropped() {
        assert_every_entry_is_lost(
            "ALTER EXTENSION lead_audit DROP SEQUENCE lead_audit.entry_id_seq; SET LOCAL client_min_messages = error;
             ALTER SEQUENCE lead_audit.entry_id_seq OWNED BY NONE; ALTER EXTENSION lead_audit DROP VIEW lead_audit.stats;
             DROP SEQUENCE lead_audit.entry_id_seq CASCADE",
            "missing",
        );
    }

    #[pg_test]
    fn id_sequence_exhausted() {
        assert_every_entry_is_lost(
            "DO $$ BEGIN PERFORM nextval('lead_audit.entry_id_seq');
                 EXECUTE format('ALTER SEQUENCE lead_audit.entry_id_seq MAXVALUE %s', (SELECT last_value
                 FROM lead_audit.entry_id_seq)); END $$",
            "reached maximum value",
        );
    }

    /// After a restore that omits the sequence of the ids, the sequence gives ids that entries
    /// already have.
    #[pg_test]
    fn id_sequence_gives_ids_that_are_taken() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('1'), ('2'), ('3')");
        let before = not_written();
        run(
            "SELECT setval('lead_audit.entry_id_seq', (SELECT min(id) FROM lead_audit.entry) + 1, false)",
        );
        // The new entries get the next ids that are free.
        let said = warnings(|| run("UPDATE leads SET email = 'x'"));
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(not_written(), before);
        assert_eq!(log("operation"), ["INSERT", "INSERT", "INSERT", "UPDATE", "UPDATE", "UPDATE"]);
        assert_eq!(one("SELECT count(*) FROM leads WHERE email = 'x'"), "3");
        // The sequence has given out the ids of two old entries a second time. These entries look
        // as if somebody had inserted them by hand, so verify() reports them as inserted.
        assert_eq!(rows("SELECT fault FROM lead_audit.verify()"), ["inserted", "inserted"]);
    }

    #[pg_test]
    fn counts_exactly() {
        begin_with_leads();
        run(
            "ALTER TABLE lead_audit.entry ADD CONSTRAINT odd_only CHECK (coalesce((row_key->>'id')::int % 2, 1) = 1)",
        );
        let before = not_written();
        let said = warnings(|| {
            run("INSERT INTO leads (id) SELECT g::text FROM generate_series(1, 101) g;
                     UPDATE leads SET email = 'x' WHERE id::int > 90; DELETE FROM leads");
        });
        assert_eq!(not_written(), before + 50 + 5 + 50);
        assert_eq!(said.len(), 105);
        assert_eq!(
            one("SELECT count(*), count(*) FILTER (WHERE (row_key->>'id')::int % 2 = 0)
             FROM lead_audit.log"),
            "108 | 0"
        );
        assert_intact();
    }

    /// Unwritten entries are counted exactly, also if a trigger makes the write, and also within a
    /// block with EXCEPTION.
    #[pg_test]
    fn within_blocks_and_triggers() {
        begin_with_leads();
        run("ALTER TABLE lead_audit.entry ADD CONSTRAINT no_bad CHECK (coalesce(row_key->>'id', '') NOT LIKE 'bad%');
             CREATE TABLE side (id text PRIMARY KEY); SELECT lead_audit.enable('side');
             CREATE FUNCTION aside() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               BEGIN INSERT INTO side VALUES ('bad ' || NEW.id), ('good ' || NEW.id); EXCEPTION WHEN others THEN NULL; END;
               RETURN NULL; END $$;
             CREATE TRIGGER zz AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION aside()");
        let before = not_written();
        run("INSERT INTO leads (id) VALUES ('1'), ('bad'), ('3')");
        let mut written = log("table_name, row_key->>'id'");
        written.sort();
        assert_eq!(
            written,
            ["leads | 1", "leads | 3", "side | good 1", "side | good 3", "side | good bad"]
        );
        assert_eq!(one("SELECT count(*) FROM side"), "6");
        assert_eq!(not_written(), before + 4);
        assert_intact();
    }

    #[pg_test]
    fn truncate_ddl_and_baseline() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('1'), ('2');
             ALTER TABLE lead_audit.entry ADD CONSTRAINT no_ddl
             CHECK (operation NOT IN ('DDL', 'TRUNCATE') AND (operation <> 'SNAPSHOT' OR row_key->>'id' <> '2')) NOT VALID");
        let before = not_written();
        let said = warnings(|| {
            run("ALTER TABLE leads DISABLE TRIGGER \"00_lead_audit_row\";
                 ALTER TABLE leads ENABLE TRIGGER \"00_lead_audit_row\"")
        });
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said.iter()
                .all(|w| w.contains("DDL") && w.contains("public.leads") && w.contains("no_ddl")),
            "{said:?}"
        );
        let said = warnings(|| run("SELECT lead_audit.enable('leads', baseline => true)"));
        assert!(
            said.len() == 1 && said[0].contains("SNAPSHOT") && said[0].contains(r#"{"id":"2"}"#),
            "{said:?}"
        );
        let said = warnings(|| run("TRUNCATE leads"));
        assert!(said.len() == 1 && said[0].contains("TRUNCATE of public.leads"), "{said:?}");
        assert_eq!(not_written(), before + 4);
        assert_eq!(log("operation, row_key->>'id'"), ["INSERT | 1", "INSERT | 2", "SNAPSHOT | 1"]);
        run("SET LOCAL lead_audit.on_error = abort");
        for statement in [
            "ALTER TABLE leads DISABLE TRIGGER \"00_lead_audit_row\"",
            "SELECT lead_audit.disable('leads')",
            "DROP TABLE leads",
            "TRUNCATE leads",
        ] {
            assert_fails(statement, "23514", "no_ddl");
        }
        assert_eq!(rows("SELECT row_trigger_on, state FROM lead_audit.watched"), ["true | on"]);
    }

    /// The message about an unwritten entry has a limited length, even if the row key is long.
    #[pg_test]
    fn warning_of_a_long_key() {
        begin_with_leads();
        run("ALTER TABLE lead_audit.entry ADD CONSTRAINT never CHECK (false) NOT VALID");
        let said = warnings(|| run("INSERT INTO leads (id) VALUES (repeat('é', 2000))"));
        assert!(said.len() == 1 && said[0].contains("ééé") && said[0].len() < 3000, "{said:?}");
        assert_eq!(one("SELECT count(*) FROM leads"), "1");
    }

    /// Entries can still be written after a column is added at the end of the log's table.
    #[pg_test]
    fn not_for_an_additional_column() {
        begin_with_leads();
        run("ALTER TABLE lead_audit.entry ADD COLUMN note text;
                 INSERT INTO leads (id) SELECT g::text FROM generate_series(1, 20) g; UPDATE leads SET email = 'x'");
        assert_eq!(one("SELECT count(*), count(note) FROM lead_audit.entry"), "40 | 0");
        assert_intact();
    }

    #[pg_test]
    fn cancel_is_not_swallowed() {
        begin_with_leads();
        run("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid());
             PERFORM pg_sleep(5); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON lead_audit.entry FOR EACH ROW EXECUTE FUNCTION slow()");
        let before = not_written();
        run("DO $$ BEGIN INSERT INTO leads (id) VALUES ('a'); RAISE 'the cancel was swallowed';
                 EXCEPTION WHEN query_canceled THEN NULL; END $$");
        assert_eq!(one("SELECT count(*) FROM leads"), "0");
        assert_eq!(not_written(), before);
    }
}
