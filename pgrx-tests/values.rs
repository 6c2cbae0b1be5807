//! Tests that a row image equals to_jsonb of the row, to the last digit, for every type. A row
//! image does not depend on TimeZone, DateStyle, IntervalStyle, bytea_output, extra_float_digits
//! and lc_monetary of the writing session. An entry has the columns that the table had at the time
//! of the event.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    /// SQL that sets the output settings under which docs/FORMAT.md defines the text of values.
    const HOME: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = 'postgres';
        SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; SET LOCAL lc_monetary = 'C'";

    const ABROAD: [&str; 3] = [
        "SET LOCAL TimeZone = 'Asia/Kathmandu'; SET LOCAL DateStyle = 'German, DMY'; SET LOCAL IntervalStyle = 'sql_standard';
         SET LOCAL bytea_output = 'escape'; SET LOCAL extra_float_digits = -15",
        "SET LOCAL TimeZone = 'America/St_Johns'; SET LOCAL DateStyle = 'SQL, DMY'; SET LOCAL IntervalStyle = 'iso_8601';
         SET LOCAL bytea_output = 'escape'; SET LOCAL extra_float_digits = 0",
        "SET LOCAL TimeZone = 'Pacific/Apia'; SET LOCAL DateStyle = 'Postgres, YMD';
             SET LOCAL IntervalStyle = 'postgres_verbose';
         SET LOCAL bytea_output = 'escape'; SET LOCAL extra_float_digits = 3;
         DO $$ BEGIN SET LOCAL lc_monetary = 'de_DE.UTF-8'; EXCEPTION WHEN others THEN NULL; END $$",
    ];

    const TYPES: &str = "CREATE TYPE mood AS ENUM ('sad', 'gl\"ad', ''); CREATE DOMAIN whole AS int CHECK (VALUE <> 13);
        CREATE DOMAIN instant AS timestamptz; CREATE DOMAIN instants AS timestamptz[];
        CREATE TYPE inner_one AS (at timestamptz, \"odd \"\"name\" interval, raw bytea, price money);
        CREATE TYPE outer_one AS (n numeric, one inner_one, many inner_one[], f float4); CREATE DOMAIN boxed AS outer_one;
        CREATE TYPE shade AS ENUM ('dark', 'light');
        CREATE FUNCTION shade_json(shade) RETURNS json LANGUAGE sql AS $$ SELECT json_build_object('z', $1::text, 'at', '2020-01-01 00:00+00'::timestamptz) $$;
        CREATE CAST (shade AS json) WITH FUNCTION shade_json(shade)";

    /// Names of types. Each type has SQL expressions for some of its values.
    const VALUES: &[(&str, &[&str])] = &[
        ("boolean", &["true", "false"]),
        ("smallint", &["-32768", "32767", "0"]),
        ("integer", &["-2147483648", "2147483647"]),
        ("bigint", &["-9223372036854775808", "9223372036854775807", "9007199254740993"]),
        (
            "real",
            &[
                "1.1",
                "'-0'",
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "1e-40",
                "3.4028235e38",
                "16777217",
                "1e15",
                "1e-7",
                "0",
            ],
        ),
        (
            "double precision",
            &[
                "0.1::float8 + 0.2",
                "'-0'",
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "5e-324",
                "1.7976931348623157e308",
                "1e15",
                "1e16",
                "123456789.125",
                "0",
            ],
        ),
        (
            "numeric",
            &[
                "1.10",
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "repeat('7', 1000)::numeric",
                "('-0.' || repeat('0', 998) || '10')::numeric",
                "0.000",
                "-0.0",
                "1e100",
                "'12345678901234567890.1234567890'",
                // Numerics in PostgreSQL's short and long storage format. PostgreSQL stores
                // numerics as digits of base 10,000. In the following values, the stored digits
                // begin or end with zeros, or zeros stand before and after the stored digits.
                "0",
                "1e64",
                "1e-64",
                "-1e-260::numeric(1000, 300)",
                "9999",
                "10000",
                "-100000000.0001",
                "0.00010002",
                "1000200030004.00050006",
                "1e131071",
                "1e-16383",
            ],
        ),
        ("numeric(12,2)", &["0", "9999999999.99", "-0.01"]),
        ("money", &["1234567.89", "-0.01", "'-92233720368547758.08'"]),
        (
            "text",
            &[
                "(SELECT string_agg(chr(i), '') FROM generate_series(1, 160) i)",
                "''",
                "E'é \\U0001F600 \\uE000 \\u2028 \\uFFFD \\u0301'",
                "'null'",
                "E'\"\\\\\\/\\b\\f\\n\\r\\t\\u007f'",
                "repeat('long ', 5000)",
            ],
        ),
        ("varchar(20)", &["'x'", "'  spaces  '", "'{}'"]),
        ("char(10)", &["'ab'", "''", "'äöü'"]),
        ("name", &["'a name'", "repeat('n', 63)"]),
        ("\"char\"", &["'c'", "''"]),
        (
            "bytea",
            &[
                "''",
                "'\\x00ff5c2722'",
                "(SELECT string_agg(set_byte('\\x00', 0, i), '')
             FROM generate_series(0, 255) i)",
            ],
        ),
        (
            "date",
            &[
                "'2024-02-29'",
                "'infinity'",
                "'-infinity'",
                "'4713-01-01 BC'",
                "'5874897-12-31'",
                "'0001-01-01'",
            ],
        ),
        ("time", &["'23:59:59.999999'", "'24:00'", "'00:00'", "'12:30:00.1'"]),
        ("time(3)", &["'23:59:59.9996'"]),
        ("timetz", &["'12:00+05:45'", "'23:59:59.999999-15:59'"]),
        (
            "timestamp",
            &[
                "'2024-02-29 23:59:59.1'",
                "'infinity'",
                "'-infinity'",
                "'4714-11-24 00:00 BC'",
                "'294276-12-31 23:59:59.999999'",
                "'0044-03-15 12:00 BC'",
                "'0001-01-01'",
                "'0001-12-31 23:59:59.999999 BC'",
                "'9999-12-31 23:59:59.999999'",
                "'10000-01-01'",
                "'2024-02-29 10:20:30'",
                "'2024-02-29 00:00:00.000001'",
                "'1999-12-31 23:59:00.1000'",
                "'2030-10-10 10:10:10.010'",
            ],
        ),
        (
            "timestamptz",
            &[
                "'2024-03-31 01:30:00.5+00'",
                "'infinity'",
                "'-infinity'",
                "'4714-11-24 00:00+00 BC'",
                "'294276-12-31 23:59:59.999999+00'",
                "'2000-01-01 12:00-07'",
                "'0001-01-01 00:00+00'",
                "'0001-12-31 23:59:59.999999+00 BC'",
                "'9999-12-31 23:59:59.999999+00'",
                "'10000-01-01 00:00+00'",
                "'2024-02-29 10:20:30+00'",
                "'2024-02-29 00:00:00.000001+00'",
                "'2030-10-10 10:10:10.010+00'",
            ],
        ),
        ("timestamptz(0)", &["'2024-03-31 01:30:00.5+00'"]),
        (
            "interval",
            &[
                "'1 year 2 mons -3 days 04:05:06.7'",
                "'-1 year'",
                "'0'",
                "'178000000 years'",
                "'-00:00:00.000001'",
                "'25:00'",
            ],
        ),
        (
            "uuid",
            &["'7D4C1F0E-52A9-4B7E-9D3B-0C6F5E1A2B84'", "'00000000-0000-0000-0000-000000000000'"],
        ),
        ("inet", &["'::1'", "'10.0.0.1/8'", "'192.168.1.1'", "'2001:db8::/32'"]),
        ("cidr", &["'10.0.0.0/8'", "'::/0'"]),
        ("macaddr", &["'08:00:2B:01:02:03'"]),
        ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
        (
            "json",
            &[
                r#"'{"b":1, "a" : [1, 2.50, 1e3, -0, -0.0], "b":{"dup":1,"dup":2}}'"#,
                "'null'",
                r#"'"\u0041\ud83d\ude00 \/"'"#,
                "' [ ] '",
                "'1e-2'",
                "'123456789012345678901234567890.10'",
            ],
        ),
        (
            "jsonb",
            &[
                r#"E'{"":1,"a.b":2,"é":3,"\\ud83d\\ude00":4,"\\ue000":5,"A":{"z":[],"y":{}},"1":1,"10":2,"9":3,"n":1.10,"\\"q\\\\":null,"\\u0001\\n":true,"aa":[[{"b":1,"a":2}]]}'"#,
                "'[]'",
                "'\"scalar\"'",
                "'1e400'",
                "'null'",
                "'true'",
                "'-0.00'",
                "'{\"$commitment\":\"x\"}'",
                "'1E-10'",
            ],
        ),
        ("xml", &["'<a b=\"c\">é &lt; &#x1F600;</a>'", "''"]),
        ("bit(5)", &["B'10110'"]),
        ("bit varying", &["B''", "B'1'"]),
        ("tsvector", &["'''a b'':1A,2 c'", "''"]),
        ("tsquery", &["'a & !(b | ''c d'':*)'"]),
        ("point", &["'(1.1,-0)'", "'(NaN,Infinity)'", "'(0.1,1e300)'"]),
        ("box", &["'((1,2),(0.3,4))'"]),
        ("circle", &["'<(1,2),0.1>'"]),
        ("line", &["'{1,-1,0.3}'"]),
        ("lseg", &["'[(1,2),(3.3,4)]'"]),
        ("path", &["'[(1,2),(3,4)]'", "'((1,2),(3,0.1))'"]),
        ("polygon", &["'((0,0),(1,0.1),(1,1))'"]),
        ("oid", &["4294967295", "0"]),
        ("xid8", &["'18446744073709551615'"]),
        ("tid", &["'(4,2)'"]),
        ("pg_lsn", &["'16/B374D848'"]),
        ("pg_snapshot", &["'10:20:10,14'"]),
        ("regclass", &["'pg_catalog.pg_class'"]),
        ("regtype", &["'timestamptz'"]),
        ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
        ("int2vector", &["'1 2 3'"]),
        ("integer[]", &["'{1,NULL,-3}'", "'{}'", "'{{1,2},{3,4}}'", "'[0:1]={1,2}'"]),
        ("text[]", &[r#"ARRAY['a "b"', NULL, 'NULL', '', E'\\ {},\n', 'é']"#]),
        ("numeric[]", &["'{1.10,NaN,1e50,-0.000}'"]),
        ("float8[]", &["'{0.1,-0,NaN,Infinity,1e-300,1e300}'"]),
        ("timestamptz[]", &["'{2024-03-31 01:30+00,infinity,NULL}'"]),
        ("date[]", &["'{2024-03-31,-infinity,0044-03-15 BC}'"]),
        ("interval[]", &["'{1 day -02:03:04,1 mon}'"]),
        ("bytea[]", &["ARRAY['\\x00ff'::bytea, '']"]),
        ("money[]", &["'{1.50,-2}'"]),
        ("json[]", &[r#"ARRAY['{"b":1,"a":2}'::json, 'null']"#]),
        ("jsonb[]", &[r#"ARRAY['{"bb":1,"a":2}'::jsonb, '1.0']"#]),
        ("int4range", &["'[1,5)'", "'empty'", "'(,)'"]),
        ("numrange", &["'(1.10,2.20]'"]),
        ("tsrange", &["'[2024-01-01,2024-06-01 12:00)'"]),
        ("tstzrange", &["'[2024-01-01 00:00+05:45,infinity]'", "'(,2024-01-01 00:00+00)'"]),
        ("daterange", &["'[2024-01-01,2024-06-01]'"]),
        (
            "tstzmultirange",
            &["'{[2024-01-01 00:00+00,2024-01-02 00:00+00),[2025-01-01 00:00+00,)}'"],
        ),
        ("mood", &["'sad'", "'gl\"ad'", "''"]),
        ("mood[]", &["ARRAY['sad', 'gl\"ad', NULL]::mood[]"]),
        ("shade", &["'dark'", "'light'"]),
        ("shade[]", &["ARRAY['dark'::shade]"]),
        ("whole", &["7"]),
        ("instant", &["'2024-03-31 01:30+00'"]),
        ("instants", &["'{2024-03-31 01:30+00}'"]),
        (
            "inner_one",
            &[
                "ROW('2024-03-31 01:30+00', '1 day 02:00', '\\x00', 12.5)",
                "ROW(NULL, NULL, NULL, NULL)",
            ],
        ),
        (
            "outer_one",
            &[
                "ROW(1.10, ROW('infinity', '-1 mon', '', -1)::inner_one, ARRAY[ROW('2024-03-31 01:30+00', NULL, '\\xff', 0)::inner_one, NULL], 0.1)",
            ],
        ),
        (
            "outer_one[]",
            &[
                "ARRAY[ROW(1.0, ROW('2024-03-31 01:30+00', '1 day', '\\x01', 5)::inner_one, '{}', 'NaN')::outer_one]",
            ],
        ),
        ("boxed", &["ROW(2.20, NULL, NULL, 1e10)"]),
    ];

    fn save(step: &str) {
        run(HOME);
        run(&format!("INSERT INTO version SELECT '{step}', id, to_jsonb(w) FROM wide w"));
    }

    /// Returns the types of `VALUES` that the server supports. A server that was built without
    /// libxml lacks the type xml.
    fn types_here() -> Vec<(&'static str, &'static [&'static str])> {
        let has_xml = holds(
            "SELECT count(*) = 1 FROM pg_config() WHERE name = 'CONFIGURE' AND setting LIKE '%--with-libxml%'",
        );
        VALUES.iter().copied().filter(|(type_name, _)| has_xml || *type_name != "xml").collect()
    }

    #[pg_test]
    fn every_type_equals_to_jsonb_in_any_session() {
        let types = types_here();
        let rows_needed = types.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        let columns: Vec<String> = (0..types.len()).map(|i| format!("c{i}")).collect();
        let definitions: Vec<String> = types
            .iter()
            .zip(&columns)
            .map(|((type_name, _), column)| format!("{column} {type_name}"))
            .collect();
        begin();
        run(TYPES);
        run(&format!(
            "CREATE TABLE wide (id int PRIMARY KEY, {}); SELECT lead_audit.enable('wide'); CREATE TABLE source (LIKE wide);
             CREATE TEMP TABLE version (step text, id int, row jsonb)",
            definitions.join(", ")
        ));
        for row in 0..=rows_needed {
            let values: Vec<String> = types
                .iter()
                .map(|(type_name, values)| match row < rows_needed {
                    true => format!("({})::{type_name}", values[row % values.len()]),
                    false => "NULL".to_owned(),
                })
                .collect();
            run(&format!("INSERT INTO source VALUES ({row}, {})", values.join(", ")));
        }
        for abroad in ABROAD {
            run(
                "TRUNCATE version; ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only; DELETE FROM lead_audit.entry",
            );
            run(abroad);
            run("INSERT INTO wide SELECT * FROM source");
            save("1");
            run(abroad);
            run(&format!(
                "UPDATE wide w SET ({0}) = (SELECT {0} FROM source s WHERE s.id = (w.id + 1) % {1})",
                columns.join(", "),
                rows_needed + 1
            ));
            save("2");
            run(abroad);
            run("DELETE FROM wide");
            run(HOME);
            assert_eq!(
                rows("SELECT operation, count(*) FROM lead_audit.entry GROUP BY 1 ORDER BY 1"),
                ["DELETE", "INSERT", "UPDATE"]
                    .map(|operation| format!("{operation} | {}", rows_needed + 1))
            );
            let wrong = rows(
                "SELECT l.operation, l.row_key, n.key, n.value AS logged, v.row->n.key AS expected
                 FROM lead_audit.log l, (VALUES ('INSERT', 'new', '1'), ('UPDATE', 'old', '1'), ('UPDATE', 'new', '2'), ('DELETE', 'old', '2')) e(operation, side, step)
                 JOIN version v ON v.step = e.step, LATERAL jsonb_each(CASE e.side WHEN 'old' THEN l.old_values ELSE l.new_values END) n
                 WHERE l.operation = e.operation AND v.id = (l.row_key->>'id')::int AND n.value::text IS DISTINCT
                 FROM (v.row->n.key)::text",
            );
            assert!(
                wrong.is_empty(),
                "{} values differ, for example {:?}",
                wrong.len(),
                &wrong[..wrong.len().min(3)]
            );
            // The query compares whole rows, so that the test also finds a missing column.
            assert_eq!(
                one("SELECT count(*) FILTER (WHERE l.new_values::text = a.row::text AND l.operation = 'INSERT'),
                            count(*) FILTER (WHERE l.old_values::text = a.row::text AND l.new_values::text = b.row::text AND l.operation = 'UPDATE'),
                            count(*) FILTER (WHERE l.old_values::text = b.row::text AND l.operation = 'DELETE')
                     FROM lead_audit.log l JOIN version a ON a.step = '1' AND a.id = (l.row_key->>'id')::int
                     JOIN version b ON b.step = '2' AND b.id = a.id"),
                format!("{0} | {0} | {0}", rows_needed + 1)
            );
            let wrong = rows(
                "SELECT l.row_key, l.diff, d.expected FROM lead_audit.log l
                     JOIN version a ON a.step = '1' AND a.id = (l.row_key->>'id')::int
                 JOIN version b ON b.step = '2' AND b.id = a.id, LATERAL (
                   SELECT jsonb_object_agg(o.key, jsonb_build_object('old', o.value, 'new', n.value)) AS expected
                   FROM jsonb_each(a.row) o JOIN jsonb_each(b.row) n USING (key) WHERE o.value::text <> n.value::text) d
                 WHERE l.operation = 'UPDATE' AND l.diff::text IS DISTINCT FROM d.expected::text",
            );
            assert!(wrong.is_empty(), "{:?}", wrong.first());
            assert_intact();
        }
    }

    /// Tests domains and arrays over each type of `VALUES`, and composites with a field of each
    /// type.
    #[pg_test]
    fn domains_arrays_and_composites_of_every_type() {
        let types = types_here();
        begin();
        run(TYPES);
        let (mut definitions, mut values) = (Vec::new(), Vec::new());
        for (i, (type_name, examples)) in types.iter().enumerate() {
            run(&format!(
                "CREATE DOMAIN domain_{i} AS {type_name}; CREATE TYPE composite_{i} AS (gone int, f {type_name}, d domain_{i});
                 ALTER TYPE composite_{i} DROP ATTRIBUTE gone"
            ));
            // The test makes no arrays of arrays, because PostgreSQL has no such type.
            let has_array = !type_name.ends_with("[]");
            definitions.push(format!("d{i} domain_{i}, c{i} composite_{i}"));
            if has_array {
                definitions.push(format!("a{i} domain_{i}[]"));
            }
            for (place, example) in examples.iter().enumerate() {
                let value = format!("({example})::{type_name}");
                values.resize_with(values.len().max(place + 1), Vec::new);
                values[place]
                    .push((format!("d{i}, c{i}"), format!("{value}, ROW({value}, {value})")));
                if has_array {
                    values[place]
                        .push((format!("a{i}"), format!("ARRAY[{value}, NULL]::domain_{i}[]")));
                }
            }
        }
        run(&format!("CREATE TABLE source (id int PRIMARY KEY, {})", definitions.join(", ")));
        for (id, row) in values.iter().enumerate() {
            let (columns, values): (Vec<_>, Vec<_>) = row.iter().cloned().unzip();
            run(&format!(
                "INSERT INTO source (id, {}) VALUES ({id}, {})",
                columns.join(", "),
                values.join(", ")
            ));
        }
        run("CREATE TABLE wide (LIKE source INCLUDING ALL); SELECT lead_audit.enable('wide')");
        run(ABROAD[1]);
        run("INSERT INTO wide SELECT * FROM source");
        run(HOME);
        let wrong = rows(
            "SELECT n.key, n.value AS logged, to_jsonb(w)->n.key AS expected
             FROM lead_audit.log l JOIN wide w ON w.id = (l.row_key->>'id')::int, LATERAL jsonb_each(l.new_values) n
             WHERE n.value::text IS DISTINCT FROM (to_jsonb(w)->n.key)::text",
        );
        assert!(
            wrong.is_empty(),
            "{} values differ, for example {:?}",
            wrong.len(),
            &wrong[..wrong.len().min(3)]
        );
        assert_eq!(
            one(
                "SELECT count(*) FROM wide w JOIN lead_audit.log l ON l.row_key = jsonb_build_object('id', w.id) AND l.new_values::text = to_jsonb(w)::text"
            ),
            values.len().to_string()
        );
        assert_intact();
    }

    /// Tests types from PostgreSQL's contrib modules. hstore has a cast to json, and the other
    /// types have none. The test does nothing on a server without contrib.
    #[pg_test]
    fn types_from_contrib() {
        if holds("SELECT count(*) = 0 FROM pg_available_extensions WHERE name = 'hstore'") {
            return;
        }
        begin();
        run("CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION cube; CREATE EXTENSION isn;
             CREATE EXTENSION seg; CREATE DOMAIN tags AS hstore; CREATE TYPE tagged AS (at timestamptz, tags hstore, path ltree);
             CREATE TABLE t (id int PRIMARY KEY, h hstore, hs hstore[], d tags, c citext, cs citext[], l ltree, ls ltree[], q lquery, tq ltxtquery,
               cu cube, i isbn13, s seg, r tagged, rs tagged[]);
             SELECT lead_audit.enable('t')");
        run(ABROAD[0]);
        run(r#"INSERT INTO t VALUES
               (1, '"b c"=>"\"q\"", a=>NULL, "é"=>"1.0", ""=>"", "t"=>"true"', ARRAY['a=>1'::hstore, NULL], 'b=>2,a=>1', 'MiXed Ä', '{Ab,ab,NULL}',
                'Top.Science.x_1', '{a.b,NULL}', '*.x{1,2}.!y', 'a & b@*', '(1,0.1),(2,-0)', '978-0-393-04002-9', '1.50 .. 2.5',
                ROW('2024-03-31 01:30+00', 'k=>v', 'a.b'), ARRAY[ROW('infinity', NULL, '')::tagged, NULL]),
               (2, NULL, '{}', NULL, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
             UPDATE t SET h = h || 'z=>26', c = upper(c), r.path = 'b.c', id = id + 10"#);
        run(HOME);
        assert_eq!(
            one("SELECT count(*) FROM t JOIN lead_audit.log l ON l.operation = 'UPDATE' AND l.row_key = jsonb_build_object('id', t.id)
                 AND l.new_values::text = to_jsonb(t)::text"),
            "2"
        );
        assert_eq!(
            rows(
                "SELECT string_agg(k, ',' ORDER BY k), bool_and(l.diff->k->'old' = l.old_values->k) FROM lead_audit.log l, jsonb_object_keys(diff) k GROUP BY l.id ORDER BY l.id"
            ),
            ["c,h,id,r | true", "id,r | true"]
        );
        assert_eq!(
            one(
                "SELECT new_values->'h', new_values->'d', new_values->>'c' FROM lead_audit.log WHERE operation = 'INSERT' AND row_key = '{\"id\": 1}'"
            ),
            r#"{"": "", "a": null, "t": "true", "é": "1.0", "b c": "\"q\""} | {"a": "1", "b": "2"} | MiXed Ä"#
        );
        assert_intact();
    }

    /// An entry contains stored generated columns. An entry does not contain virtual generated
    /// columns, because PostgreSQL does not store their values.
    #[cfg(feature = "pg18")]
    #[pg_test]
    fn virtual_generated_columns_are_left_out() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) VIRTUAL, thrice int GENERATED ALWAYS AS (n * 3) STORED);
             SELECT lead_audit.enable('t'); INSERT INTO t VALUES (1, 5); UPDATE t SET n = 6");
        assert_eq!(
            log("new_values"),
            [r#"{"n": 5, "id": 1, "thrice": 15}"#, r#"{"n": 6, "id": 1, "thrice": 18}"#],
        );
        assert_eq!(
            one("SELECT diff FROM lead_audit.log WHERE operation = 'UPDATE'"),
            r#"{"n": {"new": 6, "old": 5}, "thrice": {"new": 18, "old": 15}}"#
        );
        assert_intact();
    }

    /// Capture restores the session's own output settings after it has converted a row, even if an
    /// error occurs during the conversion.
    #[pg_test]
    fn session_keeps_its_settings() {
        begin();
        run("CREATE TYPE fragile AS ENUM ('ok', 'bad');
             CREATE FUNCTION fragile_json(fragile) RETURNS json LANGUAGE plpgsql AS $$ BEGIN IF $1 = 'bad' THEN RAISE 'bad';
             END IF; RETURN to_json(now()); END $$;
             CREATE CAST (fragile AS json) WITH FUNCTION fragile_json(fragile);
             CREATE TABLE t (id int PRIMARY KEY, i interval, a timestamptz[], m money, f float8, x fragile);
             SELECT lead_audit.enable('t')");
        run(ABROAD[0]);
        let shown = "SELECT '2020-01-01 00:00+00'::timestamptz::text, '1 day 02:00'::interval::text, '\\xff00'::bytea::text, (1.0::float8 / 3)::text,
             current_setting('TimeZone'), current_setting('lc_monetary'), 5::money::text";
        let before = one(shown);
        for mode in ["warn", "abort"] {
            run(&format!("SET LOCAL lead_audit.on_error = {mode}"));
            run("INSERT INTO t VALUES (1, '1 day', '{now}', 5, 0.1, 'ok')");
            assert_eq!(one(shown), before);
            let _ = failure("UPDATE t SET x = 'bad', m = 6");
            assert_eq!(one(shown), before);
            run("DELETE FROM t WHERE x = 'ok'; SET LOCAL lead_audit.enabled = off; DELETE FROM t;
                     SET LOCAL lead_audit.enabled = on");
        }
    }

    #[pg_test]
    fn column_names_of_all_kinds() {
        begin();
        let names = [
            "plain",
            "Upper",
            "with space",
            " ",
            "qu\"ote",
            "sing'le",
            "back\\slash",
            "new\nline",
            "tab\there",
            "\u{1}",
            "\u{7f}",
            "é",
            "e\u{301}",
            "\u{1F600}",
            "\u{E000}",
            "\u{FFFD}",
            "$commitment",
            "{}",
            "select",
            "a",
            "aa",
            "B",
            "0",
            "10",
            "9",
            "\u{2028}",
            "\"",
            "checksum",
            "a.b",
            "row_values",
            "old",
        ];
        let longest = format!("{}\"", "é".repeat(31));
        assert_eq!(longest.len(), 63);
        let mut names: Vec<&str> = names.to_vec();
        names.push(&longest);
        let definitions: Vec<String> =
            names.iter().map(|name| format!("{} text", identifier(name))).collect();
        run(&format!(
            "CREATE TABLE t (id int, {}, PRIMARY KEY (id, {}))",
            definitions.join(", "),
            identifier(&longest)
        ));
        run("SELECT lead_audit.enable('t')");
        let values: Vec<String> =
            names.iter().map(|name| literal(&format!("value of {name}"))).collect();
        run(&format!("INSERT INTO t VALUES (1, {})", values.join(", ")));
        for name in &names {
            let value = if *name == longest { "'x'" } else { "NULL" };
            run(&format!("UPDATE t SET {} = {value}", identifier(name)));
        }
        // The keys of a JSON object are in the order of their UTF-16 code units (docs/FORMAT.md).
        let mut expected: Vec<String> =
            names.iter().map(|name| (*name).to_owned()).chain(["id".to_owned()]).collect();
        expected.sort_by_key(|name| name.encode_utf16().collect::<Vec<_>>());
        assert_eq!(
            rows(
                "SELECT json_object_keys(row_values) FROM (SELECT row_values FROM lead_audit.entry ORDER BY id LIMIT 1) e"
            ),
            expected
        );
        for (place, name) in names.iter().enumerate() {
            assert_eq!(
                rows(&format!(
                    "SELECT k, diff->k->>'old' FROM (SELECT diff, jsonb_object_keys(diff) AS k FROM lead_audit.log
                         ORDER BY id OFFSET {place} LIMIT 1) d"
                )),
                [format!("{name} | value of {name}")]
            );
        }
        assert_eq!(
            one("SELECT l.new_values::text = to_jsonb(t)::text FROM t, (SELECT * FROM lead_audit.log
                     ORDER BY id DESC LIMIT 1) l"),
            "true"
        );
        assert_intact();
    }

    #[pg_test]
    fn columns_dropped_added_renamed_and_retyped() {
        begin();
        run(
            "CREATE TABLE t (a int, gone text, id int PRIMARY KEY, b numeric); SELECT lead_audit.enable('t')",
        );
        let check = |statements: &str| {
            run(statements);
            // The images of old rows contain every column, although some rows were stored before a
            // column existed.
            run(
                "CREATE TEMP TABLE before AS SELECT id, to_jsonb(t) AS row FROM t; UPDATE t SET a = a + 1",
            );
            let differing = rows(
                "SELECT t.id, l.old_values, b.row, l.new_values, to_jsonb(t) FROM t JOIN before b USING (id) LEFT JOIN LATERAL (
                   SELECT * FROM lead_audit.log WHERE row_key = jsonb_build_object('id', t.id)
                   ORDER BY id DESC LIMIT 1) l ON true
                 WHERE l.new_values::text IS DISTINCT FROM to_jsonb(t)::text OR l.old_values::text IS DISTINCT
                 FROM b.row::text",
            );
            run("DROP TABLE before");
            assert!(differing.is_empty(), "{statements}: {differing:?}");
        };
        check("INSERT INTO t VALUES (1, 'x', 1, 1.10), (2, NULL, 2, NULL)");
        check("ALTER TABLE t DROP COLUMN gone");
        check(
            "ALTER TABLE t ADD COLUMN added text DEFAULT 'by default', ADD COLUMN empty timestamptz",
        );
        check("INSERT INTO t VALUES (5, 3, 0.0)");
        check("ALTER TABLE t RENAME COLUMN b TO \"B\"");
        check("ALTER TABLE t ALTER COLUMN \"B\" TYPE text USING \"B\"::text || '!'");
        check("ALTER TABLE t ALTER COLUMN a TYPE bigint");
        check("ALTER TABLE t ADD COLUMN twice bigint GENERATED ALWAYS AS (a * 2) STORED");
        check("ALTER TABLE t ADD COLUMN gone uuid DEFAULT gen_random_uuid()");
        check("ALTER TABLE t DROP COLUMN twice, ADD COLUMN twice text DEFAULT 'same name'");
        check(
            "CREATE TYPE c AS (x int); ALTER TABLE t ADD COLUMN c c DEFAULT ROW(1);
             ALTER TYPE c ADD ATTRIBUTE y timestamptz",
        );
        check(
            "ALTER TYPE c DROP ATTRIBUTE x CASCADE, ADD ATTRIBUTE x text; UPDATE t SET c.x = 'again' WHERE id = 1",
        );
        check(
            "CREATE TABLE part_of (gone int, k numeric, at timestamptz); INSERT INTO part_of VALUES (1, 1.0, 'infinity');
             ALTER TABLE part_of DROP COLUMN gone, ADD COLUMN n text DEFAULT 'n';
             ALTER TABLE t ADD COLUMN p part_of, ADD COLUMN ps part_of[];
             UPDATE t SET p = (SELECT x FROM part_of x), ps = ARRAY(SELECT x FROM part_of x)",
        );
        check("ALTER TABLE part_of DROP COLUMN k; ALTER TABLE part_of ADD COLUMN k text");
        assert_intact();
    }

    #[pg_test]
    fn generated_and_identity_columns() {
        begin();
        run("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED); SELECT lead_audit.enable('t');
             INSERT INTO t (a) VALUES (1); UPDATE t SET a = 5");
        assert_eq!(
            log("new_values, diff"),
            [
                r#"{"a": 1, "b": 2, "id": 1} | NULL"#,
                r#"{"a": 5, "b": 10, "id": 1} | {"a": {"new": 5, "old": 1}, "b": {"new": 10, "old": 2}}"#
            ]
        );
    }

    /// Tests numerics as a column, in an array and in jsonb, with many numbers of digits before and
    /// after the decimal point.
    #[pg_test]
    fn numerics_of_many_sizes() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, n numeric, list numeric[], doc jsonb); SELECT lead_audit.enable('t');
             INSERT INTO t SELECT g, d.n, ARRAY[d.n], to_jsonb(d.n)
             FROM generate_series(1, 3000) g, LATERAL (SELECT trim_scale((1 - g % 2 * 2) * ('0.' || translate(md5(g::text), 'abcdef', '00099'))::numeric
               * ('1e' || (g % 90 - 45))::numeric) AS n) d");
        assert_eq!(
            number(
                "SELECT count(*) FROM t JOIN lead_audit.log l ON (l.row_key->>'id')::int = t.id WHERE l.new_values::text = to_jsonb(t)::text"
            ),
            3000
        );
        assert!(
            number("SELECT count(DISTINCT scale(n)) FROM t") > 50
                && number("SELECT count(*) FROM t WHERE n < 0") > 1000
        );
        assert_intact();
    }

    #[pg_test]
    fn toasted_values() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, big text, raw bytea, doc jsonb, n int);
             ALTER TABLE t ALTER big SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL;
             SELECT lead_audit.enable('t');
             CREATE FUNCTION noise(int) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(md5(g::text), '')
             FROM generate_series($1, $1 + 5000) g $$;
             INSERT INTO t SELECT 1, noise(1), convert_to(noise(2), 'UTF8'), jsonb_build_object('k', noise(3)), 0;
             UPDATE t SET n = 1;
             UPDATE t SET big = noise(7);
             UPDATE t SET big = noise(7), doc = doc || '{\"k\": 1}';
             UPDATE t SET raw = convert_to(noise(2), 'UTF8'), n = 2;
             UPDATE t SET raw = raw || '\\x00'; DELETE FROM t");
        assert!(
            number(
                "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 't'::regclass"
            ) > 0
        );
        assert_eq!(
            log(
                "operation, (SELECT string_agg(k, ',') FROM jsonb_object_keys(diff) k), length(old_values->>'big'), length(old_values->>'raw')"
            ),
            [
                "INSERT | NULL | NULL | NULL",
                "UPDATE | n | 160032 | 320066",
                "UPDATE | big | 160032 | 320066",
                "UPDATE | doc | 160032 | 320066",
                "UPDATE | n | 160032 | 320066",
                "UPDATE | raw | 160032 | 320066",
                "DELETE | NULL | 160032 | 320068"
            ]
        );
        assert_eq!(
            one(
                "SELECT l.old_values->>'big' = noise(7) AND l.old_values->>'raw' = (convert_to(noise(2), 'UTF8') || '\\x00')::text FROM lead_audit.log l WHERE operation = 'DELETE'"
            ),
            "true"
        );
        assert_intact();
    }

    /// If one JSON value is nested too deeply for the stack of the reader's session, the reader
    /// still sees the other values and the other entries.
    #[pg_test]
    fn values_nested_too_deeply_for_the_reader() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, doc jsonb, text_doc json, n int); SELECT lead_audit.enable('t');
             CREATE TABLE bare (doc jsonb, n int); SELECT lead_audit.enable('bare');
             SET LOCAL max_stack_depth = '6MB';
             CREATE FUNCTION deep() RETURNS text LANGUAGE sql AS $$ SELECT repeat('[', 4000) || repeat(']', 4000) $$;
             INSERT INTO t VALUES (1, '1', '1', 1); UPDATE t SET doc = deep()::jsonb; UPDATE t SET doc = NULL, text_doc = deep()::json;
             UPDATE t SET text_doc = NULL; DELETE FROM t;
             INSERT INTO bare VALUES (deep()::jsonb, 1); UPDATE bare SET doc = NULL; DELETE FROM bare");
        assert_eq!(not_written(), 0);
        let query = "row_number() OVER (ORDER BY id), operation, row_key, old_values IS NULL, new_values IS NULL, diff IS NULL";
        let all = [
            "1 | INSERT | {\"id\": 1} | true | false | true",
            "2 | UPDATE | {\"id\": 1} | false | false | false",
            "3 | UPDATE | {\"id\": 1} | false | false | false",
            "4 | UPDATE | {\"id\": 1} | false | false | false",
            "5 | DELETE | {\"id\": 1} | false | true | true",
        ];
        let all_rows = |from: &str| rows(&format!("SELECT {query} FROM {from} ORDER BY id"));
        assert_eq!(all_rows("lead_audit.history('t', '1')"), all);
        run("SET LOCAL max_stack_depth = '300kB'");
        let readable = [
            "1 | INSERT | {\"id\": 1} | true | false | true",
            "2 | UPDATE | {\"id\": 1} | false | true | true",
            "3 | UPDATE | {\"id\": 1} | true | true | true",
            "4 | UPDATE | {\"id\": 1} | true | true | true",
            "5 | DELETE | {\"id\": 1} | false | true | true",
        ];
        assert_eq!(all_rows("lead_audit.history('t', '1')"), readable);
        assert_eq!(all_rows("lead_audit.log WHERE table_name = 't'"), readable);
        assert_eq!(rows("SELECT total, verified FROM lead_audit.summary('t', '1')"), ["5 | true"]);
        assert_eq!(rows("SELECT * FROM lead_audit.verify()"), [""; 0]);
        // The entries of `bare` have no row key, so history() finds the entries by their values.
        // Only the values in the entry of the DELETE can be read. The values in the other entries
        // of `bare` are nested too deeply to be read.
        run("ALTER TABLE bare ADD PRIMARY KEY (n)");
        assert_eq!(
            rows("SELECT operation FROM lead_audit.history('bare', '1') ORDER BY id"),
            ["DELETE"]
        );
    }

    /// The view lead_audit.log computes the same values as the definition of the view in version
    /// 1.0.
    #[pg_test]
    fn the_view_derives_new_values_and_diff() {
        begin();
        run(
            r#"CREATE TABLE t (id int PRIMARY KEY, "old" text, doc jsonb, n numeric); SELECT lead_audit.enable('t');
             INSERT INTO t VALUES (1, 'a', '{"a": [1, {"b": null}]}', 1.50), (2, NULL, '[]', NULL);
             UPDATE t SET "old" = 'b'; UPDATE t SET doc = '{"new": [[]]}', n = 'NaN'; UPDATE t SET doc = NULL, "old" = NULL, n = 1e100;
             UPDATE t SET id = id + 10; DELETE FROM t"#,
        );
        assert!(number("SELECT count(*) FROM lead_audit.log WHERE diff IS NOT NULL") >= 8);
        assert_eq!(
            rows(
                "SELECT l.id FROM lead_audit.log l JOIN lead_audit.entry e USING (id)
                 WHERE l.row_key IS DISTINCT FROM e.row_key::jsonb
                    OR l.old_values IS DISTINCT FROM CASE WHEN e.operation IN ('UPDATE', 'DELETE') THEN e.row_values::jsonb END
                    OR l.new_values IS DISTINCT FROM CASE e.operation WHEN 'UPDATE' THEN e.row_values::jsonb || e.changed_values::jsonb
                         WHEN 'DELETE' THEN NULL ELSE e.row_values::jsonb END
                    OR l.diff IS DISTINCT FROM CASE WHEN e.operation = 'UPDATE' AND e.changed_values IS NOT NULL THEN
                         (SELECT coalesce(jsonb_object_agg(c.key, jsonb_build_object('old', e.row_values::jsonb -> c.key, 'new', c.value)), '{}')
                          FROM jsonb_each(e.changed_values::jsonb) c) END"
            ),
            [""; 0]
        );
    }

    /// The library stores only JSON objects in an entry, but a superuser can store other JSON in
    /// it. The view must read these entries too.
    #[pg_test]
    fn other_json_than_objects_has_no_new_values_and_no_diff() {
        for (old, changed) in [
            ("[1, 2]", r#"{"a": 1}"#),
            (r#"{"a": 1}"#, "[1, 2]"),
            ("1", r#"{"a": 1}"#),
            (r#"{"a": 1}"#, "null"),
            (r#""a""#, r#"{"a": 1}"#),
            // A function that mistakes this array for an object would read its first text as a
            // length.
            (r#"["aaaaaaa\u0001", ""]"#, r#"{"": 1}"#),
        ] {
            for function in ["diff_of", "new_values_of"] {
                let call = format!("SELECT lead_audit_internal.{function}('{old}', '{changed}')");
                assert_eq!(rows(&call), ["NULL"], "{call}");
            }
        }
    }
}
