//! Tests that the DDL guard writes an entry for each DDL command that changes or ends the watching
//! of a table. A DDL command that changes a watched table's columns, key or name also has an entry,
//! and other DDL has none. The view lead_audit.watched shows which audit triggers exist. A renamed
//! table keeps its watch id and its history.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    const WATCHED: &str =
        "SELECT relation, row_trigger_on, truncate_trigger_on, state FROM lead_audit.watched";

    #[pg_test]
    fn disabled_trigger() {
        begin_with_leads();
        run(
            "SET LOCAL lead_audit.user_id = 'dba'; ALTER TABLE leads DISABLE TRIGGER \"00_lead_audit_row\"",
        );
        assert_eq!(rows(WATCHED), ["leads | false | true | disabled"]);
        run(
            "INSERT INTO leads (id) VALUES ('unseen'); TRUNCATE leads; ALTER TABLE leads ENABLE TRIGGER \"00_lead_audit_row\"",
        );
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
    fn disabled_in_every_way() {
        begin_with_leads();
        for (off, state) in [
            ("DISABLE TRIGGER ALL", "leads | false | false | disabled"),
            ("DISABLE TRIGGER USER", "leads | false | false | disabled"),
            ("ENABLE REPLICA TRIGGER \"00_lead_audit_row\"", "leads | false | true | disabled"),
            (
                "DISABLE TRIGGER \"00_lead_audit_truncate\", ADD COLUMN more int",
                "leads | true | false | disabled",
            ),
        ] {
            let before = number("SELECT count(*) FROM lead_audit.log");
            run(&format!("ALTER TABLE leads {off}"));
            assert_eq!(rows(WATCHED), [state], "{off}");
            assert_eq!(number("SELECT count(*) FROM lead_audit.log"), before + 1, "{off}");
            run("ALTER TABLE leads ENABLE TRIGGER ALL");
            assert_eq!(rows(WATCHED), ["leads | true | true | on"], "{off}");
            assert_eq!(number("SELECT count(*) FROM lead_audit.log"), before + 2, "{off}");
        }
    }

    /// Audit triggers stay ENABLE ALWAYS, because only triggers in this mode fire for the writes of
    /// a logical replication subscription.
    #[pg_test]
    fn triggers_stay_always() {
        begin();
        run("CREATE ROLE clerk; GRANT CREATE ON SCHEMA public TO clerk; SET LOCAL ROLE clerk;
             CREATE TABLE plain (id int PRIMARY KEY, is_deleted bool); CREATE TABLE child () INHERITS (plain);
             CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             RESET ROLE; SELECT lead_audit.enable('plain'), lead_audit.enable('p')");
        let kept = "SELECT tgrelid::regclass, tgenabled, encode(tgargs, 'escape') LIKE '%\\\\000origin\\_only\\\\000' FROM pg_trigger
             WHERE tgname LIKE '00_lead_audit%' AND tgrelid::regclass::text = ANY ('{plain,child,p,p1,p2,p3}') ORDER BY tgname, tgrelid::regclass::text";
        let always = |tables: &[&str]| {
            let all: Vec<String> =
                tables.iter().map(|table| format!("{table} | A | true")).collect();
            [&all[..], &all[..]].concat()
        };
        assert_eq!(rows(kept), always(&["child", "p", "p1", "plain"]));
        run_as(
            "clerk",
            "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             CREATE TABLE p3 (id int PRIMARY KEY); ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30)",
        );
        let all = always(&["child", "p", "p1", "p2", "p3", "plain"]);
        assert_eq!(rows(kept), all);
        let before = log("id");
        for command in [
            "ALTER TABLE plain ENABLE TRIGGER ALL",
            "ALTER TABLE child ENABLE TRIGGER USER",
            "ALTER TABLE child ENABLE TRIGGER \"00_lead_audit_truncate\"",
            "ALTER TABLE p ENABLE TRIGGER ALL",
            "ALTER TABLE ONLY p ENABLE TRIGGER \"00_lead_audit_row\"",
            "ALTER TABLE p1 ENABLE TRIGGER ALL",
            "ALTER TABLE p2 ENABLE TRIGGER \"00_lead_audit_row\"",
        ] {
            run_as("clerk", command);
            assert_eq!(rows(kept), all, "{command}");
        }
        assert_eq!(log("id"), before, "the triggers were on all the time");
        run_as("clerk", "ALTER TABLE p DETACH PARTITION p1");
        assert_eq!(rows(kept), all);

        // The test replaces the audit triggers by triggers with plain ENABLE, which a dump of
        // version 1.0 contains. The test replaces the triggers once with the DDL guard active, and
        // once with the DDL guard disabled.
        let old = "DROP TRIGGER \"00_lead_audit_row\" ON plain; DROP TRIGGER \"00_lead_audit_truncate\" ON plain;
             DROP TRIGGER \"00_lead_audit_row\" ON p";
        let identity = |table: &str| {
            one(&format!("SELECT watch_id FROM lead_audit.watched WHERE relation = '{table}'"))
        };
        let (plain, parts) = (identity("plain"), identity("p"));
        let restored = format!(
            "CREATE TRIGGER \"00_lead_audit_row\" AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW EXECUTE FUNCTION lead_audit.capture('{plain}', 'is_deleted');
             CREATE TRIGGER \"00_lead_audit_truncate\" BEFORE TRUNCATE ON plain FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.capture_truncate('{plain}');
             CREATE TRIGGER \"00_lead_audit_row\" AFTER INSERT OR UPDATE OR DELETE ON p FOR EACH ROW EXECUTE FUNCTION lead_audit.capture('{parts}', '')"
        );
        run(&format!("{old}; {restored}"));
        assert_eq!(rows(kept), all);
        run("SELECT lead_audit.enable('plain'), lead_audit.enable('p')");
        run(&format!(
            "ALTER EVENT TRIGGER lead_audit_ddl DISABLE; ALTER EVENT TRIGGER lead_audit_drop DISABLE; {old}; {restored};
             ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS; ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS"
        ));
        assert_ne!(rows(kept), all);
        assert_eq!(
            rows("SELECT DISTINCT * FROM lead_audit.check_watched() ORDER BY 1"),
            ["p", "p2", "p3", "plain"].map(|table| format!("public.{table} | trigger not always"))
        );
        assert_eq!(rows(kept), all);
        assert_eq!(rows("SELECT * FROM lead_audit.check_watched()"), [""; 0]);
        assert_eq!(
            rows(
                "SELECT DISTINCT state, row_trigger_on, truncate_trigger_on FROM lead_audit.watched"
            ),
            ["on | true | true"]
        );
        // While a session has session_replication_role = replica, its own writes have no entries.
        let before = log("id");
        run("SET LOCAL session_replication_role = replica; INSERT INTO plain VALUES (1); INSERT INTO child VALUES (1);
             INSERT INTO p VALUES (11); UPDATE p SET id = 21; DELETE FROM plain; TRUNCATE p");
        assert_eq!(log("id"), before);
        assert_intact();
    }

    #[pg_test]
    fn enable_repairs_what_was_disabled_or_dropped() {
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
            assert_eq!(
                one("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'leads'::regclass"),
                "2",
                "{damage}"
            );
        }
    }

    #[pg_test]
    fn dropped_trigger() {
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

    /// A renamed audit trigger still records writes. But the extension maintains audit triggers
    /// only under their own names, so lead_audit.watched shows the state `disabled` for the table.
    #[pg_test]
    fn renamed_audit_trigger() {
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
    fn replaced_trigger() {
        begin_with_leads();
        run("CREATE OR REPLACE TRIGGER \"00_lead_audit_row\" AFTER INSERT ON leads FOR EACH ROW
                 EXECUTE FUNCTION suppress_redundant_updates_trigger()");
        assert_eq!(rows(WATCHED), ["leads | false | true | disabled"]);
        assert_eq!(log("operation"), ["DDL"]);
    }

    /// Replaces the audit trigger by a trigger that calls the function capture() for some events
    /// only. lead_audit.watched then shows the state `disabled` for the table.
    #[pg_test]
    fn narrowed_trigger() {
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
            run(
                "INSERT INTO leads (id) VALUES ('a'); UPDATE leads SET company_name = 'x'; DELETE FROM leads",
            );
            assert_eq!(
                number("SELECT count(*) FROM lead_audit.log"),
                before + 3,
                "{events} {condition}: repaired by enable()"
            );
        }
    }

    #[pg_test]
    fn dropped_table() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a')");
        let relation = one("SELECT 'leads'::regclass::oid");
        run("DROP TABLE leads");
        assert_eq!(
            log("operation, table_schema, table_name, relation"),
            [
                format!("INSERT | public | leads | {relation}"),
                format!("DDL | public | leads | {relation}")
            ]
        );
        assert_eq!(rows(WATCHED), [""; 0]);
        assert_eq!(
            rows("SELECT state, ended_at IS NOT NULL FROM lead_audit.watch"),
            ["dropped | true"]
        );
        // A new table that has the name of a dropped table does not get the dropped table's watch
        // id.
        run(
            "CREATE TABLE leads (id varchar PRIMARY KEY); SELECT lead_audit.enable('leads'); INSERT INTO leads VALUES ('a')",
        );
        assert_eq!(one("SELECT count(DISTINCT watch_id) FROM lead_audit.entry"), "2");
        assert_eq!(rows("SELECT operation FROM lead_audit.history('leads', 'a')"), ["INSERT"]);
        assert_intact();
    }

    #[pg_test]
    fn dropped_with_schema_or_owner() {
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
    fn drop_by_the_owner_is_an_entry() {
        begin_with_leads();
        run("CREATE ROLE clerk; ALTER TABLE leads OWNER TO clerk");
        run_as("clerk", "DROP TABLE leads");
        assert_eq!(log("operation, table_name, db_current_user"), ["DDL | leads | clerk"]);
    }

    #[pg_test]
    fn renamed_table() {
        begin_with_leads();
        run(
            "INSERT INTO leads (id) VALUES ('a'); ALTER TABLE leads RENAME TO prospects; UPDATE prospects SET email = 'x'",
        );
        assert_eq!(rows(WATCHED), ["prospects | true | true | on"]);
        assert_eq!(
            rows("SELECT table_schema, table_name FROM lead_audit.watch"),
            ["public | prospects"]
        );
        assert_eq!(
            rows("SELECT operation, table_name FROM lead_audit.history('prospects', 'a')"),
            ["INSERT | leads", "UPDATE | prospects"]
        );
        // A new table with the former name of a renamed table does not have the history of the
        // renamed table.
        run("CREATE TABLE leads (id varchar PRIMARY KEY); SELECT lead_audit.enable('leads')");
        assert_eq!(rows("SELECT 1 FROM lead_audit.history('leads', 'a')"), [""; 0]);
        assert_eq!(one("SELECT count(*) FROM lead_audit.watched"), "2");
        assert_intact();
    }

    #[pg_test]
    fn renamed_after_disable() {
        begin_with_leads();
        run(
            "INSERT INTO leads (id) VALUES ('a'); SELECT lead_audit.disable('leads'); ALTER TABLE leads RENAME TO prospects",
        );
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('prospects', 'a')"),
            ["INSERT"],
            "the trail stays that of the table"
        );
    }

    #[pg_test]
    fn moved_table() {
        begin_with_leads();
        run("CREATE SCHEMA crm; INSERT INTO leads (id) VALUES ('a'); ALTER TABLE leads SET SCHEMA crm;
             UPDATE crm.leads SET email = 'x';
             ALTER SCHEMA crm RENAME TO sales; UPDATE sales.leads SET email = 'y'");
        assert_eq!(rows(WATCHED), ["sales.leads | true | true | on"]);
        assert_eq!(
            rows("SELECT table_schema, table_name FROM lead_audit.watch"),
            ["sales | leads"]
        );
        assert_eq!(
            rows("SELECT operation, table_schema FROM lead_audit.history('sales.leads', 'a')"),
            ["INSERT | public", "UPDATE | crm", "UPDATE | sales"]
        );
        run("DROP TABLE sales.leads");
        assert_eq!(log("operation, table_schema").pop().as_deref(), Some("DDL | sales"));
    }

    #[pg_test]
    fn partition_detached_and_attached() {
        begin();
        run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             SELECT lead_audit.enable('p'); INSERT INTO p VALUES (1);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             INSERT INTO p VALUES (11); INSERT INTO p2 VALUES (12)");
        assert_eq!(log("operation, table_name"), ["INSERT | p1", "INSERT | p2", "INSERT | p2"]);
        run("ALTER TABLE p2 DISABLE TRIGGER ALL");
        assert_eq!(
            rows("SELECT relation, row_trigger_on, state FROM lead_audit.watched"),
            ["p | false | disabled"]
        );
        run("ALTER TABLE p2 ENABLE TRIGGER ALL");
        assert_eq!(
            rows("SELECT relation, row_trigger_on, state FROM lead_audit.watched"),
            ["p | true | on"]
        );
        let before = number("SELECT count(*) FROM lead_audit.log");
        run("ALTER TABLE p DETACH PARTITION p1");
        assert_eq!(
            number("SELECT count(*) FROM lead_audit.log"),
            before + 1,
            "rows went out of the watching"
        );
    }

    #[pg_test]
    fn dropped_partition() {
        begin();
        run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             SELECT lead_audit.enable('p'); INSERT INTO p VALUES (1); DROP TABLE p1");
        assert_eq!(log("operation"), ["INSERT", "DDL"], "rows of a watched table are gone");
        assert_eq!(
            rows("SELECT relation, row_trigger_on, state FROM lead_audit.watched"),
            ["p | true | on"]
        );
    }

    #[pg_test]
    fn renamed_soft_delete_column() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'); ALTER TABLE leads RENAME COLUMN is_deleted TO gone;
                 UPDATE leads SET gone = true");
        assert_eq!(
            log("operation, soft_delete"),
            ["INSERT | NULL", "DDL | NULL", "UPDATE | deleted"]
        );
        assert_eq!(rows("SELECT soft_delete_column FROM lead_audit.watched"), ["gone"]);
    }

    #[pg_test]
    fn other_ddl_has_no_entry() {
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
    fn only_a_superuser_changes_the_event_triggers() {
        begin_with_leads();
        assert_eq!(
            rows(
                "SELECT evtname, evtevent, evtenabled FROM pg_event_trigger WHERE evtname LIKE 'lead%' ORDER BY 1"
            ),
            [
                "lead_audit_ddl | ddl_command_end | A",
                "lead_audit_drop | sql_drop | A",
                "lead_audit_start | ddl_command_start | A"
            ]
        );
        assert_fails("DROP EVENT TRIGGER lead_audit_drop", "2BP01", "requires it");
    }

    /// PostgreSQL fires no event trigger for the tables, types and triggers that CREATE SCHEMA
    /// creates as its elements.
    #[pg_test]
    fn schema_with_elements() {
        begin();
        run("CREATE TABLE leads (id int PRIMARY KEY, note text); CREATE TABLE p (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
             SELECT lead_audit.enable('leads'), lead_audit.enable('p');
             CREATE SCHEMA s2 CREATE TABLE c () INHERITS (public.leads) CREATE TABLE p2 PARTITION OF public.p FOR VALUES FROM (100) TO (200);
             INSERT INTO s2.c VALUES (1); INSERT INTO p VALUES (101); TRUNCATE s2.c, s2.p2; ALTER TABLE p DETACH PARTITION s2.p2;
             INSERT INTO s2.p2 VALUES (102); ALTER TABLE p ATTACH PARTITION s2.p2 FOR VALUES FROM (100) TO (200)");
        assert_eq!(
            log("operation, table_name"),
            [
                "INSERT | c",
                "INSERT | p2",
                "TRUNCATE | c",
                "TRUNCATE | p2",
                "DDL | p2",
                "INSERT | p2",
                "DDL | p2"
            ]
        );
        assert_eq!(
            rows(
                "SELECT relation, row_trigger_on, truncate_trigger_on, state FROM lead_audit.watched ORDER BY 1"
            ),
            ["leads | true | true | on", "p | true | true | on"]
        );
        assert_eq!(rows("SELECT * FROM lead_audit.check_watched()"), [""; 0]);
    }

    /// A command that changes a type can change the values of columns with this type. Such a
    /// command has an entry for each watched table with a column of the type.
    #[pg_test]
    fn types_of_columns() {
        begin();
        run("CREATE DOMAIN code AS text; CREATE TYPE addr AS (street text, zip code, town text); CREATE TYPE person AS (name text, home addr);
             CREATE DOMAIN home AS addr; CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE row_type (x int, y int);
             CREATE TABLE t (id int PRIMARY KEY, a addr, b person[], c home, m mood, r row_type); CREATE TABLE untouched (id int PRIMARY KEY, a text);
             CREATE TYPE span AS RANGE (SUBTYPE = addr); CREATE TABLE spans (id int PRIMARY KEY, s span); CREATE TABLE child () INHERITS (t);
             SELECT lead_audit.enable('t'), lead_audit.enable('untouched'), lead_audit.enable('spans')");
        let count = |table: &str| {
            number(&format!(
                "SELECT count(*) FROM lead_audit.log WHERE table_name = '{table}' AND operation = 'DDL'"
            ))
        };
        let (mut t, mut spans) = (0, 0);
        for (statement, of_spans) in [
            ("ALTER TYPE addr RENAME ATTRIBUTE street TO road", true),
            ("ALTER TYPE addr DROP ATTRIBUTE town", true),
            ("DROP DOMAIN code CASCADE", true),
            ("ALTER TYPE mood RENAME VALUE 'sad' TO 'bad'", false),
            ("ALTER TABLE row_type RENAME COLUMN x TO z", false),
            ("ALTER TABLE row_type DROP COLUMN y", false),
        ] {
            run(&format!("SET LOCAL client_min_messages = warning; {statement}"));
            t += 1;
            spans += i64::from(of_spans);
            assert_eq!((count("t"), count("spans")), (t, spans), "{statement}");
        }
        // The following commands on types and domains change no value, so they have no entries.
        run("ALTER TYPE mood ADD VALUE 'mad'; ALTER TYPE addr RENAME TO address; ALTER DOMAIN home ADD CHECK (true); ALTER TYPE mood OWNER TO CURRENT_USER;
             ALTER TABLE t ALTER id SET STATISTICS 10");
        assert_eq!(
            (count("t"), count("spans"), count("untouched"), count("child")),
            (t, spans, 0, 0)
        );
        assert_intact();
    }

    /// SET EXPRESSION changes the values of a stored generated column, but not its type.
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    #[pg_test]
    fn expression_of_a_generated_column() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED); SELECT lead_audit.enable('t');
             ALTER TABLE t ALTER COLUMN g SET EXPRESSION AS (id * 3)");
        assert_eq!(log("operation"), ["DDL"]);
    }

    /// A foreign table that is a partition or child of a watched table is watched. Before
    /// PostgreSQL 16, a foreign table has no TRUNCATE trigger.
    #[pg_test]
    fn foreign_tables() {
        begin();
        run("CREATE ROLE clerk; CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere; GRANT USAGE ON FOREIGN SERVER nowhere TO clerk;
             GRANT CREATE ON SCHEMA public TO clerk; CREATE TABLE t (id int, note text); CREATE TABLE p (id int) PARTITION BY RANGE (id);
             ALTER TABLE t OWNER TO clerk; ALTER TABLE p OWNER TO clerk; SELECT lead_audit.enable('t'), lead_audit.enable('p')");
        run_as(
            "clerk",
            "CREATE FOREIGN TABLE ft () INHERITS (t) SERVER nowhere; CREATE FOREIGN TABLE fp PARTITION OF p FOR VALUES FROM (0) TO (10) SERVER nowhere;
             CREATE FOREIGN TABLE late (id int, note text) SERVER nowhere; ALTER FOREIGN TABLE late INHERIT t",
        );
        let triggers = "SELECT tgrelid::regclass::text COLLATE \"C\", count(*) FROM pg_trigger WHERE tgrelid IN ('ft'::regclass, 'fp'::regclass, 'late'::regclass) GROUP BY 1 ORDER BY 1";
        let number = if cfg!(feature = "pg15") { 1 } else { 2 };
        assert_eq!(rows(triggers), ["fp", "ft", "late"].map(|table| format!("{table} | {number}")));
        if number == 2 {
            assert_fails_as(
                "clerk",
                "ALTER FOREIGN TABLE ft DISABLE TRIGGER \"00_lead_audit_truncate\"",
                "42501",
                "permission denied",
            );
            // Drops the foreign table's TRUNCATE trigger. A foreign table lacks its TRUNCATE
            // trigger after an upgrade of the server from PostgreSQL 15.
            run("ALTER EVENT TRIGGER lead_audit_drop DISABLE; DROP TRIGGER \"00_lead_audit_truncate\" ON ft;
                 ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS");
            assert_eq!(rows("SELECT * FROM lead_audit.check_watched()"), [""; 0]);
            assert!(holds("SELECT bool_and(truncate_trigger_on) FROM lead_audit.watched"));
            run("SELECT lead_audit.enable('t')");
            assert_eq!(rows(triggers), ["fp | 2", "ft | 2", "late | 2"]);
        }
        for statement in [
            "ALTER FOREIGN TABLE ft DISABLE TRIGGER ALL",
            "ALTER TABLE fp DISABLE TRIGGER USER",
            "DROP TRIGGER \"00_lead_audit_row\" ON late",
        ] {
            assert_fails_as("clerk", statement, "42501", "permission denied");
        }
        run_as(
            "clerk",
            "ALTER FOREIGN TABLE ft RENAME TO ft2; ALTER FOREIGN TABLE ft2 NO INHERIT t; ALTER FOREIGN TABLE late ADD COLUMN remark text; DROP FOREIGN TABLE fp",
        );
        assert_eq!(
            log("operation, table_name"),
            ["DDL | late", "DDL | ft", "DDL | ft2", "DDL | late", "DDL | fp"]
        );
        assert_eq!(
            rows(
                "SELECT relation, row_trigger_on, truncate_trigger_on, state FROM lead_audit.watched ORDER BY 1"
            ),
            ["ft2 | true | true | on", "p | true | true | on", "t | true | true | on"]
        );
        assert_eq!(rows("SELECT * FROM lead_audit.check_watched()"), [""; 0]);
    }

    /// A command that changes the options of a foreign table, of its server or of its wrapper has
    /// an entry, because the foreign table can show other rows after the command.
    #[pg_test]
    fn options_of_foreign_tables() {
        begin();
        run("CREATE ROLE clerk; CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
             CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
             CREATE TABLE t (id int, note text); SELECT lead_audit.enable('t');
             CREATE FOREIGN TABLE ft () INHERITS (t) SERVER nowhere; CREATE FOREIGN TABLE free (id int) SERVER nowhere");
        let commands = [
            "ALTER FOREIGN TABLE ft OPTIONS (ADD table_name 'x')",
            "ALTER FOREIGN TABLE ft ALTER COLUMN note OPTIONS (ADD column_name 'remark')",
            "ALTER SERVER nowhere OPTIONS (ADD host 'h')",
            "ALTER SERVER nowhere VERSION '2'",
            "ALTER FOREIGN DATA WRAPPER nowhere OPTIONS (ADD a 'b')",
            "CREATE USER MAPPING FOR clerk SERVER nowhere",
            "DROP USER MAPPING FOR clerk SERVER nowhere",
        ];
        for command in commands {
            run(command);
        }
        assert_eq!(
            log("operation, table_name, coalesce(details->>'executed', statement)"),
            commands.map(|command| format!("DDL | ft | {command}"))
        );
        let entries = "SELECT count(*) FROM lead_audit.log";
        let before = number(entries);
        run("ALTER FOREIGN TABLE free OPTIONS (ADD table_name 'x'); ALTER SERVER elsewhere OPTIONS (ADD host 'h');
             CREATE USER MAPPING FOR clerk SERVER elsewhere; DROP USER MAPPING FOR clerk SERVER elsewhere;
             ALTER FOREIGN DATA WRAPPER elsewhere OPTIONS (ADD a 'b'); ALTER SERVER nowhere OWNER TO CURRENT_USER");
        assert_eq!(number(entries), before);
        // Entries of user mappings do not contain their passwords.
        run("CREATE USER MAPPING FOR clerk SERVER nowhere OPTIONS (password 'pass1')");
        run("ALTER USER MAPPING FOR clerk SERVER nowhere options(SET password 'pass2')");
        run(
            "DO $$ BEGIN ALTER USER MAPPING FOR clerk SERVER nowhere OPTIONS (SET password 'pass3'); END $$",
        );
        assert_eq!(number(entries), before + 3);
        assert_eq!(
            rows("SELECT e::text FROM lead_audit.entry e WHERE e::text LIKE '%pass_''%'"),
            [""; 0]
        );
        assert!(holds(
            "SELECT bool_and(coalesce(details->>'executed', statement) LIKE '% USER MAPPING FOR clerk SERVER nowhere')
             FROM lead_audit.log WHERE id > (SELECT max(id) - 3 FROM lead_audit.log)"
        ));
        assert_intact();
    }

    /// A table whose watching has ended with disable() can be attached to a watched table. The
    /// attached table is then watched again, as a partition or child table.
    #[pg_test]
    fn new_partition_that_was_watched_before() {
        begin();
        run("CREATE TABLE parent (id int, note text); CREATE TABLE once (id int, note text); CREATE TABLE p (id int) PARTITION BY RANGE (id);
             CREATE TABLE once_p (id int); SELECT lead_audit.enable('once'), lead_audit.enable('once_p'); INSERT INTO once VALUES (1);
             SELECT lead_audit.disable('once'), lead_audit.disable('once_p'); SELECT lead_audit.enable('parent'), lead_audit.enable('p');
             ALTER TABLE once INHERIT parent; ALTER TABLE p ATTACH PARTITION once_p FOR VALUES FROM (0) TO (10);
             INSERT INTO once VALUES (2); INSERT INTO p VALUES (3); TRUNCATE once, once_p");
        assert_eq!(
            log("operation, table_name"),
            [
                "INSERT | once",
                "DDL | once",
                "DDL | once_p",
                "DDL | once",
                "DDL | once_p",
                "INSERT | once",
                "INSERT | once_p",
                "TRUNCATE | once",
                "TRUNCATE | once_p"
            ]
        );
        assert_eq!(
            rows(
                "SELECT relation, row_trigger_on, truncate_trigger_on FROM lead_audit.watched ORDER BY 1"
            ),
            ["p | true | true", "parent | true | true"]
        );
    }

    /// The cost of a DDL command does not grow with the number of watched tables.
    #[pg_test]
    fn reads_only_what_a_command_reaches() {
        begin_with_leads();
        let read = || {
            rows(
                "SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_all_tables
                 WHERE schemaname IN ('lead_audit', 'pg_catalog') ORDER BY 1",
            )
        };
        let cost = |number: i32| {
            let before = read();
            run(&format!(
                "CREATE TABLE cost{number} () INHERITS (leads); ALTER TABLE leads ADD COLUMN more{number} int; DROP TABLE cost{number};
                 CREATE TABLE alone{number} (id int PRIMARY KEY); SELECT lead_audit.enable('alone{number}'); ALTER TABLE alone{number} RENAME TO renamed{number};
                 SELECT lead_audit.disable('renamed{number}')"
            ));
            before
                .iter()
                .zip(read())
                .map(|(before, after)| (after.clone(), tuples(&after) - tuples(before)))
                .collect::<Vec<_>>()
        };
        for number in 0..60 {
            run(&format!("CREATE TABLE other{number} (id int PRIMARY KEY)"));
        }
        // With the statistics of ANALYZE, the planner knows that the two tables are small.
        run("ANALYZE lead_audit.watch, lead_audit.watched_relation");
        cost(0);
        let few = cost(1);
        run("SELECT lead_audit.enable(('other' || g)::regclass) FROM generate_series(0, 59) g");
        for ((table, many), (_, few)) in cost(2).iter().zip(&few) {
            assert!(
                *many < few + 40,
                "{table}: {few} rows read with few watched tables, {many} with 60 more"
            );
        }
    }

    /// Returns the number that follows after the last space in `row`.
    fn tuples(row: &str) -> i64 {
        row.rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// check_watched() finds and repairs changes to audit triggers that were made while the DDL
    /// guard was disabled.
    #[pg_test]
    fn check_watched_repairs_what_bypassed_the_guard() {
        begin();
        run("CREATE TABLE t (id int, note text); CREATE TABLE p (id int, note text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE gone (id int); CREATE TABLE off (id int); CREATE TABLE c0 () INHERITS (t);
             SELECT lead_audit.enable('t'), lead_audit.enable('p'), lead_audit.enable('gone'), lead_audit.enable('off');
             SELECT * FROM lead_audit.check_watched();
             ALTER EVENT TRIGGER lead_audit_ddl DISABLE; ALTER EVENT TRIGGER lead_audit_drop DISABLE; ALTER EVENT TRIGGER lead_audit_start DISABLE;
             CREATE TABLE c1 () INHERITS (t); CREATE TABLE c2 () INHERITS (c1); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             ALTER TABLE p DETACH PARTITION p1; DROP TABLE gone, c0; ALTER TABLE off DISABLE TRIGGER ALL;
             ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS; ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS; ALTER EVENT TRIGGER lead_audit_start ENABLE ALWAYS");
        assert_eq!(
            rows(
                "SELECT relation, row_trigger_on, truncate_trigger_on FROM lead_audit.watched WHERE relation = 't'"
            ),
            ["t | false | false"],
            "the view compares"
        );
        assert_eq!(
            rows("SELECT * FROM lead_audit.check_watched() ORDER BY 2, 1"),
            [
                "public.p1 | detached",
                "public.c0 | dropped",
                "public.gone | dropped",
                "public.c1 | not watched",
                "public.c2 | not watched",
                "public.p2 | not watched",
                "public.off | trigger off"
            ]
        );
        assert_eq!(
            rows("SELECT * FROM lead_audit.check_watched()"),
            [""; 0],
            "every fault is repaired or recorded"
        );
        let mut entries = log("operation, table_name");
        entries.sort();
        assert_eq!(
            entries,
            ["DDL | c0", "DDL | c1", "DDL | gone", "DDL | off", "DDL | p1", "DDL | p2"]
        );
        run(
            "INSERT INTO c2 VALUES (1); INSERT INTO p VALUES (11); INSERT INTO p1 VALUES (1); TRUNCATE c1, p2",
        );
        assert_eq!(number("SELECT count(*) FROM lead_audit.log"), 6 + 3 + 3);
        assert_eq!(
            rows(
                "SELECT relation, row_trigger_on, truncate_trigger_on, state FROM lead_audit.watched ORDER BY 1"
            ),
            [
                "off | false | false | disabled",
                "p | true | true | on",
                "p1 | true | true | on",
                "t | true | true | on"
            ]
        );
    }
}
