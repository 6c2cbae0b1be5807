//! What a table's owner, or a DBA's own trigger on the log, could do to the trail or to the server: each was possible once.
//! The attacker is the role clerk, who owns the watched table and has no right in schema lead_audit.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::trail::*;
    use pgrx::prelude::*;

    fn begin_with_clerk() {
        begin_with_leads();
        run("CREATE ROLE clerk; ALTER TABLE leads OWNER TO clerk; GRANT CREATE ON SCHEMA public TO clerk");
    }

    /// A domain's check runs wherever a value of it is made: in history() and the baseline too, which have more rights.
    #[pg_test]
    fn attacks_code_of_the_owner_gains_no_rights() {
        begin_with_clerk();
        run_as(
            "clerk",
            "CREATE FUNCTION spy(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
               IF current_user <> 'clerk' THEN RAISE EXCEPTION 'runs as %', current_user; END IF; RETURN true; END $$;
             CREATE DOMAIN spied AS varchar CHECK (spy(value)); ALTER TABLE leads ALTER id TYPE spied;
             CREATE TYPE mood AS ENUM ('ok');
             CREATE FUNCTION told(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
               RETURN to_json(current_user::text); END $$;
             CREATE TABLE moods (id int PRIMARY KEY, m mood); INSERT INTO moods VALUES (1, 'ok');
             INSERT INTO leads (id) VALUES ('a')",
        );
        run("CREATE CAST (mood AS json) WITH FUNCTION told(mood)");
        assert_eq!(rows("SELECT operation FROM lead_audit.history('leads', 'a')"), ["INSERT"]);
        assert_eq!(one("SELECT verified FROM lead_audit.summary('leads', 'a')"), "true");
        run("SELECT lead_audit.enable('moods', baseline => true)");
        assert_eq!(one("SELECT new_values->>'m' FROM lead_audit.history('moods', '1')"), "clerk");
    }

    /// ALTER INDEX … RENAME takes tables as well.
    #[pg_test]
    fn attacks_rename_before_the_drop() {
        begin_with_clerk();
        let statements = "ALTER INDEX leads RENAME TO leads2; DROP TRIGGER \"00_lead_audit_row\" ON leads2";
        assert_fails_as("clerk", statements, "42501", "permission denied to disable");
    }

    /// Replacing the trigger of a partitioned table replaces those of its partitions.
    #[pg_test]
    fn attacks_replace_the_trigger_from_above() {
        begin_with_clerk();
        run_as(
            "clerk",
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TABLE above (LIKE leads INCLUDING ALL) PARTITION BY LIST (id);
             ALTER TABLE above ATTACH PARTITION leads DEFAULT",
        );
        assert_fails_as(
            "clerk",
            "CREATE OR REPLACE TRIGGER \"00_lead_audit_row\" AFTER INSERT ON above FOR EACH ROW EXECUTE FUNCTION nothing()",
            "42501",
            "permission denied to disable",
        );
        run_as("clerk", "INSERT INTO above (id) VALUES ('a'); UPDATE above SET email = 'x'");
        assert_eq!(log("operation"), ["INSERT", "UPDATE"]);
    }

    /// A partition gets its trigger although its owner may not make one, and only so.
    #[pg_test]
    fn attacks_partitions_by_the_owner_are_watched() {
        begin();
        run("CREATE ROLE clerk; GRANT CREATE ON SCHEMA public TO clerk; SET LOCAL ROLE clerk;
             CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); RESET ROLE; SELECT lead_audit.enable('p')");
        run_as(
            "clerk",
            "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 (id int PRIMARY KEY);
             ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20); INSERT INTO p VALUES (1), (11); TRUNCATE p1",
        );
        assert_eq!(log("operation, table_name"), ["DDL | p2", "INSERT | p1", "INSERT | p2", "TRUNCATE | p1"]);
    }

    /// A cast to json that gives the same for all values hides what changed, but not that it did.
    #[pg_test]
    fn attacks_lying_cast_hides_no_update() {
        begin();
        run("CREATE TYPE mood AS ENUM ('a', 'b');
             CREATE FUNCTION told(mood) RETURNS json LANGUAGE sql AS $$ SELECT '\"x\"'::json $$;
             CREATE CAST (mood AS json) WITH FUNCTION told(mood);
             CREATE TABLE t (id int PRIMARY KEY, m mood); SELECT lead_audit.enable('t');
             INSERT INTO t VALUES (1, 'a'); UPDATE t SET m = 'b'");
        assert_eq!(log("operation, diff"), ["INSERT | NULL", r#"UPDATE | {"m": {"new": "x", "old": "x"}}"#]);
    }

    /// A DBA's trigger on the log that writes to a watched table makes a batch within a batch.
    #[pg_test]
    fn attacks_batch_within_a_batch() {
        begin_with_leads();
        run("CREATE TABLE side (id int); SELECT lead_audit.enable('side');
             CREATE FUNCTION nest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.table_name = 'leads' THEN INSERT INTO side VALUES (1); END IF; RETURN NEW; END $$;
             CREATE TRIGGER nest BEFORE INSERT ON lead_audit.entry FOR EACH ROW EXECUTE FUNCTION nest();
             INSERT INTO leads (id) SELECT g FROM generate_series(1, 200) g;
             SET LOCAL lead_audit.on_error = 'abort';
             INSERT INTO leads (id) SELECT g FROM generate_series(201, 400) g;
             DROP TRIGGER nest ON lead_audit.entry");
        assert_eq!(rows("SELECT table_name, count(*) FROM lead_audit.log GROUP BY 1 ORDER BY 1"), ["leads | 400", "side | 400"]);
        assert_intact();
    }

    /// A trigger on the log that returns NULL suppresses the entry, which counts as not written.
    #[pg_test]
    fn attacks_suppressed_entry_is_counted() {
        begin_with_leads();
        let before = number("SELECT entries_not_written FROM lead_audit.stats");
        run("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER swallow BEFORE INSERT ON lead_audit.entry FOR EACH ROW EXECUTE FUNCTION swallow();
             INSERT INTO leads (id) VALUES ('a'), ('b')");
        assert_eq!(number("SELECT entries_not_written FROM lead_audit.stats"), before + 2);
    }

    /// verify() reads columns as what they should be, so it looks at what they are.
    #[pg_test]
    fn attacks_verify_refuses_a_column_of_another_type() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a');
             ALTER TABLE lead_audit.entry RENAME user_id TO former; ALTER TABLE lead_audit.entry ADD user_id int DEFAULT 12345");
        assert_eq!(&failure("SELECT * FROM lead_audit.verify()")[..5], "55000");
    }

    /// Errors that pass the library's hooks keep their fields.
    #[pg_test]
    fn attacks_errors_of_others_stay_whole() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'); CREATE TABLE child (id varchar CONSTRAINT of_lead REFERENCES leads);
             CREATE FUNCTION told() RETURNS text LANGUAGE plpgsql AS $$ DECLARE c text; t text; BEGIN
               INSERT INTO child VALUES ('none'); RETURN 'no error';
             EXCEPTION WHEN foreign_key_violation THEN
               GET STACKED DIAGNOSTICS c = CONSTRAINT_NAME, t = TABLE_NAME; RETURN c || ' of ' || t; END $$");
        assert_eq!(one("SELECT told()"), "of_lead of child");
        run("INSERT INTO leads (id) SELECT g FROM generate_series(1, 10) g");
        assert_eq!(number("SELECT count(*) FROM lead_audit.log"), 11, "batches go on after the error");
    }
}
