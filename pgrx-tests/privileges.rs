//! Tests the rights of roles. The writes of every role are recorded, and the writing role needs no
//! rights in the schema lead_audit. The application's role owns the watched table. The
//! application's role can neither read nor change the audit trail, and cannot end the watching of
//! its table. UPDATE, DELETE and TRUNCATE of entries fail, even for a superuser. A reader needs
//! USAGE on the schema lead_audit and EXECUTE on its functions, but no rights on tables.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    fn begin_with_clerk() {
        begin_with_leads();
        run(
            "CREATE ROLE clerk; ALTER TABLE leads OWNER TO clerk; GRANT CREATE ON SCHEMA public TO clerk",
        );
    }

    fn assert_still_recorded() {
        let before = number("SELECT count(*) FROM lead_audit.entry");
        run_as(
            "clerk",
            "INSERT INTO leads (id) VALUES ('still'); UPDATE leads SET email = 'x' WHERE id = 'still';
                 DELETE FROM leads WHERE id = 'still'; TRUNCATE leads",
        );
        assert_eq!(
            number("SELECT count(*) FROM lead_audit.entry"),
            before + 4,
            "{:?}",
            log("operation, statement")
        );
        assert_eq!(
            rows("SELECT state, row_trigger_on, truncate_trigger_on FROM lead_audit.watched"),
            ["on | true | true"]
        );
    }

    #[pg_test]
    fn writer_needs_no_rights() {
        begin_with_clerk();
        run_as(
            "clerk",
            "INSERT INTO leads (id) VALUES ('a'); UPDATE leads SET id = 'b'; TRUNCATE leads",
        );
        assert_eq!(
            log("operation, db_current_user"),
            ["INSERT | clerk", "UPDATE | clerk", "TRUNCATE | clerk"]
        );
        assert_intact();
    }

    #[pg_test]
    fn application_cannot_touch_the_trail() {
        begin_with_clerk();
        run_as("clerk", "INSERT INTO leads (id) VALUES ('a')");
        let objects = rows(
            "SELECT relname FROM pg_class WHERE relnamespace = 'lead_audit'::regnamespace AND relkind IN ('r', 'v')",
        );
        assert!(objects.len() >= 6, "{objects:?}");
        // The first pass of this loop runs while the role `clerk` has no right on the two schemas.
        // In the second pass, `clerk` has USAGE on them.
        for grant in ["", "GRANT USAGE ON SCHEMA lead_audit, lead_audit_internal TO clerk"] {
            run(grant);
            for object in &objects {
                assert_fails_as(
                    "clerk",
                    &format!("SELECT * FROM lead_audit.{object}"),
                    "42501",
                    "permission denied",
                );
            }
            for statement in [
                "INSERT INTO lead_audit.entry SELECT * FROM lead_audit.entry",
                "UPDATE lead_audit.entry SET user_id = 'x'",
                "DELETE FROM lead_audit.entry",
                "TRUNCATE lead_audit.entry",
                "DELETE FROM lead_audit.watch",
                "UPDATE lead_audit.watch SET state = 'off'",
                "SELECT nextval('lead_audit.entry_id_seq')",
                "SELECT lead_audit.enable('leads')",
                "SELECT lead_audit.disable('leads')",
                "SELECT lead_audit.verify()",
                "SELECT lead_audit.verify_entry(1)",
                "SELECT lead_audit.history('leads', 'a')",
                "SELECT lead_audit.history('leads', '{\"id\": \"a\"}'::jsonb)",
                "SELECT lead_audit.summary('leads', 'a')",
                "SELECT lead_audit_internal.write_ddl(NULL, NULL, 'public', 'leads', 'forged')",
                "SELECT lead_audit_internal.write_baseline('leads', gen_random_uuid(), '')",
                "SELECT lead_audit_internal.note_state(NULL, 'off', 0)",
                "SELECT lead_audit_internal.after_ddl(false)",
                "SELECT lead_audit_internal.after_drop()",
                "SELECT lead_audit_internal.watch_leads()",
                "CREATE TRIGGER mine AFTER INSERT ON leads FOR EACH ROW
                     EXECUTE FUNCTION lead_audit.capture('00112233-4455-6677-8899-aabbccddeeff', '')",
                "CREATE TABLE lead_audit.mine ()",
            ] {
                assert_fails_as("clerk", statement, "42501", "permission denied");
            }
            assert_fails_as(
                "clerk",
                "ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only",
                "42501",
                if grant.is_empty() { "permission denied" } else { "must be owner" },
            );
            assert_fails_as("clerk", "DROP EXTENSION lead_audit CASCADE", "42501", "must be owner");
            assert_fails_as("clerk", "DROP EVENT TRIGGER lead_audit_ddl", "42501", "must be owner");
            assert_fails_as(
                "clerk",
                "ALTER EVENT TRIGGER lead_audit_drop DISABLE",
                "42501",
                "must be owner",
            );
            assert_fails_as(
                "clerk",
                "SET session_replication_role = replica",
                "42501",
                "permission denied",
            );
        }
        assert_eq!(log("operation"), ["INSERT"]);
    }

    #[pg_test]
    fn owner_cannot_end_the_watching() {
        begin_with_clerk();
        run(
            "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        );
        for statement in [
            "ALTER TABLE leads DISABLE TRIGGER \"00_lead_audit_row\"",
            "ALTER TABLE leads DISABLE TRIGGER \"00_lead_audit_truncate\"",
            "ALTER TABLE leads DISABLE TRIGGER USER",
            "ALTER TABLE leads ENABLE REPLICA TRIGGER \"00_lead_audit_row\"",
            "ALTER TABLE leads ADD COLUMN more int, DISABLE TRIGGER \"00_lead_audit_row\"",
            "DROP TRIGGER \"00_lead_audit_row\" ON leads",
            "DROP TRIGGER \"00_lead_audit_truncate\" ON leads",
            "CREATE OR REPLACE TRIGGER \"00_lead_audit_row\" AFTER INSERT OR UPDATE OR DELETE ON leads FOR EACH ROW
                 EXECUTE FUNCTION nothing()",
            "CREATE OR REPLACE TRIGGER \"00_lead_audit_truncate\" BEFORE TRUNCATE ON leads FOR EACH STATEMENT
                 EXECUTE FUNCTION nothing()",
            "CREATE OR REPLACE TRIGGER \"00_lead_audit_row\" AFTER INSERT ON leads FOR EACH ROW WHEN (false)
                 EXECUTE FUNCTION nothing()",
            "DO 'BEGIN ALTER TABLE leads DISABLE TRIGGER USER; END'",
        ] {
            assert_fails_as("clerk", statement, "42501", "permission denied to disable the audit triggers");
            assert_eq!(log("1"), [""; 0], "{statement}");
        }
        assert_still_recorded();
        assert_intact();
    }

    /// An owner who has renamed an audit trigger still cannot drop or disable it.
    #[pg_test]
    fn owner_cannot_end_the_watching_by_renaming_a_trigger() {
        begin_with_clerk();
        for trigger in ["00_lead_audit_row", "00_lead_audit_truncate"] {
            for end in ["DROP TRIGGER other ON leads", "ALTER TABLE leads DISABLE TRIGGER other"] {
                let outcome = failure_as(
                    "clerk",
                    &format!(
                        "DO $$ BEGIN ALTER TRIGGER \"{trigger}\" ON leads RENAME TO other; {end}; END $$"
                    ),
                );
                assert!(
                    outcome.starts_with("42501"),
                    "{trigger} under another name: {end}: {outcome}"
                );
            }
        }
        assert_still_recorded();
    }

    #[pg_test]
    fn owner_cannot_end_the_watching_of_a_partition() {
        begin();
        run("CREATE ROLE clerk; CREATE TABLE p (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); ALTER TABLE p OWNER TO clerk;
             ALTER TABLE p1 OWNER TO clerk;
             SELECT lead_audit.enable('p')");
        assert_fails_as(
            "clerk",
            "ALTER TABLE p1 DISABLE TRIGGER USER",
            "42501",
            "permission denied to disable",
        );
        assert_fails_as(
            "clerk",
            "ALTER TABLE p DISABLE TRIGGER USER",
            "42501",
            "permission denied to disable",
        );
        let before = number("SELECT count(*) FROM lead_audit.entry");
        let outcome = failure_as("clerk", "ALTER TABLE p DETACH PARTITION p1");
        assert!(
            outcome.starts_with("42501")
                || number("SELECT count(*) FROM lead_audit.entry") > before,
            "a partition was taken out of the watching and nobody noticed"
        );
    }

    #[pg_test]
    fn owner_can_do_everything_else() {
        begin_with_clerk();
        run_as(
            "clerk",
            "ALTER TABLE leads ADD COLUMN more int; CREATE INDEX ON leads (email); ALTER TABLE leads RENAME COLUMN more TO less;
             CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER own AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION nothing();
             ALTER TABLE leads DISABLE TRIGGER own;
             ALTER TABLE leads ENABLE TRIGGER own; ALTER TRIGGER own ON leads RENAME TO own2; DROP TRIGGER own2 ON leads;
             CREATE TABLE mine (id int); ALTER TABLE mine DISABLE TRIGGER ALL; DROP TABLE mine;
             ALTER TABLE leads DROP COLUMN less;
             INSERT INTO leads (id) VALUES ('a')",
        );
        // Each DDL command that changes a column of the table has an entry.
        assert_eq!(
            log("operation, db_current_user"),
            ["DDL | clerk", "DDL | clerk", "DDL | clerk", "INSERT | clerk"]
        );
        assert_still_recorded();
    }

    #[pg_test]
    fn trail_is_append_only_for_its_owner() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a')");
        for role in ["origin", "replica", "local"] {
            run(&format!("SET LOCAL session_replication_role = {role}"));
            for statement in [
                "UPDATE lead_audit.entry SET user_id = 'x'",
                "UPDATE lead_audit.entry SET user_id = 'x' WHERE false",
                "DELETE FROM lead_audit.entry",
                "TRUNCATE lead_audit.entry",
                "TRUNCATE lead_audit.entry CASCADE",
                "MERGE INTO lead_audit.entry e USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
                "WITH gone AS (DELETE FROM lead_audit.entry RETURNING 1) SELECT * FROM gone",
                "INSERT INTO lead_audit.entry SELECT * FROM lead_audit.entry ON CONFLICT (id) DO UPDATE SET user_id = 'x'",
            ] {
                assert_fails(statement, "42501", "append-only");
            }
        }
        run("SET LOCAL session_replication_role = origin");
        assert!(failure("UPDATE lead_audit.log SET user_id = 'x'") != "no error");
        assert_eq!(log("operation, user_id"), ["INSERT | NULL"]);
        assert_intact();
    }

    #[pg_test]
    fn reader_needs_execute_only() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'); UPDATE leads SET email = 'x';
             CREATE ROLE reader; GRANT USAGE ON SCHEMA lead_audit TO reader;
             GRANT EXECUTE ON FUNCTION lead_audit.history(regclass, text), lead_audit.history(regclass, jsonb),
               lead_audit.summary(regclass, text), lead_audit.summary(regclass, jsonb), lead_audit.verify, lead_audit.verify_entry TO reader");
        let first = one("SELECT min(id) FROM lead_audit.entry");
        run("SET LOCAL ROLE reader");
        assert_eq!(
            rows("SELECT operation, diff->'email'->'new' FROM lead_audit.history('leads', 'a')"),
            ["INSERT | NULL", "UPDATE | x"]
        );
        assert_eq!(
            rows(r#"SELECT operation FROM lead_audit.history('leads', '{"id":"a"}'::jsonb)"#),
            ["INSERT", "UPDATE"]
        );
        assert_eq!(
            rows("SELECT total, verified FROM lead_audit.summary('leads', 'a')"),
            ["2 | true"]
        );
        assert_eq!(
            rows(r#"SELECT total, verified FROM lead_audit.summary('leads', '{"id":"a"}'::jsonb)"#),
            ["2 | true"]
        );
        assert_eq!(rows("SELECT * FROM lead_audit.verify()"), [""; 0]);
        assert_eq!(one(&format!("SELECT lead_audit.verify_entry({first})")), "true");
        for statement in [
            "SELECT * FROM lead_audit.entry",
            "SELECT * FROM lead_audit.log",
            "SELECT * FROM leads",
            "SELECT lead_audit.disable('leads')",
        ] {
            assert_fails(statement, "42501", "permission denied");
        }
        run("RESET ROLE");
    }

    #[pg_test]
    fn row_level_security_hides_nothing_from_the_trail() {
        begin_with_clerk();
        run("INSERT INTO leads (id) VALUES ('a'), ('b'); ALTER TABLE leads ENABLE ROW LEVEL SECURITY;
             ALTER TABLE leads FORCE ROW LEVEL SECURITY;
             CREATE POLICY one_row ON leads USING (id = 'a'); GRANT ALL ON leads TO clerk");
        run_as("clerk", "UPDATE leads SET email = 'x'; TRUNCATE leads");
        assert_eq!(
            log("operation, row_key->>'id', details->'row_count'").split_off(2),
            ["UPDATE | a | NULL", "TRUNCATE | NULL | 2"]
        );
        run("INSERT INTO leads (id) VALUES ('a'), ('b'); CREATE ROLE auditor; GRANT USAGE ON SCHEMA lead_audit TO auditor;
             GRANT EXECUTE ON FUNCTION lead_audit.enable(regclass, name, boolean) TO auditor");
        run_as("auditor", "SELECT lead_audit.enable('leads', baseline => true)");
        assert_eq!(one("SELECT count(*) FROM lead_audit.log WHERE operation = 'SNAPSHOT'"), "2");
    }

    /// An entry contains the complete row, even if the writing role has rights on some of the
    /// columns only.
    #[pg_test]
    fn column_privileges_do_not_narrow_the_entry() {
        begin_with_leads();
        run("INSERT INTO leads (id, email) VALUES ('a', 'secret'); CREATE ROLE clerk;
                 GRANT SELECT (id), UPDATE (company_name) ON leads TO clerk");
        run_as("clerk", "UPDATE leads SET company_name = 'new' WHERE id = 'a'");
        assert_eq!(
            log("old_values->>'email', new_values->>'company_name'").pop().as_deref(),
            Some("secret | new")
        );
    }
}
