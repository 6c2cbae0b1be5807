//! Tests CREATE EXTENSION and DROP EXTENSION, and the objects that CREATE EXTENSION creates: their
//! rights, their search path and their comments. CREATE EXTENSION watches the table `leads`.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

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

    /// CREATE EXTENSION refuses an existing schema lead_audit_internal. The owner of an existing
    /// schema could replace those functions of the schema that run with the rights of a superuser.
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
        // The owner of a watched partitioned table needs the right to execute capture(), because
        // PostgreSQL checks this right when the owner creates a partition. A role with this right
        // still cannot create triggers with capture(), as privileges.rs tests. The views
        // lead_audit.log and lead_audit.stats call the remaining functions in this list as the role
        // that reads the view.
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

    /// The command `\df lead_audit.*` lists only functions that users need or that a dump of
    /// pg_dump names.
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

    /// Each function that is SECURITY DEFINER or not written in C sets its search_path. So the
    /// function finds no object through its caller's search_path.
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
