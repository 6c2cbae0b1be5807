//! DDL that changes or ends the watching of a table, or changes the table's columns, key or name, is an entry; other DDL is
//! none. What lead_audit.watched says is what the triggers really are. Names can change: the identity stays, and the history with it.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::trail::*;
    use pgrx::prelude::*;

    const WATCHED: &str = "SELECT relation, row_trigger_on, truncate_trigger_on, state FROM lead_audit.watched";

    #[pg_test]
    fn ddl_guard_disabled_trigger() {
        begin_with_leads();
        run("SET LOCAL lead_audit.user_id = 'dba'; ALTER TABLE leads DISABLE TRIGGER \"00_lead_audit_row\"");
        assert_eq!(rows(WATCHED), ["leads | false | true | disabled"]);
        run("INSERT INTO leads (id) VALUES ('unseen'); TRUNCATE leads; ALTER TABLE leads ENABLE TRIGGER \"00_lead_audit_row\"");
        assert_eq!(rows(WATCHED), ["leads | true | true | on"]);
        run("INSERT INTO leads (id) VALUES ('seen')");
        assert_eq!(
            log("operation, table_schema, table_name, relation = 'leads'::regclass, user_id"),
            [
                "DDL | public | leads | true | dba",
                "TRUNCATE | public | leads | true | dba",
                "DDL | public | leads | true | dba",
                "INSERT | public | leads | true | dba"
            ]
        );
        assert_eq!(one("SELECT count(DISTINCT watch_id) FROM lead_audit.entry"), "1");
        assert!(holds(
            "SELECT bool_and(statement = current_query() AND row_key IS NULL AND new_values IS NULL) FROM lead_audit.log
                 WHERE operation = 'DDL'"
        ));
        assert_intact();
    }

    #[pg_test]
    fn ddl_guard_disabled_in_every_way() {
        begin_with_leads();
        for (off, state) in [
            ("DISABLE TRIGGER ALL", "leads | false | false | disabled"),
            ("DISABLE TRIGGER USER", "leads | false | false | disabled"),
            ("ENABLE REPLICA TRIGGER \"00_lead_audit_row\"", "leads | false | true | disabled"),
            ("DISABLE TRIGGER \"00_lead_audit_truncate\", ADD COLUMN more int", "leads | true | false | disabled"),
        ] {
            let before = number("SELECT count(*) FROM lead_audit.log");
            run(&format!("ALTER TABLE leads {off}"));
            assert_eq!(rows(WATCHED), [state], "{off}");
            assert_eq!(number("SELECT count(*) FROM lead_audit.log"), before + 1, "{off}");
            run("ALTER TABLE leads ENABLE TRIGGER ALL");
            assert_eq!(rows(WATCHED), ["leads | true | true | on"], "{off}");
            assert_eq!(number("SELECT count(*) FROM lead_audit.log"), before + 2, "{off}");
        }
        run("ALTER TABLE leads ENABLE ALWAYS TRIGGER \"00_lead_audit_row\"; SET LOCAL session_replication_role = replica;
                 INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(log("operation").pop().as_deref(), Some("INSERT"));
    }

    #[pg_test]
    fn ddl_guard_enable_repairs_what_was_disabled_or_dropped() {
        begin_with_leads();
        let identity = one("SELECT watch_id FROM lead_audit.watch");
        for damage in [
            "ALTER TABLE leads DISABLE TRIGGER ALL",
            "DROP TRIGGER \"00_lead_audit_row\" ON leads",
            "DROP TRIGGER \"00_lead_audit_truncate\" ON leads",
            "DROP TRIGGER \"00_lead_audit_truncate\" ON leads; DROP TRIGGER \"00_lead_audit_row\" ON leads",
            "CREATE OR REPLACE TRIGGER \"00_lead_audit_row\" AFTER INSERT ON leads FOR EACH ROW
                 EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "ALTER TRIGGER \"00_lead_audit_row\" ON leads RENAME TO zz",
        ] {
            run(damage);
            assert_eq!(one("SELECT lead_audit.enable('leads')"), identity, "{damage}");
            assert_eq!(rows(WATCHED), ["leads | true | true | on"], "{damage}");
            let before = number("SELECT count(*) FROM lead_audit.log");
            run("INSERT INTO leads (id) VALUES ('a'); TRUNCATE leads");
            assert_eq!(number("SELECT count(*) FROM lead_audit.log"), before + 2, "{damage}");
            assert_eq!(one("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'leads'::regclass"), "2", "{damage}");
        }
    }

    #[pg_test]
    fn ddl_guard_dropped_trigger() {
        begin_with_leads();
        run("DROP TRIGGER \"00_lead_audit_row\" ON leads");
        assert_eq!(rows(WATCHED), ["leads | false | true | disabled"]);
        assert_eq!(log("operation, table_name"), ["DDL | leads"]);
        run("DROP TRIGGER \"00_lead_audit_truncate\" ON leads");
        assert_eq!(rows(WATCHED), ["public.leads | false | false | disabled"]);
        run("DROP TABLE leads");
        assert_eq!(rows(WATCHED), [""; 0], "the table is gone");
        assert_intact();
    }

    /// It records still, but nobody looks after it under that name: it counts as switched off.
    #[pg_test]
    fn ddl_guard_renamed_audit_trigger() {
        begin_with_leads();
        run("ALTER TRIGGER \"00_lead_audit_row\" ON leads RENAME TO other");
        assert_eq!(rows(WATCHED), ["leads | false | true | disabled"]);
        assert_eq!(log("operation, table_name"), ["DDL | leads"]);
        run("ALTER TRIGGER other ON leads RENAME TO \"00_lead_audit_row\"");
        assert_eq!(rows(WATCHED), ["leads | true | true | on"]);
        assert_eq!(log("operation, table_name"), ["DDL | leads", "DDL | leads"]);
        run("INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(rows("SELECT operation FROM lead_audit.history('leads', 'a')"), ["INSERT"]);
    }

    #[pg_test]
    fn ddl_guard_replaced_trigger() {
        begin_with_leads();
        run("CREATE OR REPLACE TRIGGER \"00_lead_audit_row\" AFTER INSERT ON leads FOR EACH ROW
                 EXECUTE FUNCTION suppress_redundant_updates_trigger()");
        assert_eq!(rows(WATCHED), ["leads | false | true | disabled"]);
        assert_eq!(log("operation"), ["DDL"]);
    }

    /// The function is the right one, and yet most is not recorded.
    #[pg_test]
    fn ddl_guard_narrowed_trigger() {
        begin_with_leads();
        let identity = one("SELECT watch_id FROM lead_audit.watch");
        for (events, condition) in [
            ("AFTER INSERT", ""),
            ("AFTER INSERT OR UPDATE OF email OR DELETE", ""),
            ("AFTER INSERT OR UPDATE", "WHEN (NEW.id = 'only this')"),
        ] {
            run(&format!(
                "CREATE OR REPLACE TRIGGER \"00_lead_audit_row\" {events} ON leads FOR EACH ROW {condition}
                 EXECUTE FUNCTION lead_audit.capture('{identity}', 'is_deleted')"
            ));
            assert_eq!(rows(WATCHED), ["leads | false | true | disabled"], "{events} {condition}");
            run("SELECT lead_audit.enable('leads')");
            let before = number("SELECT count(*) FROM lead_audit.log");
            run("INSERT INTO leads (id) VALUES ('a'); UPDATE leads SET company_name = 'x'; DELETE FROM leads");
            assert_eq!(number("SELECT count(*) FROM lead_audit.log"), before + 3, "{events} {condition}: repaired by enable()");
        }
    }

    #[pg_test]
    fn ddl_guard_dropped_table() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a')");
        let relation = one("SELECT 'leads'::regclass::oid");
        run("DROP TABLE leads");
        assert_eq!(
            log("operation, table_schema, table_name, relation"),
            [format!("INSERT | public | leads | {relation}"), format!("DDL | public | leads | {relation}")]
        );
        assert_eq!(rows(WATCHED), [""; 0]);
        assert_eq!(rows("SELECT state, ended_at IS NOT NULL FROM lead_audit.watch"), ["dropped | true"]);
        // Another table of the same name is another table.
        run("CREATE TABLE leads (id varchar PRIMARY KEY); SELECT lead_audit.enable('leads'); INSERT INTO leads VALUES ('a')");
        assert_eq!(one("SELECT count(DISTINCT watch_id) FROM lead_audit.entry"), "2");
        assert_eq!(rows("SELECT operation FROM lead_audit.history('leads', 'a')"), ["INSERT"]);
        assert_intact();
    }

    #[pg_test]
    fn ddl_guard_dropped_with_schema_or_owner() {
        begin();
        run("CREATE SCHEMA crm; CREATE TABLE crm.a (id int PRIMARY KEY); CREATE TABLE crm.b (id int PRIMARY KEY);
             SELECT lead_audit.enable('crm.a'), lead_audit.enable('crm.b'); SET LOCAL client_min_messages = warning;
             DROP SCHEMA crm CASCADE");
        let mut entries = log("operation, table_schema, table_name");
        entries.sort();
        assert_eq!(entries, ["DDL | crm | a", "DDL | crm | b"]);
        run("CREATE ROLE clerk; CREATE TABLE c (id int PRIMARY KEY); ALTER TABLE c OWNER TO clerk;
                 SELECT lead_audit.enable('c'); DROP OWNED BY clerk");
        assert_eq!(log("operation, table_name").pop().as_deref(), Some("DDL | c"));
        assert_eq!(rows(WATCHED), [""; 0]);
    }

    #[pg_test]
    fn ddl_guard_dropped_by_its_owner_is_an_entry_of_his() {
        begin_with_leads();
        run("CREATE ROLE clerk; ALTER TABLE leads OWNER TO clerk");
        run_as("clerk", "DROP TABLE leads");
        assert_eq!(log("operation, table_name, db_current_user"), ["DDL | leads | clerk"]);
    }

    #[pg_test]
    fn ddl_guard_renamed_table() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'); ALTER TABLE leads RENAME TO prospects; UPDATE prospects SET email = 'x'");
        assert_eq!(rows(WATCHED), ["prospects | true | true | on"]);
        assert_eq!(rows("SELECT table_schema, table_name FROM lead_audit.watch"), ["public | prospects"]);
        assert_eq!(
            rows("SELECT operation, table_name FROM lead_audit.history('prospects', 'a')"),
            ["INSERT | leads", "UPDATE | prospects"]
        );
        // Who takes the old name does not take the history.
        run("CREATE TABLE leads (id varchar PRIMARY KEY); SELECT lead_audit.enable('leads')");
        assert_eq!(rows("SELECT 1 FROM lead_audit.history('leads', 'a')"), [""; 0]);
        assert_eq!(one("SELECT count(*) FROM lead_audit.watched"), "2");
        assert_intact();
    }

    #[pg_test]
    fn ddl_guard_renamed_after_disable() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'); SELECT lead_audit.disable('leads'); ALTER TABLE leads RENAME TO prospects");
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('prospects', 'a')"),
            ["INSERT"],
            "the trail stays that of the table"
        );
    }

    #[pg_test]
    fn ddl_guard_moved_table() {
        begin_with_leads();
        run("CREATE SCHEMA crm; INSERT INTO leads (id) VALUES ('a'); ALTER TABLE leads SET SCHEMA crm;
             UPDATE crm.leads SET email = 'x';
             ALTER SCHEMA crm RENAME TO sales; UPDATE sales.leads SET email = 'y'");
        assert_eq!(rows(WATCHED), ["sales.leads | true | true | on"]);
        assert_eq!(rows("SELECT table_schema, table_name FROM lead_audit.watch"), ["sales | leads"]);
        assert_eq!(
            rows("SELECT operation, table_schema FROM lead_audit.history('sales.leads', 'a')"),
            ["INSERT | public", "UPDATE | crm", "UPDATE | sales"]
        );
        run("DROP TABLE sales.leads");
        assert_eq!(log("operation, table_schema").pop().as_deref(), Some("DDL | sales"));
    }

    #[pg_test]
    fn ddl_guard_partition_taken_out_and_put_in() {
        begin();
        run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             SELECT lead_audit.enable('p'); INSERT INTO p VALUES (1);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             INSERT INTO p VALUES (11); INSERT INTO p2 VALUES (12)");
        assert_eq!(log("operation, table_name"), ["INSERT | p1", "INSERT | p2", "INSERT | p2"]);
        run("ALTER TABLE p2 DISABLE TRIGGER ALL");
        assert_eq!(rows("SELECT relation, row_trigger_on, state FROM lead_audit.watched"), ["p | false | disabled"]);
        run("ALTER TABLE p2 ENABLE TRIGGER ALL");
        assert_eq!(rows("SELECT relation, row_trigger_on, state FROM lead_audit.watched"), ["p | true | on"]);
        let before = number("SELECT count(*) FROM lead_audit.log");
        run("ALTER TABLE p DETACH PARTITION p1");
        assert_eq!(number("SELECT count(*) FROM lead_audit.log"), before + 1, "rows went out of the watching");
    }

    #[pg_test]
    fn ddl_guard_dropped_partition() {
        begin();
        run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             SELECT lead_audit.enable('p'); INSERT INTO p VALUES (1); DROP TABLE p1");
        assert_eq!(log("operation"), ["INSERT", "DDL"], "rows of a watched table are gone");
        assert_eq!(rows("SELECT relation, row_trigger_on, state FROM lead_audit.watched"), ["p | true | on"]);
    }

    #[pg_test]
    fn ddl_guard_renamed_soft_delete_column() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'); ALTER TABLE leads RENAME COLUMN is_deleted TO gone;
                 UPDATE leads SET gone = true");
        assert_eq!(log("operation, soft_delete"), ["INSERT | NULL", "DDL | NULL", "UPDATE | deleted"]);
        assert_eq!(rows("SELECT soft_delete_column FROM lead_audit.watched"), ["gone"]);
    }

    #[pg_test]
    fn ddl_guard_is_silent_about_everything_else() {
        begin_with_leads();
        run("ALTER TABLE leads ALTER email SET DEFAULT 'x'; ALTER TABLE leads ALTER email SET STATISTICS 10;
             ALTER TABLE leads ADD CHECK (email <> 'y'); ALTER TABLE leads ENABLE ROW LEVEL SECURITY;
             CREATE INDEX i ON leads (email); DROP INDEX i; CREATE VIEW v AS SELECT id FROM leads; DROP VIEW v;
             CREATE TABLE other (id int); ALTER TABLE other RENAME TO another; DROP TABLE another; CREATE SCHEMA s;
             DROP SCHEMA s;
             CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER own AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION nothing();
             ALTER TABLE leads DISABLE TRIGGER own; DROP TRIGGER own ON leads;
             SELECT lead_audit.enable('leads')");
        assert_eq!(log("operation"), [""; 0]);
        assert_eq!(rows(WATCHED), ["leads | true | true | on"]);
    }

    #[pg_test]
    fn ddl_guard_is_itself_guarded_by_superusers_rights_only() {
        begin_with_leads();
        assert_eq!(
            rows("SELECT evtname, evtevent, evtenabled FROM pg_event_trigger WHERE evtname LIKE 'lead%' ORDER BY 1"),
            [
                "lead_audit_ddl | ddl_command_end | A",
                "lead_audit_drop | sql_drop | A",
                "lead_audit_start | ddl_command_start | A"
            ]
        );
        assert_fails("DROP EVENT TRIGGER lead_audit_drop", "2BP01", "requires it");
    }
}
