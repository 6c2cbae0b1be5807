//! Tests that objects of an application cannot mislead the extension. The objects are schemas
//! before pg_catalog on the search_path, temporary tables, and names full of quotes. Other objects
//! are functions that write while capture records a row, and tables with as many columns as
//! PostgreSQL allows.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    /// SQL that creates the schema `evil`. Its functions and operators return false results or
    /// raise errors. The schema affects every query that runs while `evil` stands before pg_catalog
    /// on the search_path.
    const EVIL: &str = "CREATE SCHEMA evil;
        CREATE FUNCTION evil.trap(anyelement) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped' USING ERRCODE = 'LA666'; END $$;
        CREATE FUNCTION evil.trap2(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped' USING ERRCODE = 'LA666'; END $$;
        CREATE FUNCTION evil.trap2(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped' USING ERRCODE = 'LA666'; END $$;
        CREATE FUNCTION evil.trap2(name, name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped' USING ERRCODE = 'LA666'; END $$;
        CREATE FUNCTION evil.trap2(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped' USING ERRCODE = 'LA666'; END $$;
        CREATE FUNCTION evil.trap2(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped' USING ERRCODE = 'LA666'; END $$;
        CREATE FUNCTION evil.trap2(\"char\", \"char\") RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped' USING ERRCODE = 'LA666'; END $$;
        CREATE FUNCTION evil.trap3(jsonb, jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped' USING ERRCODE = 'LA666'; END $$;
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.trap2);
        CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.trap2);
        CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.trap2);
        CREATE OPERATOR evil.<> (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.trap2);
        CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.trap2);
        CREATE OPERATOR evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = evil.trap2);
        CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.trap2);
        CREATE OPERATOR evil.>= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.trap2);
        CREATE OPERATOR evil.= (LEFTARG = \"char\", RIGHTARG = \"char\", FUNCTION = evil.trap2);
        CREATE OPERATOR evil.|| (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = evil.trap3);
        CREATE FUNCTION evil.has_function_privilege(oid, text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE FUNCTION evil.jsonb_each_text(jsonb, OUT key text, OUT value text) RETURNS SETOF record LANGUAGE sql AS $$ SELECT 'x', evil.trap(1) $$;
        CREATE FUNCTION evil.format(text, text) RETURNS text LANGUAGE sql AS $$ SELECT evil.trap(1) $$;
        CREATE FUNCTION evil.format(text, text, text) RETURNS text LANGUAGE sql AS $$ SELECT evil.trap(1) $$;
        CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '1999-01-01'::timestamptz $$;
        CREATE FUNCTION evil.gen_random_uuid() RETURNS uuid LANGUAGE sql AS $$ SELECT '00000000-0000-0000-0000-000000000000'::uuid $$;
        CREATE FUNCTION evil.current_query() RETURNS text LANGUAGE sql AS $$ SELECT evil.trap(1) $$;
        CREATE FUNCTION evil.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS $$ SELECT '\"forged\"'::jsonb $$;
        CREATE FUNCTION evil.inet_client_addr() RETURNS inet LANGUAGE sql AS $$ SELECT '6.6.6.6'::inet $$;
        CREATE TABLE evil.pg_class (oid oid, relname name); CREATE TABLE evil.pg_trigger (oid oid);
        CREATE TABLE evil.pg_depend (objid oid);
        CREATE TABLE evil.pg_namespace (oid oid); CREATE TABLE evil.entry (id int); CREATE TABLE evil.watch (id int);
        CREATE TABLE evil.pg_attribute (attname name);
        CREATE DOMAIN evil.text AS int; CREATE DOMAIN evil.uuid AS int; CREATE DOMAIN evil.bigint AS int;
        CREATE DOMAIN evil.jsonb AS int;
        GRANT USAGE ON SCHEMA evil TO PUBLIC";

    #[pg_test]
    fn search_path() {
        begin();
        run(EVIL);
        run("CREATE ROLE clerk; CREATE TABLE public.leads (id varchar PRIMARY KEY, note varchar, is_deleted boolean, at timestamptz, l inet[]);
             ALTER TABLE public.leads OWNER TO clerk; GRANT CREATE ON SCHEMA public TO clerk;
             SET LOCAL search_path = evil, pg_catalog, public");
        assert!(
            failure("SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text").starts_with("LA666"),
            "the trap works"
        );
        run("SELECT lead_audit.enable('public.leads', baseline => true)");
        run_as(
            "clerk",
            "INSERT INTO public.leads VALUES ('a', 'x', false, '2020-01-01 00:00+00', '{10.0.0.1}');
                 UPDATE public.leads SET is_deleted = true; DELETE FROM public.leads; TRUNCATE public.leads",
        );
        let history = rows(
            "SELECT operation, soft_delete, old_values, new_values, diff
                 FROM lead_audit.history('public.leads'::regclass, 'a'::pg_catalog.text)",
        );
        let summary = rows(
            "SELECT total, verified FROM lead_audit.summary('public.leads'::regclass, '{\"id\":\"a\"}'::pg_catalog.jsonb)",
        );
        let faults = rows("SELECT * FROM lead_audit.verify()");
        let watched = rows("SELECT state, row_trigger_on FROM lead_audit.watched");
        let refused = failure_as("clerk", "ALTER TABLE public.leads DISABLE TRIGGER USER");
        run("ALTER TABLE public.leads RENAME TO prospects; ALTER TABLE public.prospects DISABLE TRIGGER USER;
             ALTER TABLE public.prospects ENABLE TRIGGER USER;
             SELECT lead_audit.disable('public.prospects'); SELECT lead_audit.enable('public.prospects');
             DROP TABLE public.prospects;
             RESET search_path");
        assert_eq!(
            history,
            [
                r#"INSERT | NULL | NULL | {"l": ["10.0.0.1"], "at": "2020-01-01T00:00:00+00:00", "id": "a", "note": "x", "is_deleted": false} | NULL"#,
                r#"UPDATE | deleted | {"l": ["10.0.0.1"], "at": "2020-01-01T00:00:00+00:00", "id": "a", "note": "x", "is_deleted": false} | {"l": ["10.0.0.1"], "at": "2020-01-01T00:00:00+00:00", "id": "a", "note": "x", "is_deleted": true} | {"is_deleted": {"new": true, "old": false}}"#,
                r#"DELETE | NULL | {"l": ["10.0.0.1"], "at": "2020-01-01T00:00:00+00:00", "id": "a", "note": "x", "is_deleted": true} | NULL | NULL"#
            ]
        );
        assert_eq!(
            (summary, faults, watched),
            (vec!["3 | true".to_owned()], vec![], vec!["on | true".to_owned()])
        );
        assert!(refused.starts_with("42501"), "{refused}");
        assert_eq!(
            log("operation, table_name").split_off(4),
            [
                "DDL | leads",
                "DDL | prospects",
                "DDL | prospects",
                "DDL | prospects",
                "DDL | prospects",
                "DDL | prospects"
            ]
        );
        assert!(holds(
            "SELECT min(occurred_at) > '2020-01-01' AND min(enabled_at) > '2020-01-01' FROM lead_audit.entry, lead_audit.watch"
        ));
        assert_intact();
    }

    #[pg_test]
    fn search_path_at_create_extension() {
        begin();
        run(EVIL);
        run("DROP EXTENSION lead_audit CASCADE; CREATE TABLE evil.leads (id int PRIMARY KEY);
             SET LOCAL search_path = evil, pg_catalog, public;
             CREATE EXTENSION lead_audit; INSERT INTO evil.leads VALUES (1); RESET search_path");
        assert_eq!(log("operation, table_schema"), ["INSERT | evil"]);
        assert_intact();
    }

    #[pg_test]
    fn temporary_tables() {
        begin_with_leads();
        run(
            "CREATE ROLE clerk; ALTER TABLE leads OWNER TO clerk; GRANT CREATE ON SCHEMA public TO clerk",
        );
        run_as(
            "clerk",
            "CREATE TEMP TABLE entry (LIKE leads); CREATE TEMP TABLE log (id int); CREATE TEMP TABLE watch (id int);
                 CREATE TEMP TABLE watched (id int);
             CREATE TEMP TABLE pg_class (oid oid); CREATE TEMP TABLE pg_trigger (oid oid);
             CREATE TEMP TABLE audit_trigger (relation oid);
             CREATE TEMP TABLE pg_namespace (oid oid); CREATE TEMP SEQUENCE entry_id_seq;
             INSERT INTO public.leads (id) VALUES ('a'); UPDATE public.leads SET email = 'x';
             ALTER TABLE public.leads RENAME TO prospects",
        );
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('public.prospects', 'a')"),
            ["INSERT", "UPDATE"]
        );
        assert_eq!(rows("SELECT relation, state FROM lead_audit.watched"), ["prospects | on"]);
        assert_fails_as(
            "clerk",
            "ALTER TABLE public.prospects DISABLE TRIGGER USER",
            "42501",
            "permission denied to disable",
        );
        run(
            "SELECT lead_audit.disable('public.prospects'); SELECT lead_audit.enable('public.prospects', baseline => true)",
        );
        // A temporary table that has the name of a watched table is not watched, so writes to it
        // have no entries.
        run("CREATE TEMP TABLE prospects (id varchar PRIMARY KEY); INSERT INTO prospects VALUES ('temporary');
                 DROP TABLE prospects");
        assert_eq!(
            log("operation, row_key->>'id'"),
            ["INSERT | a", "UPDATE | a", "DDL | NULL", "DDL | NULL", "DDL | NULL", "SNAPSHOT | a"]
        );
        assert_intact();
    }

    #[pg_test]
    fn names() {
        begin();
        for name in [
            "we\"ird",
            "it's",
            "a.b",
            "$$",
            "$1",
            "%I %s %",
            "back\\slash",
            "; DROP TABLE x; --",
            "new\nline",
            "é😀",
            " ",
            "{\"a\":1}",
            "NULL",
            "\\000",
        ] {
            let name = format!("{name} {}", "n".repeat(63 - name.len() - 1));
            let quoted = identifier(&name);
            let table = format!("{quoted}.{quoted}");
            run(&format!(
                "CREATE SCHEMA {quoted}; CREATE TABLE {table} ({quoted} int PRIMARY KEY, flag boolean, \"f {}\" boolean)",
                "'"
            ));
            run(&format!(
                "SELECT lead_audit.enable({}::regclass, {}, true)",
                literal(&table),
                literal("f '")
            ));
            run(&format!(
                "INSERT INTO {table} VALUES (1, true, false); UPDATE {table} SET \"f '\" = true; TRUNCATE {table}"
            ));
            let history = rows(&format!(
                "SELECT operation, soft_delete, table_schema, table_name FROM lead_audit.history({}::regclass, '1')",
                literal(&table)
            ));
            assert_eq!(
                history,
                [
                    format!("INSERT | NULL | {name} | {name}"),
                    format!("UPDATE | deleted | {name} | {name}")
                ]
            );
            assert_eq!(
                rows("SELECT row_trigger_on, truncate_trigger_on, state FROM lead_audit.watched"),
                ["true | true | on"],
                "{name}"
            );
            run(&format!(
                "ALTER TABLE {table} DISABLE TRIGGER ALL; ALTER TABLE {table} ENABLE TRIGGER ALL;
                     SELECT lead_audit.disable({0}::regclass); SELECT lead_audit.enable({0}::regclass)",
                literal(&table)
            ));
            run(&format!(
                "ALTER TABLE {table} RENAME TO \"x \"\" y\"; DROP TABLE {quoted}.\"x \"\" y\""
            ));
            assert_eq!(rows("SELECT 1 FROM lead_audit.watched"), [""; 0], "{name}");
            let ended = rows(&format!(
                "SELECT table_schema, table_name FROM lead_audit.log WHERE operation = 'DDL' AND table_schema = {} ORDER BY id",
                literal(&name)
            ));
            // The last four entries record disable(), the next enable(), the rename of the table,
            // and its drop.
            assert_eq!(ended.len(), 6, "{ended:?}");
            assert_eq!(ended[5], format!("{name} | x \" y"));
        }
        assert_intact();
    }

    #[pg_test]
    fn values_in_the_context() {
        begin_with_leads();
        let nasty = "'; DROP TABLE leads; -- \"\\ \n\t\u{1}\u{7f} é😀\u{2028} {\"a\":1} %s $1";
        run(&format!(
            "SET LOCAL lead_audit.user_id = {0}; SET LOCAL lead_audit.user_agent = {0}; SET LOCAL lead_audit.request_id = {0};
                 INSERT INTO leads (id, email) VALUES ({0}, {0})",
            literal(nasty)
        ));
        assert_eq!(
            log("user_id, user_agent, request_id, row_key->>'id', new_values->>'email'"),
            [[nasty; 5].join(" | ")]
        );
        assert_eq!(
            one(&format!(
                "SELECT total, verified FROM lead_audit.summary('leads', {}::text)",
                literal(nasty)
            )),
            "1 | true"
        );
        assert_intact();
    }

    #[pg_test]
    fn wide_tables() {
        begin();
        for columns in [100, 1000, 1600] {
            let definitions: Vec<String> = (1..columns)
                .map(|i| format!("c{i} {}", ["int", "text", "boolean", "int2"][i % 4]))
                .collect();
            run(&format!(
                "CREATE TABLE wide (id int PRIMARY KEY, {});
                 SELECT lead_audit.enable('wide')",
                definitions.join(", ")
            ));
            run(&format!(
                "INSERT INTO wide (id, c1, c4, c{0}) VALUES (1, 't', 4, NULL), (2, NULL, 5, NULL);
                     UPDATE wide SET c4 = c4 + 1, c{0} = NULL",
                columns - 1
            ));
            assert_eq!(
                rows(
                    "SELECT l.operation, l.diff, l.new_values::text = to_jsonb(w)::text, (SELECT count(*)
                     FROM jsonb_object_keys(l.old_values))
                      FROM wide w, lead_audit.history('wide', w.id::text) l WHERE l.operation = 'UPDATE' ORDER BY w.id"
                ),
                [
                    format!(r#"UPDATE | {{"c4": {{"new": 5, "old": 4}}}} | true | {columns}"#),
                    format!(r#"UPDATE | {{"c4": {{"new": 6, "old": 5}}}} | true | {columns}"#)
                ]
            );
            run("DROP TABLE wide");
        }
        assert_intact();
    }

    #[pg_test]
    fn deeply_nested_json() {
        begin();
        run("CREATE TABLE deep (id int PRIMARY KEY, j jsonb, t json); SELECT lead_audit.enable('deep');
             INSERT INTO deep SELECT 1, v::jsonb, v::json FROM (SELECT repeat('[{\"b\":1,\"a\":', 1000) || '0' || repeat('}]', 1000) AS v) s");
        assert_eq!(
            one("SELECT l.new_values::text = to_jsonb(deep)::text FROM deep, lead_audit.log l"),
            "true"
        );
        assert_eq!(rows("SELECT * FROM lead_audit.verify()"), [""; 0]);
    }

    /// The function of a cast to json writes to a watched table, so capture records a second row
    /// while it still records the first row.
    #[pg_test]
    fn function_that_writes_while_a_row_is_recorded() {
        begin();
        run("CREATE TABLE trace (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text); SELECT lead_audit.enable('trace');
             CREATE TYPE mood AS ENUM ('ok', 'well');
             CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN INSERT INTO trace (what)
             VALUES ($1::text); RETURN to_json('mood ' || $1::text); END $$;
             CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
             CREATE TABLE t (a text, id int PRIMARY KEY, m mood, z text); SELECT lead_audit.enable('t')");
        for (id, mode) in ["warn", "abort"].iter().enumerate() {
            run(&format!(
                "SET LOCAL lead_audit.on_error = {mode};
                     INSERT INTO t VALUES ('first', {id}, 'ok', 'last'), ('first', {id} + 10, 'well', 'last')"
            ));
            assert_eq!(
                rows(&format!(
                    "SELECT new_values FROM lead_audit.log WHERE table_name = 't' AND (row_key->>'id')::int IN ({id}, {id} + 10) ORDER BY id"
                )),
                [
                    format!(r#"{{"a": "first", "m": "mood ok", "z": "last", "id": {id}}}"#),
                    format!(
                        r#"{{"a": "first", "m": "mood well", "z": "last", "id": {}}}"#,
                        id + 10
                    )
                ],
                "{mode}"
            );
        }
        assert_eq!(
            one(
                "SELECT count(*), count(DISTINCT row_key) FROM lead_audit.log WHERE table_name = 'trace'"
            ),
            "4 | 4"
        );
        assert_intact();
    }

    /// A user can neither call the trigger functions capture() and capture_truncate() nor create
    /// triggers that call them.
    #[pg_test]
    fn use_of_the_trigger_functions() {
        begin_with_leads();
        run("CREATE TABLE t (id int PRIMARY KEY)");
        let call = failure("SELECT lead_audit.capture()");
        assert!(call.starts_with("0A000") || call.starts_with("39P01"), "{call}");
        for (definition, statement) in [
            (
                "BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION lead_audit.capture('00112233-4455-6677-8899-aabbccddeeff', '')",
                "INSERT INTO t VALUES (1)",
            ),
            (
                "AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.capture('00112233-4455-6677-8899-aabbccddeeff', '')",
                "INSERT INTO t VALUES (1)",
            ),
            (
                "AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION lead_audit.capture()",
                "INSERT INTO t VALUES (1)",
            ),
            (
                "AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION lead_audit.capture('no uuid', '')",
                "INSERT INTO t VALUES (1)",
            ),
            (
                "AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.capture_truncate('00112233-4455-6677-8899-aabbccddeeff')",
                "TRUNCATE t",
            ),
            (
                "AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION lead_audit.capture_truncate('00112233-4455-6677-8899-aabbccddeeff')",
                "INSERT INTO t VALUES (1)",
            ),
        ] {
            run(&format!("CREATE TRIGGER odd {definition}"));
            assert_fails(statement, "39P01", "cannot be used here");
            run("DROP TRIGGER odd ON t");
        }
        assert_eq!(one("SELECT count(*) FROM lead_audit.entry WHERE operation <> 'DDL'"), "0");
    }
}
