//! Tests that verification finds a change in any column of an entry, and never reports an unchanged
//! entry. Also tests summary(), which counts the entries of a row and returns whether they all
//! verify.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    /// Writes at least one entry of each operation. Some of the entries have a context.
    fn begin_with_entries() {
        begin_with_leads();
        run("INSERT INTO leads (id, email) VALUES ('a', 'a@x.org');
             SET LOCAL lead_audit.user_id = 'u-17'; SET LOCAL lead_audit.user_ip = '::1';
             SET LOCAL lead_audit.user_agent = 'curl';
             SET LOCAL lead_audit.request_id = 'r'; UPDATE leads SET is_deleted = true, email = NULL; UPDATE leads SET id = 'b';
             DELETE FROM leads; TRUNCATE leads; ALTER TABLE leads DISABLE TRIGGER ALL; ALTER TABLE leads ENABLE TRIGGER ALL;
             ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only");
        assert_eq!(
            log("operation"),
            ["INSERT", "UPDATE", "UPDATE", "DELETE", "TRUNCATE", "DDL", "DDL"]
        );
        assert_intact();
    }

    fn ids() -> Vec<i64> {
        rows("SELECT id FROM lead_audit.entry ORDER BY id")
            .iter()
            .map(|id| id.parse().expect("an id"))
            .collect()
    }

    /// Returns SQL expressions for a column of this type. Each expression computes a value that
    /// differs from the column's current value.
    fn other_values(column: &str, column_type: &str) -> Vec<String> {
        let values: &[&str] = match column_type {
            "bigint" if column == "id" => &["{c} + 1000000", "-{c}", "0"],
            "bigint" | "integer" => &["coalesce({c}, 0) + 1", "-coalesce({c}, 5)", "NULL"],
            "smallint" => &["2", "0", "-1"],
            "xid8" => &["'18446744073709551615'", "'3'"],
            "oid" => &["coalesce({c}, 0)::bigint::int + 1", "4294967295", "NULL"],
            "timestamp with time zone" => &[
                "{c} + interval '1 microsecond'",
                "{c} - interval '1 day'",
                "'infinity'",
                "{c} - interval '4000 years'",
            ],
            "uuid" => &["gen_random_uuid()", "NULL"],
            "bytea" => &[
                "set_bit({c}, 255, 1 - get_bit({c}, 255))",
                "set_bit({c}, 0, 1 - get_bit({c}, 0))",
                "''",
                "{c} || '\\x00'",
                "substring({c} FOR 31)",
            ],
            "text" => &["coalesce({c}, '') || 'x'", "''", "upper({c})", "{c} || ' '", "NULL"],
            "json" => &[
                "'{}'",
                "'{\"id\":\"zz\"}'",
                "(' ' || {c}::text)::json",
                "({c}::text || ' ')::json",
                "replace({c}::text, ':', ': ')::json",
                "replace({c}::text, '\"id\"', '\"\\u0069d\"')::json",
                "(left({c}::text, -1) || ',\"zz\":null}')::json",
                "({c}::jsonb)::text::json",
                "'null'",
                "'[]'",
                "NULL",
            ],
            other => panic!("no values for type {other} of column {column}"),
        };
        values.iter().map(|value| value.replace("{c}", column)).collect()
    }

    #[pg_test]
    fn finds_every_changed_column() {
        begin_with_entries();
        let columns = rows(
            "SELECT attname, format_type(atttypid, NULL), attnotnull FROM pg_attribute
             WHERE attrelid = 'lead_audit.entry'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        );
        assert!(columns.len() >= 31, "{columns:?}");
        run("CREATE TEMP TABLE original AS SELECT * FROM lead_audit.entry");
        let mut tampered = 0;
        for column in &columns {
            let [name, column_type, not_null] = column.split(" | ").collect::<Vec<_>>()[..] else {
                panic!("{column}")
            };
            for value in other_values(name, column_type) {
                if value == "NULL" && not_null == "true" {
                    continue;
                }
                for id in ids() {
                    run(&format!("UPDATE lead_audit.entry SET {name} = {value} WHERE id = {id}"));
                    let changed = rows(
                        "SELECT e.id FROM lead_audit.entry e WHERE NOT EXISTS (SELECT FROM original o WHERE o::text = e::text)",
                    );
                    if let [changed] = &changed[..] {
                        tampered += 1;
                        let faults = rows(
                            "SELECT id, fault <> '' AND detail <> '' FROM lead_audit.verify()",
                        );
                        assert_eq!(
                            faults,
                            [format!("{changed} | true")],
                            "{name} = {value} of entry {id}"
                        );
                        assert_eq!(
                            one(&format!("SELECT lead_audit.verify_entry({changed})")),
                            "false",
                            "{name} = {value} of entry {id}"
                        );
                        run(&format!(
                            "DELETE FROM lead_audit.entry WHERE id = {changed};
                                 INSERT INTO lead_audit.entry SELECT * FROM original WHERE id = {id}"
                        ));
                    }
                }
            }
        }
        assert!(tampered > 600, "only {tampered} changes were tried");
        assert_intact();
    }

    #[pg_test]
    fn names_each_fault() {
        begin_with_entries();
        let entry = ids();
        run(&format!(
            "UPDATE lead_audit.entry SET user_id = 'x' WHERE id = {};
             UPDATE lead_audit.entry SET format = 2 WHERE id = {};
             UPDATE lead_audit.entry SET checksum = '\\x00' WHERE id = {}",
            entry[1], entry[3], entry[4]
        ));
        assert_eq!(
            rows("SELECT id, fault FROM lead_audit.verify()"),
            [
                format!("{} | checksum", entry[1]),
                format!("{} | unknown_format", entry[3]),
                format!("{} | checksum", entry[4])
            ]
        );
    }

    /// verify() reports a forged entry with a valid checksum if its `row_key` is not canonical JSON
    /// or does not fit its `key_hash`.
    #[pg_test]
    fn valid_checksum_over_wrong_bytes() {
        begin_with_entries();
        let id = ids()[0];
        let forge = |column: &str, value: &str, preimage: &str| {
            run(&format!(
                "UPDATE lead_audit.entry SET {column} = {} WHERE id = {id};
                 UPDATE lead_audit.entry e SET checksum = sha256(convert_to({preimage}, 'UTF8')) WHERE id = {id}",
                literal(value)
            ));
        };
        let row_key = one(&format!("SELECT row_key FROM lead_audit.entry WHERE id = {id}"));
        let preimage = r#"(SELECT '{' || string_agg(to_json(k)::text || ':' || v, ',' ORDER BY k COLLATE "C") || '}' FROM (VALUES
            ('id', e.id::text), ('format', e.format::text), ('txid', e.txid::text), ('backend_pid', e.backend_pid::text),
            ('key_hash', e.key_hash::text), ('relation', e.relation::text),
            ('occurred_at', to_json(to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text),
            ('watch_id', to_json(e.watch_id::text)::text), ('table_schema', to_json(e.table_schema)::text),
            ('table_name', to_json(e.table_name)::text), ('operation', to_json(e.operation)::text), ('outcome', to_json(e.outcome)::text),
            ('row_key', e.row_key::text), ('row_values', e.row_values::text), ('db_session_user', to_json(e.db_session_user)::text),
            ('db_current_user', to_json(e.db_current_user)::text), ('client_addr', to_json(e.client_addr)::text),
            ('application_name', to_json(e.application_name)::text)) c(k, v) WHERE v IS NOT NULL)"#;
        // With the unchanged `row_key`, the SQL expression `preimage` must give the checksum that
        // the library has stored.
        forge("row_key", &row_key, preimage);
        assert_intact();
        forge("row_key", r#"{"id": "a"}"#, preimage);
        assert_eq!(
            rows("SELECT id, fault FROM lead_audit.verify()"),
            [format!("{id} | not_canonical")]
        );
        forge("row_key", r#"{"id":"zz"}"#, preimage);
        assert_eq!(rows("SELECT id, fault FROM lead_audit.verify()"), [format!("{id} | key_hash")]);
    }

    #[pg_test]
    fn value_in_an_unknown_column() {
        begin_with_entries();
        run(
            "ALTER TABLE lead_audit.entry ADD extra text, ADD gone int; ALTER TABLE lead_audit.entry DROP gone",
        );
        assert_intact();
        let entry = ids();
        run(&format!("UPDATE lead_audit.entry SET extra = 'x' WHERE id = {}", entry[2]));
        assert_eq!(
            rows("SELECT id, fault FROM lead_audit.verify()"),
            [format!("{} | unknown_column", entry[2])]
        );
        assert_eq!(one(&format!("SELECT lead_audit.verify_entry({})", entry[2])), "false");
        assert_eq!(one(&format!("SELECT lead_audit.verify_entry({})", entry[1])), "true");
        // Later writes have entries, although the log has a column that the library does not know.
        run("INSERT INTO leads (id) VALUES ('later')");
        run("UPDATE lead_audit.entry SET extra = NULL");
        assert_intact();
    }

    #[pg_test]
    fn ids_and_ranges_without_entries() {
        begin();
        for id in ["0", "-1", "9223372036854775807", "NULL"] {
            assert_eq!(one(&format!("SELECT lead_audit.verify_entry({id})")), "false", "{id}");
        }
        assert_eq!(rows("SELECT * FROM lead_audit.verify()"), [""; 0]);
        assert_eq!(rows("SELECT * FROM lead_audit.verify(5, 4)"), [""; 0]);
    }

    #[pg_test]
    fn forged_and_deleted_entries() {
        begin_with_entries();
        let entry = ids();
        run(&format!(
            "INSERT INTO lead_audit.entry SELECT (jsonb_populate_record(e, '{{\"id\": 9000000000000000000}}')).*
                 FROM lead_audit.entry e WHERE id = {}",
            entry[0]
        ));
        assert_eq!(
            rows("SELECT id, fault FROM lead_audit.verify()"),
            ["9000000000000000000 | checksum"]
        );
        assert_eq!(one("SELECT lead_audit.verify_entry(9000000000000000000)"), "false");
        run("DELETE FROM lead_audit.entry");
        assert_eq!(one(&format!("SELECT lead_audit.verify_entry({})", entry[0])), "false");
    }

    #[pg_test]
    fn verify_a_range() {
        begin_with_entries();
        run("UPDATE lead_audit.entry SET user_id = 'eve'");
        let entry = ids();
        let found = |arguments: &str| -> Vec<i64> {
            rows(&format!("SELECT id FROM lead_audit.verify({arguments})"))
                .iter()
                .map(|id| id.parse().expect("an id"))
                .collect()
        };
        assert_eq!(found(""), entry);
        assert_eq!(found(&entry[2].to_string()), entry[2..]);
        assert_eq!(found(&format!("{}, {}", entry[1], entry[3])), entry[1..=3]);
        assert_eq!(found(&format!("to_id => {}", entry[0])), entry[..1]);
        let time = |place: usize| {
            format!("(SELECT occurred_at FROM lead_audit.entry WHERE id = {})", entry[place])
        };
        assert_eq!(found(&format!("from_time => {}", time(4))), entry[4..]);
        assert_eq!(
            found(&format!("from_time => {}, to_time => {}", time(1), time(2))),
            entry[1..=2]
        );
        assert_eq!(
            found(&format!("from_id => {}, to_time => {}", entry[2], time(3))),
            entry[2..=3]
        );
        assert_eq!(found("from_time => 'infinity'"), [0_i64; 0]);
        assert_eq!(found("to_time => '-infinity'"), [0_i64; 0]);
    }

    #[pg_test]
    fn verify_many_entries() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, note text); SELECT lead_audit.enable('t');
             INSERT INTO t SELECT g, repeat('x', g) FROM generate_series(1, 1700) g;
             ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only");
        assert_intact();
        run("UPDATE lead_audit.entry SET user_ip = '::1' WHERE id IN (SELECT id FROM lead_audit.entry
             ORDER BY id OFFSET 1699)");
        assert_eq!(
            rows("SELECT id FROM lead_audit.verify()"),
            rows("SELECT max(id) FROM lead_audit.entry")
        );
    }

    #[pg_test]
    fn summary_counts() {
        begin_with_leads();
        run("SET LOCAL lead_audit.user_id = 'u-1'; INSERT INTO leads (id) VALUES ('a'), ('b');
             SET LOCAL lead_audit.user_id = 'u-2'; UPDATE leads SET email = 'x'; UPDATE leads SET email = 'y' WHERE id = 'a';
             UPDATE leads SET is_deleted = true;
             SET LOCAL lead_audit.user_id = ''; DELETE FROM leads WHERE id = 'a'; INSERT INTO leads (id) VALUES ('a')");
        let summary = |key: &str| {
            one(&format!(
                "SELECT total, created, updated, deleted, failed, distinct_users, verified
                     FROM lead_audit.summary('leads', '{key}')"
            ))
        };
        assert_eq!(summary("a"), "6 | 2 | 3 | 1 | 0 | 2 | true");
        assert_eq!(summary("b"), "3 | 1 | 2 | 0 | 0 | 2 | true");
        assert_eq!(summary("nobody"), "0 | 0 | 0 | 0 | 0 | 0 | NULL");
        assert_eq!(
            one("SELECT s.first_event = h.a AND s.last_event = h.b FROM lead_audit.summary('leads', 'a') s,
                 (SELECT min(occurred_at) AS a, max(occurred_at) AS b FROM lead_audit.history('leads', 'a')) h"),
            "true"
        );
        assert_eq!(
            one(
                "SELECT s::text = j::text FROM lead_audit.summary('leads', 'a') s, lead_audit.summary('leads', '{\"id\": \"a\"}'::jsonb) j"
            ),
            "true"
        );
        // Changes one entry in the middle of a row's history.
        run("ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only;
             UPDATE lead_audit.entry SET user_agent = 'forged' WHERE id = (SELECT id FROM lead_audit.history('leads', 'a')
             ORDER BY id OFFSET 2 LIMIT 1)");
        assert_eq!(summary("a"), "6 | 2 | 3 | 1 | 0 | 2 | false");
        assert_eq!(summary("b"), "3 | 1 | 2 | 0 | 0 | 2 | true");
    }

    /// If the key hash of an entry was changed, history() and summary() do not find the entry, but
    /// verify() reports the entry.
    #[pg_test]
    fn summary_without_an_entry_that_was_hidden() {
        begin_with_entries();
        let id = ids()[1];
        run(&format!("UPDATE lead_audit.entry SET key_hash = key_hash + 1 WHERE id = {id}"));
        assert_eq!(rows("SELECT id FROM lead_audit.verify()"), [id.to_string()]);
    }

    #[pg_test]
    fn history_is_in_order_and_complete() {
        begin_with_leads();
        run("INSERT INTO leads (id) SELECT 'lead ' || g FROM generate_series(1, 50) g;
             DO $$ BEGIN FOR i IN 1 .. 40 LOOP UPDATE leads SET email = i::text; END LOOP; END $$; DELETE FROM leads");
        let history = rows(
            "SELECT operation, new_values->'email' FROM lead_audit.history('leads', 'lead 7')",
        );
        assert_eq!(history.len(), 42);
        assert_eq!((history[0].as_str(), history[41].as_str()), ("INSERT | NULL", "DELETE | NULL"));
        assert!((1..=40).all(|i| history[i] == format!("UPDATE | {i}")), "{history:?}");
        assert_eq!(
            one(
                "SELECT count(*) = 42 AND bool_and(h::text = l::text)
                 FROM lead_audit.history('leads', 'lead 7') h JOIN lead_audit.log l ON l.id = h.id"
            ),
            "true"
        );
    }
}
