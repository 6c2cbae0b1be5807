//! Tests that history() finds the entries of a row by its primary key in any spelling of the key.
//! history() finds the entries even if the table or its key has changed after they were written.
//! The entry of an UPDATE that changes the key is in the history of the old key and of the new key.
//! The result of history() never contains entries of other rows, or of rows with the same key in
//! other tables.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    #[pg_test]
    fn changed_key_is_found_under_both() {
        begin_with_leads();
        run("INSERT INTO leads (id, email) VALUES ('old', 'x'), ('other', 'y'); UPDATE leads SET id = 'new' WHERE id = 'old';
             UPDATE leads SET email = 'z' WHERE id = 'new'; INSERT INTO leads (id) VALUES ('old')");
        let history = |key: &str| {
            rows(&format!(
                "SELECT operation, row_key, diff FROM lead_audit.history('leads', '{key}')"
            ))
        };
        let renamed = r#"UPDATE | {"id": "new"} | {"id": {"new": "new", "old": "old"}}"#;
        assert_eq!(
            history("old"),
            [r#"INSERT | {"id": "old"} | NULL"#, renamed, r#"INSERT | {"id": "old"} | NULL"#]
        );
        assert_eq!(
            history("new"),
            [renamed, r#"UPDATE | {"id": "new"} | {"email": {"new": "z", "old": "x"}}"#]
        );
        assert_eq!(history("other"), [r#"INSERT | {"id": "other"} | NULL"#]);
        assert_eq!(history("nobody"), [""; 0]);
        assert_eq!(
            one("SELECT total, created, updated FROM lead_audit.summary('leads', 'old')"),
            "3 | 2 | 1"
        );
        assert_eq!(
            one("SELECT total, created, updated FROM lead_audit.summary('leads', 'new')"),
            "2 | 0 | 2"
        );
        // The entry of an UPDATE that changed the key stores the hash of the former key. Other
        // entries have NULL in this column.
        assert_eq!(
            rows(
                "SELECT e.previous_key_hash = o.key_hash FROM lead_audit.entry e, (SELECT key_hash FROM lead_audit.entry
                 ORDER BY id LIMIT 1) o
                  WHERE e.previous_key_hash IS NOT NULL"
            ),
            ["true"]
        );
        assert_intact();
    }

    #[pg_test]
    fn keys_swapped_in_one_statement() {
        begin();
        run("CREATE TABLE t (id int, CONSTRAINT pk PRIMARY KEY (id) DEFERRABLE, note text); SELECT lead_audit.enable('t');
             INSERT INTO t VALUES (1, 'one'), (2, 'two'); UPDATE t SET id = 3 - id");
        assert_eq!(
            rows("SELECT operation, old_values->'note', row_key FROM lead_audit.history('t', '1')"),
            [
                r#"INSERT | NULL | {"id": 1}"#,
                r#"UPDATE | one | {"id": 2}"#,
                r#"UPDATE | two | {"id": 1}"#
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn any_spelling_of_the_type() {
        begin();
        for (key_type, stored, spellings) in [
            (
                "uuid",
                "7d4c1f0e-52a9-4b7e-9d3b-0c6f5e1a2b84",
                ["7D4C1F0E52A94B7E9D3B0C6F5E1A2B84", "{7d4c1f0e-52a9-4b7e-9d3b-0c6f5e1a2b84}"],
            ),
            ("numeric(10,2)", "12.5", ["12.50", "1.25e1"]),
            ("int", "42", ["042", " 42"]),
            (
                "timestamptz",
                "2024-02-29 12:00:00+00",
                ["2024-02-29 14:00:00+02", "Feb 29 2024 12:00 UTC"],
            ),
            ("date", "2024-02-29", ["20240229", "29 February 2024"]),
            ("char(5)", "ab", ["ab", "ab   "]),
            ("bytea", r"\xdead", [r"\xDEAD", r"\336\255"]),
            ("inet", "10.0.0.1", ["10.0.0.1/32", "10.0.0.1"]),
            ("interval", "1 day", ["1 day", "1 day 00:00:00"]),
            ("bool", "true", ["t", "yes"]),
        ] {
            run(&format!(
                "CREATE TABLE t (k {key_type} PRIMARY KEY); SELECT lead_audit.enable('t'); INSERT INTO t VALUES ({})",
                literal(stored)
            ));
            for spelling in [stored, spellings[0], spellings[1]] {
                let found = rows(&format!(
                    "SELECT operation FROM lead_audit.history('t', {}::text)",
                    literal(spelling)
                ));
                assert_eq!(found, ["INSERT"], "{key_type} {spelling}");
                let found = rows(&format!(
                    "SELECT operation FROM lead_audit.history('t', jsonb_build_object('k', {}::text))",
                    literal(spelling)
                ));
                assert_eq!(found, ["INSERT"], "{key_type} {spelling} as an object");
            }
            assert_eq!(
                rows("SELECT h.operation FROM t, lead_audit.history('t', to_jsonb(t)) h"),
                ["INSERT"],
                "{key_type}"
            );
            run("DROP TABLE t");
        }
        assert_fails("SELECT lead_audit.history('pg_class', '1x')", "22P02", "1x");
    }

    #[pg_test]
    fn composite_key() {
        begin();
        run(
            r#"CREATE TABLE t (no numeric, "Zone é" text, tenant int, value int, PRIMARY KEY (tenant, no, "Zone é")); SELECT lead_audit.enable('t');
               INSERT INTO t VALUES (1.0, 'x', 7, 1), (1.0, 'x', 8, 1); UPDATE t SET value = 2 WHERE tenant = 7; UPDATE t SET tenant = 9 WHERE tenant = 7"#,
        );
        assert_eq!(
            log("row_key").first().map(String::as_str),
            Some(r#"{"no": 1.0, "tenant": 7, "Zone é": "x"}"#)
        );
        for key in
            [r#"{"tenant":7,"no":1.0,"Zone é":"x"}"#, r#"{"Zone é":"x","no":"1.0","tenant":"7"}"#]
        {
            assert_eq!(
                rows(&format!(
                    "SELECT operation, new_values->'value', row_key->'tenant' FROM lead_audit.history('t', '{key}'::jsonb)"
                )),
                ["INSERT | 1 | 7", "UPDATE | 2 | 7", "UPDATE | 2 | 9"],
                "{key}"
            );
        }
        assert_eq!(
            rows(r#"SELECT 1 FROM lead_audit.history('t', '{"tenant":7,"no":1.0}'::jsonb)"#),
            [""; 0]
        );
        assert_fails("SELECT lead_audit.history('t', '7')", "42P10", "not a key");
        assert_intact();
    }

    #[pg_test]
    fn same_key_in_another_table() {
        begin();
        run("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
             SELECT lead_audit.enable('a'), lead_audit.enable('b');
             INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); DELETE FROM b");
        assert_eq!(
            rows("SELECT table_name, operation FROM lead_audit.history('a', '1')"),
            ["a | INSERT"]
        );
        assert_eq!(
            rows("SELECT table_name, operation FROM lead_audit.history('b', '1')"),
            ["b | INSERT", "b | DELETE"]
        );
        run("CREATE TABLE never (id int PRIMARY KEY)");
        assert_eq!(rows("SELECT 1 FROM lead_audit.history('never', '1')"), [""; 0]);
    }

    #[pg_test]
    fn renamed_key_column() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t'); INSERT INTO t VALUES (1, 1);
             ALTER TABLE t RENAME COLUMN id TO no; UPDATE t SET n = 2");
        assert_eq!(
            rows("SELECT operation, row_key FROM lead_audit.history('t', '1')"),
            [r#"INSERT | {"id": 1}"#, r#"UPDATE | {"no": 1}"#]
        );
        assert_eq!(
            rows(r#"SELECT operation FROM lead_audit.history('t', '{"id": 1}'::jsonb)"#),
            ["INSERT"],
            "by the former name"
        );
        assert_intact();
    }

    #[pg_test]
    fn composite_key_renamed_and_retyped() {
        begin();
        run("CREATE TABLE t (b int, a numeric(4,1), n int, PRIMARY KEY (a, b)); SELECT lead_audit.enable('t'); INSERT INTO t VALUES (1, 2, 0), (1, 3, 0);
             ALTER TABLE t RENAME COLUMN a TO z; UPDATE t SET n = 1; ALTER TABLE t ALTER COLUMN b TYPE text; UPDATE t SET n = 2;
             ALTER TABLE t RENAME COLUMN b TO a; ALTER TABLE t RENAME COLUMN n TO b; UPDATE t SET b = 3; ALTER TABLE t ALTER COLUMN z TYPE text;
             UPDATE t SET b = 4");
        let expected = [
            r#"INSERT | {"a": 2.0, "b": 1}"#,
            r#"UPDATE | {"b": 1, "z": 2.0}"#,
            r#"UPDATE | {"b": "1", "z": 2.0}"#,
            r#"UPDATE | {"a": "1", "z": 2.0}"#,
            r#"UPDATE | {"a": "1", "z": "2.0"}"#,
        ];
        assert_eq!(
            rows(
                r#"SELECT operation, row_key FROM lead_audit.history('t', '{"a": "1", "z": "2.0"}'::jsonb)"#
            ),
            expected
        );
        assert_eq!(
            one(
                r#"SELECT total, updated, verified FROM lead_audit.summary('t', '{"a": "1", "z": "2.0"}'::jsonb)"#
            ),
            "5 | 4 | true"
        );
        assert_eq!(
            rows(r#"SELECT 1 FROM lead_audit.history('t', '{"a": "x", "z": "2.0"}'::jsonb)"#),
            [""; 0],
            "x was never an int"
        );
        assert_intact();
    }

    #[pg_test]
    fn primary_key_dropped_and_added() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t'); INSERT INTO t VALUES (1, 0), (2, 0);
             ALTER TABLE t DROP CONSTRAINT t_pkey; UPDATE t SET n = 1; UPDATE t SET id = 3 WHERE id = 2");
        let history = |key: i32| {
            rows(&format!(
                "SELECT operation, row_key, new_values FROM lead_audit.history('t', '{key}')"
            ))
        };
        let before =
            [r#"INSERT | {"id": 1} | {"n": 0, "id": 1}"#, r#"UPDATE | NULL | {"n": 1, "id": 1}"#];
        assert_eq!(history(1), before, "by the key that the table had last");
        run("ALTER TABLE t ADD PRIMARY KEY (id); UPDATE t SET n = 2");
        assert_eq!(history(1), [before[0], before[1], r#"UPDATE | {"id": 1} | {"n": 2, "id": 1}"#]);
        assert_eq!(
            history(3),
            [r#"UPDATE | NULL | {"n": 1, "id": 3}"#, r#"UPDATE | {"id": 3} | {"n": 2, "id": 3}"#]
        );
        assert_eq!(history(2).len(), 3, "until it became 3");
        run("ALTER TABLE t RENAME COLUMN id TO no; UPDATE t SET n = 3");
        assert_eq!(history(1).len(), 4);
        assert_eq!(
            log("operation").iter().filter(|operation| *operation == "DDL").count(),
            3,
            "the key dropped, the key made, the column renamed"
        );
        assert_intact();
    }

    #[pg_test]
    fn primary_key_of_other_columns() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, email text UNIQUE NOT NULL, n int); SELECT lead_audit.enable('t');
             INSERT INTO t VALUES (1, 'a', 0), (2, 'b', 0); UPDATE t SET email = 'c' WHERE id = 2;
             ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (email); UPDATE t SET n = 1");
        let history = |key: &str| {
            rows(&format!("SELECT operation, row_key FROM lead_audit.history('t', '{key}')"))
        };
        assert_eq!(history("a"), [r#"INSERT | {"id": 1}"#, r#"UPDATE | {"email": "a"}"#]);
        assert_eq!(history("b"), [r#"INSERT | {"id": 2}"#, r#"UPDATE | {"id": 2}"#]);
        assert_eq!(history("c"), [r#"UPDATE | {"id": 2}"#, r#"UPDATE | {"email": "c"}"#]);
        assert_eq!(
            rows(r#"SELECT operation FROM lead_audit.history('t', '{"id": 2}'::jsonb)"#),
            ["INSERT", "UPDATE"],
            "by the former key"
        );
        // DROP TYPE … CASCADE drops a column of the primary key, so the next entry has no row key.
        run("CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE m (id int, m mood, PRIMARY KEY (id, m)); SELECT lead_audit.enable('m');
             INSERT INTO m VALUES (1, 'ok'); SET LOCAL client_min_messages = warning; DROP TYPE mood CASCADE; INSERT INTO m VALUES (2)");
        assert_eq!(
            rows(
                "SELECT operation, row_key FROM lead_audit.log WHERE table_name = 'm' ORDER BY id"
            ),
            [r#"INSERT | {"m": "ok", "id": 1}"#, "DDL | NULL", "INSERT | NULL"]
        );
        assert_intact();
    }

    #[pg_test]
    fn similar_keys_are_distinct() {
        begin();
        run(r#"CREATE TABLE t (k text PRIMARY KEY); SELECT lead_audit.enable('t')"#);
        let keys = [
            "",
            " ",
            "a",
            "A",
            "a ",
            "\"",
            "\\",
            "{\"k\":\"a\"}",
            "é",
            "e\u{301}",
            "\u{1}",
            "\u{1F600}",
            "null",
        ];
        for key in keys {
            run(&format!("INSERT INTO t VALUES ({})", literal(key)));
        }
        for key in keys {
            let found = rows(&format!(
                "SELECT new_values->>'k' FROM lead_audit.history('t', {}::text)",
                literal(key)
            ));
            assert_eq!(found, [key]);
        }
        assert_intact();
    }
}
