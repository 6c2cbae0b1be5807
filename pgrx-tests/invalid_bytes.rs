//! Tests texts with invalid bytes: bytes that are not UTF-8, and NUL. PostgreSQL refuses invalid
//! bytes in its input. But casts without a function, C functions and old releases of PostgreSQL can
//! store invalid bytes in a table. Entries keep every invalid byte (docs/FORMAT.md, section 3.1).

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    /// Creates the SQL function bytes(), which returns a text that consists of arbitrary bytes.
    fn begin_with_bytes() {
        begin();
        run(
            "CREATE CAST (bytea AS text) WITHOUT FUNCTION;
             CREATE FUNCTION bytes(bytea) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::text'",
        );
    }

    #[pg_test]
    fn in_a_text_column() {
        begin_with_bytes();
        run(
            r#"CREATE TABLE notes (id text PRIMARY KEY, note text, short varchar(10)); SELECT lead_audit.enable('notes');
              INSERT INTO notes VALUES ('a', bytes('caf\351 \\ "100%"'), 'ok');
              UPDATE notes SET note = bytes('\377\200x');
              UPDATE notes SET short = 'changed';
              UPDATE notes SET note = 'valid';
              DELETE FROM notes"#,
        );
        assert_eq!(
            log("operation, old_values->'note', new_values->'note', details"),
            [
                r#"INSERT | NULL | {"$bytes": "caf%E9 \\ \"100%25\""} | {"invalid_bytes":{"row_values":["note"]}}"#,
                r#"UPDATE | {"$bytes": "caf%E9 \\ \"100%25\""} | {"$bytes": "%FF%80x"} | {"invalid_bytes":{"changed_values":["note"],"row_values":["note"]}}"#,
                r#"UPDATE | {"$bytes": "%FF%80x"} | {"$bytes": "%FF%80x"} | {"invalid_bytes":{"row_values":["note"]}}"#,
                r#"UPDATE | {"$bytes": "%FF%80x"} | valid | {"invalid_bytes":{"row_values":["note"]}}"#,
                r#"DELETE | valid | NULL | NULL"#,
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn nul_in_a_text_column() {
        begin_with_bytes();
        run(
            r"CREATE TABLE notes (id int PRIMARY KEY, note text, doc jsonb); SELECT lead_audit.enable('notes');
              INSERT INTO notes VALUES (1, 'a' || bytes('\000') || 'b', NULL);
              INSERT INTO notes VALUES (2, bytes('\000'), '{}')",
        );
        assert_eq!(
            log("new_values->'note', new_values->'doc', details"),
            [
                r#"{"$bytes": "a%00b"} | NULL | {"invalid_bytes":{"row_values":["note"]}}"#,
                r#"{"$bytes": "%00"} | {} | {"invalid_bytes":{"row_values":["note"]}}"#,
            ]
        );
        assert_eq!(rows("SELECT operation FROM lead_audit.history('notes', '1')"), ["INSERT"]);
        assert_intact();
    }

    #[pg_test]
    fn in_a_key() {
        begin_with_bytes();
        run(r"CREATE TABLE keyed (id text PRIMARY KEY, n int); SELECT lead_audit.enable('keyed');
              INSERT INTO keyed VALUES (bytes('k\377'), 1), ('k%FF', 2), (bytes('k\000'), 3);
              UPDATE keyed SET n = 4 WHERE n = 1;
              UPDATE keyed SET id = bytes('l\377') WHERE n = 4;
              DELETE FROM keyed WHERE n = 4");
        let history = |key: &str| {
            rows(&format!(
                "SELECT operation, row_key FROM lead_audit.history('keyed', {key}::text)"
            ))
        };
        assert_eq!(
            history(r"bytes('k\377')"),
            [
                r#"INSERT | {"id": {"$bytes": "k%FF"}}"#,
                r#"UPDATE | {"id": {"$bytes": "k%FF"}}"#,
                r#"UPDATE | {"id": {"$bytes": "l%FF"}}"#,
            ]
        );
        assert_eq!(
            history(r"bytes('l\377')"),
            [r#"UPDATE | {"id": {"$bytes": "l%FF"}}"#, r#"DELETE | {"id": {"$bytes": "l%FF"}}"#]
        );
        assert_eq!(history("'k%FF'"), [r#"INSERT | {"id": "k%FF"}"#]);
        assert_eq!(
            log("details->'invalid_bytes'"),
            [
                r#"{"row_key":["id"],"row_values":["id"]}"#,
                "NULL",
                r#"{"row_key":["id"],"row_values":["id"]}"#,
                r#"{"row_key":["id"],"row_values":["id"]}"#,
                r#"{"changed_values":["id"],"row_key":["id"],"row_values":["id"]}"#,
                r#"{"row_key":["id"],"row_values":["id"]}"#,
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn within_values() {
        begin_with_bytes();
        run(r"CREATE TYPE pair AS (a text, b int);
              CREATE TABLE nested (id int PRIMARY KEY, list text[], pair pair, doc jsonb, plain json, many jsonb);
              SELECT lead_audit.enable('nested');
              INSERT INTO nested VALUES (1, ARRAY['x', bytes('\351')], ROW(bytes('\351'), 1),
                jsonb_build_object(bytes('b\377'), 1, 'b%FF', 2, 'a', 3), json_build_array(bytes('\351')),
                jsonb_build_object('z', 1, 'yy', bytes('\340\240')))");
        assert_eq!(
            log(
                "new_values->'list', new_values->'pair', new_values->'doc', new_values->'plain', new_values->'many', details"
            ),
            [[
                r#"{"$json_bytes": "[\"x\",\"%E9\"]"}"#,
                r#"{"$json_bytes": "{\"a\":\"%E9\",\"b\":1}"}"#,
                r#"{"$json_bytes": "{\"a\":3,\"b%25FF\":2,\"b%FF\":1}"}"#,
                r#"{"$json_bytes": "[\"%E9\"]"}"#,
                r#"{"$json_bytes": "{\"yy\":\"%E0%A0\",\"z\":1}"}"#,
                r#"{"invalid_bytes":{"row_values":["doc","list","many","pair","plain"]}}"#,
            ]
            .join(" | ")]
        );
        assert_intact();
    }

    /// A valid value can look like an encoded value with invalid bytes. `details.invalid_bytes`
    /// does not list the valid value, and an UPDATE from the valid to the invalid value has an
    /// entry.
    #[pg_test]
    fn values_that_look_like_encoded_bytes() {
        begin_with_bytes();
        run(
            r#"CREATE TABLE alike (id jsonb PRIMARY KEY, doc jsonb); SELECT lead_audit.enable('alike');
              INSERT INTO alike VALUES ('1', '{"$bytes": "%FF"}');
              UPDATE alike SET doc = to_jsonb(bytes('\377'));
              UPDATE alike SET doc = '{"$bytes": "%FF"}'"#,
        );
        assert_eq!(
            log("operation, diff, details"),
            [
                r#"INSERT | NULL | NULL"#,
                r#"UPDATE | {"doc": {"new": {"$bytes": "%FF"}, "old": {"$bytes": "%FF"}}} | {"invalid_bytes":{"changed_values":["doc"]}}"#,
                r#"UPDATE | {"doc": {"new": {"$bytes": "%FF"}, "old": {"$bytes": "%FF"}}} | {"invalid_bytes":{"row_values":["doc"]}}"#,
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn in_names() {
        begin_with_bytes();
        // The test renames the column with an UPDATE of pg_attribute. ALTER TABLE would fail in
        // PostgreSQL's convert_to(), because the name contains invalid bytes.
        run(r#"DO $$ DECLARE t text := format('%I.%I', bytes('s\351'), bytes('t\351')); BEGIN
                EXECUTE format('CREATE SCHEMA %I', bytes('s\351'));
                EXECUTE format('CREATE TABLE %s (id int PRIMARY KEY, %I text, plain int)', t, 'c%E9');
                PERFORM lead_audit.enable(t::regclass);
                UPDATE pg_attribute SET attname = bytes('c\351')::name WHERE attrelid = t::regclass AND attname = 'id';
                EXECUTE format('INSERT INTO %s VALUES (1, %L, 2)', t, bytes('\376'));
                EXECUTE format('UPDATE %s SET %I = 2', t, bytes('c\351'));
                EXECUTE format('TRUNCATE %s', t);
              END $$"#);
        assert_eq!(
            log("operation, table_schema, table_name, row_key, new_values, details"),
            [
                r#"INSERT | s%E9 | t%E9 | {"c%E9%": 1} | {"c%E9": {"$bytes": "%FE"}, "c%E9%": 1, "plain": 2} | {"invalid_bytes":{"names":["c%E9%"],"row_values":["c%E9"],"table_name":true,"table_schema":true}}"#,
                r#"UPDATE | s%E9 | t%E9 | {"c%E9%": 2} | {"c%E9": {"$bytes": "%FE"}, "c%E9%": 2, "plain": 2} | {"invalid_bytes":{"names":["c%E9%"],"row_values":["c%E9"],"table_name":true,"table_schema":true}}"#,
                r#"TRUNCATE | s%E9 | t%E9 | NULL | NULL | {"invalid_bytes":{"table_name":true,"table_schema":true},"row_count":1}"#,
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn in_the_name_of_a_role() {
        begin_with_bytes();
        run(r#"CREATE TABLE notes (id int PRIMARY KEY); SELECT lead_audit.enable('notes');
              DO $$ BEGIN EXECUTE format('CREATE ROLE %I', bytes('r\351')); EXECUTE format('GRANT INSERT ON notes TO %I', bytes('r\351'));
                EXECUTE format('SET LOCAL ROLE %I', bytes('r\351')); INSERT INTO notes VALUES (1); RESET ROLE; END $$"#);
        assert_eq!(
            log("db_current_user, details"),
            [r#"r%E9 | {"invalid_bytes":{"db_current_user":true}}"#]
        );
        assert_intact();
    }
}
