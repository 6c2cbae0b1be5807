//! Tests attacks on the audit trail or the server by the owner of a watched table. Also tests the
//! effects of a trigger that a superuser creates on the log. Each of these attacks succeeded
//! against an earlier state of the code. The attacker is the role `clerk`, which owns the watched
//! table and has no right in the schema lead_audit.

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

    /// PostgreSQL runs the CHECK expression of a domain whenever it makes a value of the domain.
    /// history() and the baseline make values with more rights than the owner of the domain has, so
    /// they must not run the owner's CHECK expression with these rights.
    #[pg_test]
    fn code_of_the_owner_gains_no_rights() {
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

    /// The functions that read the audit trail run no code of the table's owner, for any type of
    /// the primary key.
    #[pg_test]
    fn reading_executes_no_code_of_the_owner() {
        begin_with_clerk();
        run("CREATE TABLE spied (by_whom text); ALTER TABLE spied OWNER TO clerk");
        run_as(
            "clerk",
            "CREATE FUNCTION spy(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO spied VALUES (session_user || ' as ' || current_user); RETURN true; END $$;
             CREATE DOMAIN spying AS varchar(20) CHECK (spy(value)); CREATE DOMAIN twice AS spying;
             CREATE TYPE pair AS (a spying, b int); CREATE TYPE span AS RANGE (subtype = spying);
             CREATE TYPE mood AS ENUM ('ok');
             CREATE FUNCTION told(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO spied VALUES ('cast'); RETURN to_json(current_user::text); END $$;
             CREATE CAST (mood AS json) WITH FUNCTION told(mood);
             CREATE TABLE d (id twice PRIMARY KEY); CREATE TABLE a (id spying[] PRIMARY KEY); CREATE TABLE c (id pair PRIMARY KEY);
             CREATE TABLE r (id span PRIMARY KEY); CREATE TABLE m (id mood PRIMARY KEY); CREATE TABLE f (id spying PRIMARY KEY);
             CREATE TABLE ms (id mood[] PRIMARY KEY)",
        );
        run("SELECT lead_audit.enable(t) FROM unnest('{d,a,c,r,m,f,ms}'::regclass[]) t;
             CREATE ROLE auditor; GRANT USAGE ON SCHEMA lead_audit TO auditor;
             GRANT SELECT ON ALL TABLES IN SCHEMA lead_audit TO auditor; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lead_audit TO auditor");
        run_as(
            "clerk",
            r#"INSERT INTO d VALUES ('x'); INSERT INTO a VALUES ('{x,"y z"}'); INSERT INTO c VALUES ('(x,1)'); INSERT INTO r VALUES ('[x,y)');
               INSERT INTO m VALUES ('ok'); INSERT INTO ms VALUES ('{ok}'); INSERT INTO f VALUES ('x'); ALTER TABLE f ALTER id TYPE text; TRUNCATE spied"#,
        );
        for become_reader in ["SET LOCAL ROLE auditor", "RESET ROLE"] {
            run(become_reader);
            let history = |table: &str, key: &str| {
                rows(&format!("SELECT operation FROM lead_audit.history('{table}', {key})"))
            };
            assert_eq!(history("d", "'x'::text"), ["INSERT"]);
            assert_eq!(history("d", r#"'{"id": "x"}'::jsonb"#), ["INSERT"]);
            assert_eq!(history("a", r#"'{x,"y z"}'::text"#), ["INSERT"]);
            assert_eq!(history("f", "'x'::text"), ["INSERT"]);
            assert_eq!(one("SELECT total FROM lead_audit.summary('d', 'x')"), "1");
            assert_eq!(
                one(
                    r#"SELECT total FROM lead_audit.summary('a', jsonb_build_object('id', '{x,"y z"}'))"#
                ),
                "1"
            );
            for (table, key) in [("c", "(x,1)"), ("r", "[x,y)"), ("m", "ok"), ("ms", "{ok}")] {
                for function in ["history", "summary"] {
                    let call = format!("SELECT lead_audit.{function}('{table}', '{key}')");
                    assert_fails(&call, "0A000", "would execute code of its owner");
                    let call = format!(
                        "SELECT lead_audit.{function}('{table}', jsonb_build_object('id', '{key}'))"
                    );
                    assert_fails(&call, "0A000", "would execute code of its owner");
                }
            }
            for relation in ["log", "watched", "stats"] {
                run(&format!("SELECT * FROM lead_audit.{relation}"));
            }
            run("SELECT lead_audit.seal(); SELECT * FROM lead_audit.verify(); SELECT lead_audit.verify_entry(id) FROM lead_audit.entry;
                 SELECT * FROM lead_audit.status(); SELECT lead_audit.check_watched();
                 SELECT lead_audit.inclusion_proof((SELECT min(id) FROM lead_audit.entry)); SELECT lead_audit.latest_checkpoint()");
            run("RESET ROLE");
            assert_eq!(rows("SELECT by_whom FROM spied"), [""; 0], "{become_reader}");
        }
    }

    /// Creates the function f() as the owner of the table. f() is IMMUTABLE, so the owner can use
    /// it in indexes and partition keys. f() executes the command that the table `orders` contains,
    /// and deletes the command from the table, so that the command runs once.
    fn begin_with_code_in_indexes() {
        begin_with_clerk();
        run_as(
            "clerk",
            "CREATE TABLE orders (command text); CREATE FUNCTION g() RETURNS void LANGUAGE plpgsql AS $$ DECLARE o text; BEGIN
               SELECT command INTO o FROM orders; IF o IS NOT NULL THEN DELETE FROM orders; EXECUTE o; END IF; END $$;
             -- PostgreSQL 17 builds indexes with a search_path of its own.
             CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS
               $$ BEGIN PERFORM g(); RETURN $1; END $$",
        );
    }

    /// Runs `commands` as the role `clerk`. During `commands`, f() executes the command `order`.
    /// Returns the new entries.
    fn entries_of(order: &str, commands: &str) -> Vec<String> {
        let last = number("SELECT coalesce(max(id), 0) FROM lead_audit.entry");
        run_as("clerk", &format!("INSERT INTO orders VALUES ({}); {commands}", literal(order)));
        assert!(holds("SELECT count(*) = 0 FROM orders"), "f() was called");
        rows(&format!(
            "SELECT operation, table_name, coalesce(new_values, old_values)->'id' FROM lead_audit.log WHERE id > {last} ORDER BY id"
        ))
    }

    /// ATTACH PARTITION builds missing indexes before PostgreSQL gives the partition its triggers.
    /// The expression of an index can call a function of the owner, and this function can write
    /// rows before the triggers exist.
    #[pg_test]
    fn code_executed_while_a_partition_is_attached() {
        begin_with_code_in_indexes();
        run_as(
            "clerk",
            "CREATE TABLE p (id int, v text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
             CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (100) TO (150); CREATE TABLE p22 PARTITION OF p2 FOR VALUES FROM (150) TO (200)",
        );
        run("SELECT lead_audit.enable('p')");
        run_as(
            "clerk",
            "INSERT INTO p VALUES (101, 'a'), (151, 'b'), (152, 'c'); ALTER TABLE p DETACH PARTITION p2; CREATE INDEX ON p (f(id))",
        );
        let order = "UPDATE p22 SET v = 'changed' WHERE id = 151; DELETE FROM p22 WHERE id = 152; INSERT INTO p22 VALUES (160); TRUNCATE p22";
        let found =
            entries_of(order, "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200)");
        let expected = [
            "UPDATE | p22 | 151",
            "DELETE | p22 | 152",
            "INSERT | p22 | 160",
            "TRUNCATE | p22 | NULL",
            "DDL | p2 | NULL",
        ];
        assert_eq!(found, expected);
        // After ATTACH PARTITION, each table has the two usual audit triggers and no other trigger
        // of lead_audit.
        let names = "SELECT t.tgname, count(*) FROM pg_trigger t WHERE t.tgname LIKE '%lead_audit%' AND t.tgrelid <> 'leads'::regclass GROUP BY 1 ORDER BY 1";
        assert_eq!(rows(names), ["00_lead_audit_row | 5", "00_lead_audit_truncate | 5"]);
        run_as("clerk", "INSERT INTO p VALUES (170)");
        assert_eq!(log("table_name, new_values->'id'").pop().as_deref(), Some("p22 | 170"));
        assert!(holds(
            "SELECT bool_and(row_trigger_on AND truncate_trigger_on) FROM lead_audit.watched"
        ));
        assert_eq!(rows("SELECT * FROM lead_audit.check_watched()"), [""; 0]);
        // During ATTACH PARTITION, the DDL guard gives the partition's row trigger a temporary
        // name. The owner cannot rename a trigger to this temporary name.
        let statement =
            "ALTER TRIGGER \"00_lead_audit_row\" ON p RENAME TO \"00_lead_audit_row_before\"";
        assert_fails_as("clerk", statement, "42501", "permission denied to disable");
        assert_intact();
    }

    /// A new table can get rows while its CREATE command still runs, before PostgreSQL or the DDL
    /// guard has given triggers to the table.
    #[pg_test]
    fn code_executed_while_a_table_is_made() {
        begin_with_code_in_indexes();
        run_as(
            "clerk",
            "CREATE TABLE w (id int, v text); CREATE TABLE p (id int, v text) PARTITION BY RANGE (id); CREATE INDEX ON p ((f(1)));
             CREATE TABLE k (id int, v text) PARTITION BY RANGE (f(id)); CREATE TABLE k0 PARTITION OF k DEFAULT",
        );
        run("SELECT lead_audit.enable('w'), lead_audit.enable('p'), lead_audit.enable('k'); 
             DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO clerk', current_database()); END $$");
        run_as("clerk", "INSERT INTO k VALUES (7)");
        for (table, order, command) in [
            (
                "c1",
                "INSERT INTO c1 VALUES (1)",
                "CREATE TABLE c1 (EXCLUDE USING btree ((f(1)) WITH =)) INHERITS (w)",
            ),
            (
                "c2",
                "INSERT INTO s.c2 VALUES (1)",
                "CREATE SCHEMA s CREATE TABLE c2 () INHERITS (public.w) CREATE INDEX ON c2 ((public.f(2)))",
            ),
            (
                "p3",
                "INSERT INTO p3 VALUES (1)",
                "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (0) TO (9)",
            ),
            (
                "k4",
                "INSERT INTO k4 VALUES (1)",
                "CREATE TABLE k4 PARTITION OF k FOR VALUES FROM (0) TO (5)",
            ),
        ] {
            assert_eq!(
                entries_of(order, command),
                [format!("SNAPSHOT | {table} | 1"), format!("DDL | {table} | NULL")],
                "{command}"
            );
        }
        assert_eq!(not_written(), 0);
        assert_intact();
    }

    /// The type of a column can be the row type of a view. DDL that changes the view then has an
    /// entry.
    #[pg_test]
    fn row_types_of_views() {
        begin_with_clerk();
        run_as(
            "clerk",
            "CREATE VIEW v AS SELECT 1 a, 2 b; CREATE MATERIALIZED VIEW m AS SELECT 1 a, 2 b; CREATE TABLE t (id int PRIMARY KEY, v v, m m)",
        );
        run("SELECT lead_audit.enable('t')");
        run_as("clerk", "INSERT INTO t VALUES (1, ROW(1, 2), ROW(1, 2))");
        let statements = [
            "ALTER VIEW v RENAME COLUMN a TO z",
            "ALTER MATERIALIZED VIEW m RENAME COLUMN a TO z",
            "CREATE OR REPLACE VIEW v AS SELECT 1 z, 2 b, 3 c",
        ];
        for statement in statements {
            run_as("clerk", statement);
            assert_eq!(
                log("operation, details->>'executed'").pop(),
                Some(format!("DDL | {statement}"))
            );
        }
        run_as(
            "clerk",
            "CREATE VIEW other AS SELECT 1 a; CREATE OR REPLACE VIEW other AS SELECT 1 a, 2 b; ALTER VIEW other RENAME TO another",
        );
        assert_eq!(log("operation").len(), 4);
    }

    /// SET UNLOGGED and SET LOGGED have entries, because a crash removes all rows of an unlogged
    /// table.
    #[pg_test]
    fn unlogged() {
        begin_with_clerk();
        for statement in ["ALTER TABLE leads SET UNLOGGED", "ALTER TABLE leads SET LOGGED"] {
            run_as("clerk", statement);
            assert_eq!(
                log("operation, details->>'executed'").pop(),
                Some(format!("DDL | {statement}"))
            );
        }
    }

    /// Two different values can have the same JSON. An UPDATE from the first value to the second
    /// has an entry.
    #[pg_test]
    fn values_whose_json_stays_the_same() {
        begin_with_clerk();
        run_as(
            "clerk",
            r#"CREATE TABLE t (id int PRIMARY KEY, a int[], j json, f float8); INSERT INTO t VALUES (1, '{1,2}', '{"a":1}', 0)"#,
        );
        run("SELECT lead_audit.enable('t')");
        for change in
            ["a = '[0:1]={1,2}'", r#"j = '{"a":9,"a":1}'"#, r#"j = '{ "a" : 1}'"#, "f = '-0'"]
        {
            run_as("clerk", &format!("UPDATE t SET {change}"));
            let column = &change[..1];
            let last = "FROM lead_audit.log ORDER BY id DESC LIMIT 1";
            assert_eq!(
                one(&format!("SELECT diff->'{column}'->'old' = diff->'{column}'->'new' {last}")),
                "true",
                "{change}"
            );
        }
        assert_eq!(log("operation"), ["UPDATE"; 4]);
        run_as("clerk", "UPDATE t SET a = a, j = j, f = f");
        assert_eq!(log("operation").len(), 4);
    }

    /// A cast to json runs as the owner of the cast's function. The owner of the cast's function
    /// can be a role that neither owns the table nor writes the row.
    #[pg_test]
    fn cast_of_a_type_in_the_table_of_another() {
        begin_with_clerk();
        run_as("clerk", "CREATE TYPE mood AS ENUM ('a', 'b')");
        run(
            "CREATE TABLE t (id int PRIMARY KEY, m mood, more mood[]); SELECT lead_audit.enable('t'); INSERT INTO t VALUES (1, 'a', NULL)",
        );
        run_as(
            "clerk",
            "CREATE FUNCTION told(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
               RETURN to_json(current_user || CASE WHEN (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ' is super' ELSE '' END); END $$;
             CREATE CAST (mood AS json) WITH FUNCTION told(mood)",
        );
        run("INSERT INTO t VALUES (2, 'a', '{a,b}'); UPDATE t SET m = 'b' WHERE id = 2");
        assert_eq!(
            log("new_values->>'m', new_values->>'more'"),
            ["a | NULL", r#"clerk | ["clerk", "clerk"]"#, r#"clerk | ["clerk", "clerk"]"#]
        );
        // If a superuser owns the function of a cast, the cast runs as the writer.
        run("ALTER FUNCTION told(mood) OWNER TO CURRENT_USER; GRANT ALL ON t TO clerk");
        run_as("clerk", "INSERT INTO t VALUES (3, 'a', NULL)");
        assert_eq!(log("new_values->>'m'").pop().as_deref(), Some("clerk"));
        // If a value contains two types whose casts belong to different owners, no entry is
        // written. The cast of one owner could otherwise run code of the second owner with the
        // first owner's rights.
        run(
            "CREATE ROLE other; GRANT CREATE ON SCHEMA public TO other; ALTER FUNCTION told(mood) OWNER TO clerk",
        );
        run_as("other", "CREATE TYPE tone AS ENUM ('x'); CREATE FUNCTION tone(tone) RETURNS json LANGUAGE sql AS $$ SELECT to_json(current_user::text) $$;
             CREATE CAST (tone AS json) WITH FUNCTION tone(tone); CREATE TYPE pair AS (m mood, t tone)");
        run(
            "CREATE TABLE b (id int PRIMARY KEY, b pair, m mood, t tone); SELECT lead_audit.enable('b'); INSERT INTO b VALUES (1, NULL, 'a', 'x')",
        );
        assert_eq!(
            log("new_values->>'m', new_values->>'t'").pop().as_deref(),
            Some("clerk | other")
        );
        let before = not_written();
        run("INSERT INTO b VALUES (2, ROW('a', 'x'), NULL, NULL)");
        assert_eq!(not_written(), before + 1);
    }

    /// If a child table has two watched parents and watching of one parent ends, the child table
    /// stays watched through the second parent.
    #[pg_test]
    fn child_of_two_tables() {
        begin_with_clerk();
        run_as("clerk", "CREATE TABLE w (LIKE leads); CREATE TABLE c () INHERITS (w, leads)");
        run("SELECT lead_audit.enable('w'); SELECT lead_audit.disable('w')");
        run_as("clerk", "INSERT INTO c (id) VALUES ('a')");
        assert_eq!(log("operation, table_name").pop().as_deref(), Some("INSERT | c"));
        run("SELECT lead_audit.enable('w'); SELECT lead_audit.disable('leads')");
        run_as("clerk", "INSERT INTO c (id) VALUES ('b')");
        assert_eq!(log("operation, table_name").pop().as_deref(), Some("INSERT | c"));
        assert_eq!(rows("SELECT * FROM lead_audit.check_watched()"), [""; 0]);
        assert_intact();
    }

    /// If a superuser has disabled one audit trigger of one partition, the owner still cannot
    /// disable or drop the other audit triggers.
    #[pg_test]
    fn triggers_that_are_left() {
        begin_with_clerk();
        run_as("clerk", "CREATE TABLE child () INHERITS (leads)");
        run("ALTER TABLE child DISABLE TRIGGER \"00_lead_audit_row\"");
        assert_eq!(one("SELECT state FROM lead_audit.watched"), "disabled");
        for statement in [
            "DROP TRIGGER \"00_lead_audit_row\" ON leads",
            "DROP TRIGGER \"00_lead_audit_truncate\" ON leads",
            "DROP TRIGGER \"00_lead_audit_truncate\" ON child",
            "ALTER TABLE leads DISABLE TRIGGER ALL",
        ] {
            assert_fails_as("clerk", statement, "42501", "permission denied to disable");
        }
        run_as("clerk", "ALTER TABLE leads ADD more int; DROP TABLE child");
        run_as("clerk", "INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(log("operation").pop().as_deref(), Some("INSERT"));
    }

    /// PostgreSQL lets ALTER INDEX … RENAME rename a table, so the DDL guard must recognize this
    /// command too.
    #[pg_test]
    fn rename_before_the_drop() {
        begin_with_clerk();
        let statements =
            "ALTER INDEX leads RENAME TO leads2; DROP TRIGGER \"00_lead_audit_row\" ON leads2";
        assert_fails_as("clerk", statements, "42501", "permission denied to disable");
    }

    /// CREATE OR REPLACE TRIGGER on a partitioned table would also replace the audit trigger of its
    /// partition, so the DDL guard refuses the command.
    #[pg_test]
    fn replace_the_trigger_from_above() {
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

    /// A new partition gets its audit triggers although its owner has no right to create audit
    /// triggers.
    #[pg_test]
    fn partitions_by_the_owner_are_watched() {
        begin();
        run("CREATE ROLE clerk; GRANT CREATE ON SCHEMA public TO clerk; SET LOCAL ROLE clerk;
             CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); RESET ROLE; SELECT lead_audit.enable('p')");
        run_as(
            "clerk",
            "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 (id int PRIMARY KEY);
             ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20); INSERT INTO p VALUES (1), (11); TRUNCATE p1",
        );
        assert_eq!(
            log("operation, table_name"),
            ["DDL | p2", "INSERT | p1", "INSERT | p2", "TRUNCATE | p1"]
        );
    }

    /// A cast to json that returns the same text for all values hides the new value, but does not
    /// suppress the entry of the UPDATE.
    #[pg_test]
    fn lying_cast_hides_no_update() {
        begin();
        run("CREATE TYPE mood AS ENUM ('a', 'b');
             CREATE FUNCTION told(mood) RETURNS json LANGUAGE sql AS $$ SELECT '\"x\"'::json $$;
             CREATE CAST (mood AS json) WITH FUNCTION told(mood);
             CREATE TABLE t (id int PRIMARY KEY, m mood); SELECT lead_audit.enable('t');
             INSERT INTO t VALUES (1, 'a'); UPDATE t SET m = 'b'");
        assert_eq!(
            log("operation, diff"),
            ["INSERT | NULL", r#"UPDATE | {"m": {"new": "x", "old": "x"}}"#]
        );
    }

    /// If a superuser's own trigger on the log writes to a watched table, a second batch is
    /// gathered while the first batch is written.
    #[pg_test]
    fn batch_within_a_batch() {
        begin_with_leads();
        run("CREATE TABLE side (id int); SELECT lead_audit.enable('side');
             CREATE FUNCTION nest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.table_name = 'leads' THEN INSERT INTO side VALUES (1); END IF; RETURN NEW; END $$;
             CREATE TRIGGER nest BEFORE INSERT ON lead_audit.entry FOR EACH ROW EXECUTE FUNCTION nest();
             INSERT INTO leads (id) SELECT g FROM generate_series(1, 200) g;
             SET LOCAL lead_audit.on_error = 'abort';
             INSERT INTO leads (id) SELECT g FROM generate_series(201, 400) g;
             DROP TRIGGER nest ON lead_audit.entry");
        assert_eq!(
            rows("SELECT table_name, count(*) FROM lead_audit.log GROUP BY 1 ORDER BY 1"),
            ["leads | 400", "side | 400"]
        );
        assert_intact();
    }

    /// If a trigger on the log returns NULL, PostgreSQL does not insert the entry. lead_audit
    /// counts this entry as unwritten.
    #[pg_test]
    fn suppressed_entry_is_counted() {
        begin_with_leads();
        let before = not_written();
        run("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER swallow BEFORE INSERT ON lead_audit.entry FOR EACH ROW EXECUTE FUNCTION swallow();
             INSERT INTO leads (id) VALUES ('a'), ('b')");
        assert_eq!(not_written(), before + 2);
    }

    /// verify() checks the types of the log's columns, because its computations depend on these
    /// types.
    #[pg_test]
    fn verify_refuses_a_column_of_another_type() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a');
             ALTER TABLE lead_audit.entry RENAME user_id TO former; ALTER TABLE lead_audit.entry ADD user_id int DEFAULT 12345");
        assert_eq!(&failure("SELECT * FROM lead_audit.verify()")[..5], "55000");
    }

    /// An error of PostgreSQL or of an application keeps all its fields when it passes through the
    /// hooks of the library.
    #[pg_test]
    fn errors_of_others_stay_whole() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'); CREATE TABLE child (id varchar CONSTRAINT of_lead REFERENCES leads);
             CREATE FUNCTION told() RETURNS text LANGUAGE plpgsql AS $$ DECLARE c text; t text; BEGIN
               INSERT INTO child VALUES ('none'); RETURN 'no error';
             EXCEPTION WHEN foreign_key_violation THEN
               GET STACKED DIAGNOSTICS c = CONSTRAINT_NAME, t = TABLE_NAME; RETURN c || ' of ' || t; END $$");
        assert_eq!(one("SELECT told()"), "of_lead of child");
        run("INSERT INTO leads (id) SELECT g FROM generate_series(1, 10) g");
        assert_eq!(
            number("SELECT count(*) FROM lead_audit.log"),
            11,
            "batches go on after the error"
        );
    }

    /// A role with rights like those of `pg_write_all_data` can change neither the tables that list
    /// the watched tables nor the order of ids.
    #[pg_test]
    fn changes_of_the_tables_about_watched_tables() {
        begin_with_clerk();
        run("INSERT INTO leads (id) VALUES ('a'); CREATE ROLE mighty; GRANT ALL ON ALL TABLES IN SCHEMA lead_audit TO mighty;
             GRANT USAGE ON SCHEMA lead_audit TO mighty");
        run("GRANT pg_write_all_data, pg_read_all_data TO mighty");
        for table in ["watch", "watched_relation", "earlier_identity", "former_key", "entry"] {
            for statement in [
                format!("UPDATE lead_audit.{table} SET watch_id = watch_id"),
                format!("UPDATE lead_audit.{table} SET watch_id = gen_random_uuid() WHERE false"),
                format!("DELETE FROM lead_audit.{table}"),
                format!("TRUNCATE lead_audit.{table}"),
            ] {
                assert_fails_as("mighty", &statement, "42501", "is not allowed");
                run("SET LOCAL session_replication_role = replica");
                assert_fails_as("mighty", &statement, "42501", "is not allowed");
                run("SET LOCAL session_replication_role = origin");
            }
        }
        assert_fails_as(
            "mighty",
            "INSERT INTO lead_audit.watched_relation VALUES (0, gen_random_uuid(), true, 'x', 'y')",
            "42501",
            "is not allowed",
        );
        // The statement triggers of these tables refuse the following statements, although the
        // statements write no row.
        for table in [
            "unwritten",
            "checkpoint",
            "leaf_range",
            "tree_tile",
            "tree_edge",
            "tree",
            "open_gap",
            "inserted_entry",
            "queue_position",
        ] {
            for statement in [
                format!(
                    "INSERT INTO lead_audit.{table} SELECT * FROM lead_audit.{table} WHERE false"
                ),
                format!("DELETE FROM lead_audit.{table} WHERE false"),
                format!("TRUNCATE lead_audit.{table}"),
            ] {
                assert_fails_as("mighty", &statement, "42501", "");
                run("SET LOCAL session_replication_role = replica");
                assert_fails_as("mighty", &statement, "42501", "");
                run("SET LOCAL session_replication_role = origin");
            }
        }
        for statement in [
            "DELETE FROM lead_audit.watch",
            "TRUNCATE lead_audit.watch",
            "TRUNCATE lead_audit.watched_relation",
        ] {
            assert_fails(statement, "42501", "is not allowed");
        }
        for change in ["CACHE 10", "INCREMENT 2", "INCREMENT -1", "CYCLE", "RESTART WITH 1"] {
            assert_fails(
                &format!("ALTER SEQUENCE lead_audit.entry_id_seq {change}"),
                "55000",
                "cannot be altered like this",
            );
        }
        run("ALTER SEQUENCE lead_audit.entry_id_seq MAXVALUE 9000000000000000000 NO CYCLE CACHE 1");
        run_as("clerk", "INSERT INTO leads (id) VALUES ('b')");
        assert_eq!(log("row_key->>'id'"), ["a", "b"]);
    }

    /// A trigger of the application changes the role and the output settings between two rows of
    /// one statement.
    #[pg_test]
    fn role_and_settings_that_change_midway() {
        begin();
        run("CREATE ROLE clerk; CREATE ROLE team; GRANT team TO clerk; GRANT CREATE ON SCHEMA public TO clerk, team;
             CREATE TABLE t (id int PRIMARY KEY, at timestamptz, b bytea, f float8, i interval); ALTER TABLE t OWNER TO clerk; GRANT ALL ON t TO team;
             SELECT lead_audit.enable('t')");
        run_as(
            "clerk",
            "CREATE FUNCTION turn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.id % 2 = 1 THEN
                 PERFORM set_config('role', 'team', true), set_config('TimeZone', 'Asia/Tokyo', true), set_config('DateStyle', 'German', true),
                         set_config('bytea_output', 'escape', true), set_config('extra_float_digits', '-5', true), set_config('IntervalStyle', 'iso_8601', true),
                         set_config('search_path', 'pg_temp', true), set_config('statement_timeout', '3600000', true), set_config('lead_audit.user_id', 'odd', true);
               ELSE
                 PERFORM set_config('role', 'clerk', true), set_config('TimeZone', 'America/New_York', true), set_config('lead_audit.user_id', 'even', true);
               END IF;
               RETURN NEW; END $$;
             CREATE TRIGGER turn BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION turn()",
        );
        // Since PostgreSQL 18, an AFTER trigger runs as the role that wrote the row, and cannot set
        // another role.
        let after = cfg!(not(feature = "pg18"));
        if after {
            run_as(
                "clerk",
                "CREATE TRIGGER zz AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION turn()",
            );
        }
        run("SET LOCAL ROLE clerk; INSERT INTO public.t SELECT g, '2024-02-29 12:00+00', '\\xff', 0.1::float8 + 0.2, '1 day 2 h' FROM generate_series(1, 3) g;
             UPDATE public.t SET b = '\\x00' WHERE id = 2; SET LOCAL ROLE NONE; SET LOCAL search_path = public");
        let values =
            r#""f": 0.30000000000000004, "i": "1 day 02:00:00", "at": "2024-02-29T12:00:00+00:00""#;
        let row = |id: i32, b: &str| {
            format!(r#"{{"b": "\\\\x{b}", {values}, "id": {id}}}"#).replace("\\\\\\\\", "\\\\")
        };
        assert_eq!(
            rows(
                "SELECT operation, new_values, db_current_user, db_session_user = session_user, user_id FROM lead_audit.log ORDER BY id"
            ),
            [
                // The BEFORE triggers of all rows run before the first AFTER trigger. So the first
                // entry has the role that the BEFORE trigger of the last row, row 3, has set. The
                // AFTER trigger of each row changes the role for the entry of the next row.
                format!("INSERT | {} | team | true | odd", row(1, "ff")),
                format!(
                    "INSERT | {} | {} | true | odd",
                    row(2, "ff"),
                    if after { "team" } else { "clerk" }
                ),
                format!(
                    "INSERT | {} | {} | true | {}",
                    row(3, "ff"),
                    if after { "clerk" } else { "team" },
                    if after { "even" } else { "odd" }
                ),
                format!("UPDATE | {} | clerk | true | even", row(2, "00")),
            ]
        );
        assert_intact();
    }

    /// While the DDL guard records the rows of an attached table, code of the owner runs. The DDL
    /// guard must also check the DDL commands of the owner's code.
    #[pg_test]
    fn ddl_while_the_guard_works() {
        begin_with_clerk();
        run_as(
            "clerk",
            "CREATE TYPE mood AS ENUM ('ok'); CREATE FUNCTION told(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
               BEGIN ALTER TABLE public.leads DISABLE TRIGGER USER; EXCEPTION WHEN insufficient_privilege THEN RETURN '\"refused\"'::json; END;
               RETURN '\"done\"'::json; END $$;
             CREATE TABLE p (id int, m mood, PRIMARY KEY (id)) PARTITION BY RANGE (id); CREATE TABLE p1 (id int PRIMARY KEY, m mood); INSERT INTO p1 VALUES (1, 'ok')",
        );
        run(
            "CREATE CAST (mood AS json) WITH FUNCTION told(mood); SELECT lead_audit.enable('p', baseline => true)",
        );
        run_as(
            "clerk",
            "ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10); INSERT INTO leads (id) VALUES ('a')",
        );
        assert_eq!(
            log("operation, table_name, new_values->>'m'"),
            ["DDL | p1 | NULL", "SNAPSHOT | p1 | refused", "INSERT | leads | NULL"]
        );
        assert_eq!(
            rows("SELECT relation, state, row_trigger_on FROM lead_audit.watched ORDER BY 1"),
            ["leads | on | true", "p | on | true"]
        );
    }

    /// A trigger of the table runs DDL on the table in the middle of a statement.
    #[pg_test]
    fn ddl_in_the_middle_of_a_statement() {
        begin_with_clerk();
        run("GRANT CREATE ON SCHEMA public TO clerk");
        for (ddl, sqlstate) in [
            ("ALTER TABLE leads DISABLE TRIGGER USER", "55006"),
            ("DROP TRIGGER \"00_lead_audit_row\" ON leads", "42501"),
            ("DROP TABLE leads CASCADE", "55006"),
            ("TRUNCATE leads", "55006"),
        ] {
            run_as(
                "clerk",
                &format!(
                    "CREATE OR REPLACE FUNCTION strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {ddl}; RETURN NULL; END $$;
                     CREATE OR REPLACE TRIGGER aa AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION strike()"
                ),
            );
            let failed = failure_as("clerk", "INSERT INTO leads (id) VALUES ('a'), ('b')");
            assert!(failed.starts_with(sqlstate), "{ddl}: {failed}");
            run_as(
                "clerk",
                &format!(
                    "CREATE OR REPLACE FUNCTION strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                       BEGIN {ddl}; EXCEPTION WHEN others THEN NULL; END; RETURN NULL; END $$; INSERT INTO leads (id) VALUES ('a'), ('b'); DELETE FROM leads"
                ),
            );
            assert_eq!(
                log("operation, row_key->>'id'")
                    .split_off(number("SELECT count(*) - 4 FROM lead_audit.log") as usize),
                ["INSERT | a", "INSERT | b", "DELETE | a", "DELETE | b"],
                "{ddl}"
            );
        }
        // A trigger can rename a column in the middle of a statement. Each row image has the names
        // that the columns had at the time of its event.
        run_as(
            "clerk",
            "CREATE OR REPLACE FUNCTION strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               BEGIN ALTER TABLE leads RENAME COLUMN email TO post; EXCEPTION WHEN undefined_column THEN NULL; END; RETURN NULL; END $$;
             INSERT INTO leads (id) VALUES ('c'), ('d')",
        );
        assert_eq!(
            rows(
                "SELECT operation, row_key->>'id', new_values ? 'post' FROM lead_audit.log ORDER BY id DESC LIMIT 3"
            ),
            ["INSERT | d | true", "DDL | NULL | NULL", "INSERT | c | false"]
        );
        assert_eq!(rows("SELECT state, row_trigger_on FROM lead_audit.watched"), ["on | true"]);
        assert_intact();
    }

    /// CREATE OR REPLACE TRIGGER fails if a constraint trigger has the same name, so lead_audit
    /// renames a constraint trigger that has the name of an audit trigger.
    #[pg_test]
    fn name_of_the_audit_trigger_is_taken() {
        begin();
        run("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TABLE t (id int); CREATE TABLE child () INHERITS (t); CREATE TABLE late (id int);
             CREATE CONSTRAINT TRIGGER \"00_lead_audit_row\" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing();
             CREATE CONSTRAINT TRIGGER \"00_lead_audit_row\" AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION nothing();
             CREATE CONSTRAINT TRIGGER \"00_lead_audit_truncate\" AFTER INSERT ON late FOR EACH ROW EXECUTE FUNCTION nothing()");
        let said = warnings(|| run("SELECT lead_audit.enable('t'); ALTER TABLE late INHERIT t"));
        assert_eq!(
            said.iter().filter(|text| text.contains("constraint trigger")).count(),
            3,
            "{said:?}"
        );
        run(
            "INSERT INTO t VALUES (1); INSERT INTO child VALUES (2); INSERT INTO late VALUES (3); TRUNCATE t",
        );
        assert_eq!(
            log("operation, table_name"),
            [
                "DDL | late",
                "INSERT | t",
                "INSERT | child",
                "INSERT | late",
                "TRUNCATE | t",
                "TRUNCATE | child",
                "TRUNCATE | late"
            ]
        );
        assert_eq!(
            one(
                "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'not_00%' AND tgconstraint <> 0"
            ),
            "3",
            "they are there still"
        );
    }

    /// If a function runs a DDL command, the client's query does not contain this command. The
    /// entry has the command in `details.executed`.
    #[pg_test]
    fn command_in_a_function_is_in_details_executed() {
        begin_with_clerk();
        run_as(
            "clerk",
            "CREATE FUNCTION pg_temp.nothing() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER TABLE public.leads ' || 'DROP COLUMN email'; END $$;
             CREATE FUNCTION pg_temp.more() RETURNS void LANGUAGE sql AS $$ ALTER TABLE public.leads ADD COLUMN email text $$",
        );
        run("SET LOCAL ROLE clerk; SELECT pg_temp.nothing()");
        run("SELECT pg_temp.more()");
        run("ALTER TABLE leads RENAME COLUMN email TO post");
        run("RESET ROLE");
        assert_eq!(
            log("details->>'executed'"),
            [
                "ALTER TABLE public.leads DROP COLUMN email",
                "ALTER TABLE public.leads ADD COLUMN email text",
                "ALTER TABLE leads RENAME COLUMN email TO post"
            ]
        );
        assert_intact();
    }

    /// Creates the type `trap`, whose output function is `lead_audit_test_trap_out`, and a watched
    /// table with a column of this type.
    const TRAP: &str =
        "CREATE TYPE trap; CREATE FUNCTION trap_in(cstring) RETURNS trap LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
        CREATE FUNCTION trap_out(trap) RETURNS cstring LANGUAGE c STRICT AS '$libdir/lead_audit', 'lead_audit_test_trap_out';
        CREATE TYPE trap (INPUT = trap_in, OUTPUT = trap_out, LIKE = int4);
        CREATE TABLE trapped (id int PRIMARY KEY, v trap, n int DEFAULT 0); SELECT lead_audit.enable('trapped')";

    /// The output function of a type raises an error, writes to the table while capture records a
    /// row of this table, or calls itself without end.
    #[pg_test]
    fn output_functions() {
        begin();
        run(TRAP);
        let lost = not_written();
        let said = warnings(|| run("INSERT INTO trapped VALUES (1, '1'), (2, '2'), (3, '1')"));
        assert!(
            said.len() == 1
                && said[0].contains(r#"public.trapped with key {"id":2}: the trap is shut"#),
            "{said:?}"
        );
        assert_eq!(not_written(), lost + 1);
        assert_eq!(
            log("operation, row_key->'id', new_values->>'v'"),
            ["INSERT | 1 | 1", "INSERT | 3 | 1"]
        );
        // The output function writes a row to the table, and capture calls the output function
        // again for this row.
        run("INSERT INTO trapped VALUES (4, '3')");
        let mut events = log("operation, row_key->'id', new_values->>'v'").split_off(2);
        events.sort();
        assert_eq!(events, ["INSERT | 1000 | 1", "INSERT | 4 | 3"]);
        // The output function calls itself until the stack is full. Each row in the table has an
        // entry or is counted as an unwritten entry.
        run("SET LOCAL max_stack_depth = '300kB'");
        let (before, lost) = (number("SELECT count(*) FROM lead_audit.log"), not_written());
        let failed = failure("INSERT INTO trapped VALUES (5, '4')");
        run("SET LOCAL max_stack_depth = '2MB'");
        let there = number("SELECT count(*) FROM trapped WHERE id = 5 OR id > 1000");
        let written = number("SELECT count(*) FROM lead_audit.log") - before;
        let counted = not_written() - lost;
        assert!(failed == "no error" || failed.starts_with("54001"), "{failed}");
        assert!(written + counted >= there, "{there} rows, {written} entries, {counted} counted");
        run("SET LOCAL lead_audit.on_error = abort");
        assert_fails("INSERT INTO trapped VALUES (6, '2')", "P0001", "the trap is shut");
        assert_intact();
    }

    /// Declares the calling convention of `lead_audit_test_trap_out` for PostgreSQL.
    #[unsafe(no_mangle)]
    pub extern "C" fn pg_finfo_lead_audit_test_trap_out() -> &'static pg_sys::Pg_finfo_record {
        &pg_sys::Pg_finfo_record { api_version: 1 }
    }

    /// Output function of the type `trap`. For the value 2, the function raises an error. For the
    /// value 3, the function inserts a row with a harmless value into the table. For the value 4,
    /// the function inserts a row with the value 4, so that capture calls the function again.
    ///
    /// # Safety
    /// Only PostgreSQL calls this function.
    #[unsafe(no_mangle)]
    #[pgrx::pg_guard]
    pub unsafe extern "C-unwind" fn lead_audit_test_trap_out(
        fcinfo: pg_sys::FunctionCallInfo,
    ) -> pg_sys::Datum {
        // SAFETY: PostgreSQL never passes NULL, because the function is strict. Its one argument is
        // stored as an integer.
        let value = unsafe { (*fcinfo).args.as_slice(1)[0].value.value() as i32 };
        match value {
            2 => run("DO $$ BEGIN RAISE 'the trap is shut'; END $$"),
            3 => run(
                "INSERT INTO trapped SELECT 1000, '1' WHERE NOT EXISTS (SELECT FROM trapped WHERE id = 1000)",
            ),
            4 => run("INSERT INTO trapped SELECT max(id) + 1001, '4' FROM trapped"),
            _ => {}
        }
        // SAFETY: pstrdup copies the C string into the current memory context.
        unsafe {
            pg_sys::Datum::from(pg_sys::pstrdup(
                std::ffi::CString::new(value.to_string()).unwrap_or_default().as_ptr(),
            ))
        }
    }
}
