//! Tests that the ids of entries give the order of the events. An earlier event has a lower id than
//! a later event, even if triggers run statements within other statements. In the history of a row,
//! the old row of each entry is the new row of the previous entry.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    const CONTINUE: &str = "CREATE FUNCTION go_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.n < 3 THEN UPDATE t SET n = n + 1 WHERE id = NEW.id; END IF; RETURN NULL; END $$";

    fn assert_chained() {
        let broken = rows(
            "SELECT id, row_key, old_values, previous FROM
               (SELECT *, lag(new_values) OVER (PARTITION BY row_key ORDER BY id) AS previous FROM lead_audit.log) l
             WHERE operation <> 'INSERT' AND old_values IS DISTINCT FROM previous",
        );
        assert!(
            broken.is_empty(),
            "an entry does not start where the one before it ended: {broken:?} in {:?}",
            log("operation, new_values")
        );
    }

    #[pg_test]
    fn after_row_trigger_that_updates_the_same_row() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t')");
        run(CONTINUE);
        run("CREATE TRIGGER touch AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION go_on();
                 INSERT INTO t VALUES (1, 1), (2, 1)");
        assert_eq!(
            rows("SELECT operation, new_values->'n' FROM lead_audit.history('t', '1')"),
            ["INSERT | 1", "UPDATE | 2", "UPDATE | 3"]
        );
        assert_eq!(one("SELECT count(*) FROM lead_audit.log"), "6");
        assert_chained();
        assert_intact();
    }

    /// PostgreSQL fires triggers in the order of their names, so an application's trigger can fire
    /// before the audit trigger. lead_audit warns of a trigger that fires before the audit trigger.
    /// The warning appears when this trigger is created, and when enable() begins to watch its
    /// table.
    #[pg_test]
    fn warns_of_after_row_triggers_whose_name_comes_first() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t')");
        run(CONTINUE);
        let make = |name: &str| {
            format!(
                "CREATE TRIGGER {name} AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION go_on()"
            )
        };
        assert_eq!(warnings(|| run(&make("harmless"))), [""; 0]);
        let expected = [
            r#"WARNING: triggers of public.t run before the audit trigger: "!first" | AFTER ROW triggers run in the order of their names. If one of them writes the same row again, that entry gets the lower id."#,
        ];
        assert_eq!(warnings(|| run(&make("\"!first\""))), expected);
        assert_eq!(warnings(|| run("SELECT lead_audit.enable('t')")), expected);
        run("DROP TRIGGER harmless ON t; INSERT INTO t VALUES (1, 1)");
        assert_eq!(
            rows(
                "SELECT operation, new_values->'n' FROM lead_audit.history('t', '1') ORDER BY new_values->'n'"
            ),
            ["INSERT | 1", "UPDATE | 2", "UPDATE | 3"],
            "every event has its entry"
        );
        assert_intact();
    }

    #[pg_test]
    fn after_statement_trigger_that_writes_the_same_table() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t');
             CREATE FUNCTION go_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF pg_trigger_depth() < 3 THEN UPDATE t SET n = n + 1; END IF; RETURN NULL; END $$;
             CREATE TRIGGER touch AFTER INSERT OR UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION go_on();
             INSERT INTO t VALUES (1, 0), (2, 0)");
        assert_eq!(
            log("operation, new_values->'n'"),
            ["INSERT | 0", "INSERT | 0", "UPDATE | 1", "UPDATE | 1", "UPDATE | 2", "UPDATE | 2"]
        );
        assert_chained();
        assert_intact();
    }

    #[pg_test]
    fn before_trigger_that_writes_another_row() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE counter (id int PRIMARY KEY, n int);
             SELECT lead_audit.enable('t'), lead_audit.enable('counter'); INSERT INTO counter VALUES (1, 0);
             CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               UPDATE counter SET n = n + 1 RETURNING n INTO NEW.n; RETURN NEW; END $$;
             CREATE TRIGGER take BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION take(); INSERT INTO t VALUES (1), (2)");
        let counter = log("table_name, new_values->'n'");
        assert_eq!(
            counter.iter().filter(|line| line.starts_with("counter")).collect::<Vec<_>>(),
            ["counter | 0", "counter | 1", "counter | 2"]
        );
        assert_eq!(
            counter.iter().filter(|line| line.starts_with("t ")).collect::<Vec<_>>(),
            ["t | 1", "t | 2"]
        );
        assert_chained();
    }

    #[pg_test]
    fn ids_are_in_the_order_of_times() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t');
                 SET LOCAL lead_audit.batch_memory = '1GB'");
        run(CONTINUE);
        run("CREATE TRIGGER touch AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION go_on();
             INSERT INTO t SELECT g, 1 FROM generate_series(1, 200) g; DELETE FROM t");
        assert_eq!(
            one("SELECT count(*), bool_and(l.occurred_at >= l.before) FROM
                 (SELECT occurred_at, coalesce(lag(occurred_at) OVER (ORDER BY id), '-infinity') AS before
                 FROM lead_audit.log) l"),
            "800 | true"
        );
        assert_chained();
        assert_intact();
    }

    #[pg_test]
    fn row_written_twice_by_functions_of_one_statement() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t'); INSERT INTO t VALUES (1, 0);
             CREATE FUNCTION more() RETURNS int LANGUAGE sql VOLATILE AS 'UPDATE t SET n = n + 1 RETURNING n';
             SELECT more() + more() * more()");
        assert_eq!(
            rows("SELECT new_values->'n' FROM lead_audit.history('t', '1')"),
            ["0", "1", "2", "3"]
        );
        assert_chained();
    }

    const SEED: &str = "CREATE FUNCTION seed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        EXECUTE format('INSERT INTO %I VALUES (%s)', TG_ARGV[0], TG_ARGV[1]); RETURN NULL; END $$";

    /// Runs the TRUNCATE once outside and once inside a subtransaction. Outside of a
    /// subtransaction, PostgreSQL empties the file of the table, because the same transaction
    /// created the table. In a subtransaction, PostgreSQL gives the table a new file.
    fn truncate(command: &str, expected: &[&str]) {
        run("CREATE TABLE seen AS SELECT coalesce(max(id), 0) AS id FROM lead_audit.log");
        let new = "SELECT operation, table_name, new_values->'id', details->'row_count' FROM lead_audit.log WHERE id > (SELECT id FROM seen) ORDER BY id";
        for in_subtransaction in [false, true] {
            match in_subtransaction {
                false => run(command),
                true => run(&format!(
                    "DO $$ BEGIN {command}; EXCEPTION WHEN division_by_zero THEN NULL; END $$"
                )),
            }
            assert_eq!(rows(new), expected, "{command}, {in_subtransaction}");
            run("UPDATE seen SET id = (SELECT max(id) FROM lead_audit.log)");
        }
        run("DROP TABLE seen");
        assert_intact();
    }

    /// The TRUNCATE removes rows that BEFORE TRUNCATE triggers write, and keeps rows that AFTER
    /// TRUNCATE triggers write. The entries show which rows the TRUNCATE removed, no matter which
    /// names the triggers have.
    #[pg_test]
    fn rows_written_by_triggers_of_truncate() {
        begin();
        run(SEED);
        run("CREATE TABLE t (id int); SELECT lead_audit.enable('t')");
        for (name, time, id) in
            [("!", "BEFORE", 1), ("zz", "BEFORE", 2), ("!a", "AFTER", 3), ("zza", "AFTER", 4)]
        {
            run(&format!(
                "CREATE TRIGGER \"{name}\" {time} TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION seed('t', {id})"
            ));
        }
        run("INSERT INTO t VALUES (0), (5)");
        let expected = [
            "INSERT | t | 1 | NULL",
            "INSERT | t | 2 | NULL",
            "TRUNCATE | t | NULL | 3",
            "INSERT | t | 3 | NULL",
            "INSERT | t | 4 | NULL",
        ];
        truncate("TRUNCATE t", &expected);
        assert_eq!(rows("SELECT id FROM t ORDER BY 1"), ["3", "4"]);
        truncate("TRUNCATE ONLY t RESTART IDENTITY", &expected);
    }

    #[pg_test]
    fn rows_written_by_triggers_of_truncate_of_several_tables() {
        begin();
        run(SEED);
        run("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a); SELECT lead_audit.enable('a'), lead_audit.enable('b');
             CREATE TRIGGER zz BEFORE TRUNCATE ON a FOR EACH STATEMENT EXECUTE FUNCTION seed('a', 1);
             CREATE TRIGGER zz BEFORE TRUNCATE ON b FOR EACH STATEMENT EXECUTE FUNCTION seed('a', 2);
             CREATE TRIGGER \"!\" AFTER TRUNCATE ON a FOR EACH STATEMENT EXECUTE FUNCTION seed('a', 3);
             CREATE TRIGGER zza AFTER TRUNCATE ON b FOR EACH STATEMENT EXECUTE FUNCTION seed('b', 3)");
        for command in ["TRUNCATE a CASCADE", "TRUNCATE a, b"] {
            run(
                "SET lead_audit.enabled = off; DELETE FROM b; DELETE FROM a; INSERT INTO a VALUES (3); INSERT INTO b VALUES (3); RESET lead_audit.enabled",
            );
            truncate(
                command,
                &[
                    "INSERT | a | 1 | NULL",
                    "INSERT | a | 2 | NULL",
                    "TRUNCATE | a | NULL | 1",
                    "TRUNCATE | b | NULL | 1",
                    "INSERT | a | 3 | NULL",
                    "INSERT | b | 3 | NULL",
                ],
            );
        }
    }

    #[pg_test]
    fn rows_written_by_triggers_of_truncate_of_partitions() {
        begin();
        run(SEED);
        run("CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); SELECT lead_audit.enable('p');
             CREATE TRIGGER zz BEFORE TRUNCATE ON p1 FOR EACH STATEMENT EXECUTE FUNCTION seed('p', 1);
             CREATE TRIGGER \"!\" AFTER TRUNCATE ON p1 FOR EACH STATEMENT EXECUTE FUNCTION seed('p', 2); INSERT INTO p VALUES (2)");
        let expected = |table| {
            [
                "INSERT | p1 | 1 | NULL".to_owned(),
                format!("TRUNCATE | {table} | NULL | 1"),
                "INSERT | p1 | 2 | NULL".to_owned(),
            ]
        };
        for (command, table) in
            [("TRUNCATE p", "p"), ("TRUNCATE p1", "p1"), ("TRUNCATE p1, p", "p1")]
        {
            let mut expected = expected(table).to_vec();
            if command == "TRUNCATE p1, p" {
                expected.insert(2, "TRUNCATE | p | NULL | 0".to_owned());
            }
            truncate(command, &expected.iter().map(String::as_str).collect::<Vec<_>>());
        }
        // lead_audit refuses the TRUNCATE, because the entry of the TRUNCATE would show the row of
        // the new partition as truncated, although the row remains.
        run("CREATE FUNCTION extend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); INSERT INTO p VALUES (11); RETURN NULL; END $$;
             CREATE TRIGGER zzz BEFORE TRUNCATE ON p FOR EACH STATEMENT EXECUTE FUNCTION extend()");
        assert_fails("TRUNCATE p", "55006", "");
    }

    /// A TRUNCATE that fails leaves no state in lead_audit that the next TRUNCATE could use by
    /// mistake.
    #[pg_test]
    fn truncate_whose_triggers_fail() {
        begin();
        run("CREATE TABLE t (id int); SELECT lead_audit.enable('t');
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
             INSERT INTO t VALUES (1), (2)");
        for time in ["BEFORE", "AFTER"] {
            run(&format!(
                "CREATE TRIGGER zz {time} TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION fail()"
            ));
            assert_fails("TRUNCATE t", "P0001", "no");
            run("DROP TRIGGER zz ON t");
        }
        run("DELETE FROM t WHERE id = 1; TRUNCATE t; TRUNCATE t");
        assert_eq!(
            rows(
                "SELECT details->'row_count' FROM lead_audit.log WHERE operation = 'TRUNCATE' ORDER BY id"
            ),
            ["1", "0"]
        );
    }

    /// If a statement in a PL/pgSQL expression fails, PostgreSQL keeps the executor state of this
    /// statement until the transaction ends. lead_audit must not mistake it for the state of a
    /// later statement.
    #[pg_test]
    fn truncate_that_failed_in_an_expression() {
        begin();
        run("CREATE TABLE t (id int); SELECT lead_audit.enable('t'); INSERT INTO t VALUES (1);
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF current_setting('test.fails', true) = 'yes' THEN RAISE 'no'; END IF; RETURN NULL; END $$;
             CREATE TRIGGER zz BEFORE TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION fail();
             CREATE FUNCTION truncate_t() RETURNS int LANGUAGE sql AS 'TRUNCATE t; SELECT 1';
             DO $$
             DECLARE result int;
             BEGIN
               PERFORM set_config('test.fails', 'yes', true);
               BEGIN result := truncate_t(); EXCEPTION WHEN raise_exception THEN END;
               PERFORM set_config('test.fails', 'no', true);
               INSERT INTO t SELECT g FROM generate_series(2, 10) g;
               TRUNCATE t;
             END $$");
        assert_eq!(
            rows("SELECT details->'row_count' FROM lead_audit.log WHERE operation = 'TRUNCATE'"),
            ["10"]
        );
    }
}
