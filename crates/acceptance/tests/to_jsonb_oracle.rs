//! The row image in an entry must equal `to_jsonb(row)` in UTC. The settings of the writer must
//! not influence the row image.

use acceptance::{
    Cluster, Random, Session, app_database, assert_intact, assert_trail_gives_table, call,
    try_call, value,
};

const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('glad', 'so so', 'Übel');
    CREATE DOMAIN price AS numeric(20, 4) CHECK (VALUE IS NULL OR VALUE > -1e15);
    CREATE TYPE address AS (street text, since timestamptz, paid money, tags text[]);
    CREATE DOMAIN home AS address;
    CREATE TABLE everything (
      id integer PRIMARY KEY, b boolean, i2 smallint, i8 bigint, n numeric, n2 numeric(30, 10), f4 real, f8 double precision, m money,
      t text, vc varchar(80), ch char(12), nm name, ba bytea, bits bit varying, u uuid, j json, jb jsonb, x xml, d date, ts timestamp,
      tz timestamptz, tm time, tmz timetz, iv interval, ip inet, net cidr, mac macaddr, p point, r int4range, rz tstzrange,
      mr nummultirange, ints integer[], texts text[], times timestamptz[], floats double precision[], intervals interval[],
      mo mood, moods mood[], pr price, a address, aa address[], h home, cat regclass, dup integer GENERATED ALWAYS AS (id * 2) STORED,
      ts_vector tsvector, \"Größe \"\"x\"\" 😀\" text, \"\u{e000}\" text);
    ALTER TABLE everything DROP COLUMN ch, ADD COLUMN late text DEFAULT 'later', ALTER COLUMN ba SET STORAGE EXTERNAL;
    CREATE TABLE pairs (id text, no numeric, at timestamptz, PRIMARY KEY (no, id, at));
    SELECT lead_audit.enable('everything'), lead_audit.enable('pairs');
    GRANT ALL ON everything, pairs TO app";

/// Columns in which values with different bytes can have the same JSON. Examples of such values are
/// 0 and -0, two texts of type json with different white space, and NULL and a JSON null.
const SEVERAL_FORMS: [&str; 5] = ["f4", "f8", "floats", "j", "jb"];

const TIME_ZONES: [&str; 6] =
    ["Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham", "Europe/Berlin", "<-15>+15", "UTC"];
const DATE_STYLES: [&str; 5] = ["German, DMY", "SQL, DMY", "SQL, MDY", "Postgres, DMY", "ISO, YMD"];
const INTERVAL_STYLES: [&str; 4] = ["sql_standard", "iso_8601", "postgres_verbose", "postgres"];
const FLOAT_DIGITS: [&str; 4] = ["-15", "0", "1", "3"];
const BYTEA_OUTPUTS: [&str; 2] = ["escape", "hex"];

/// SQL expressions for the values of each column. In an expression, {} stands for a random number.
const VALUES: [(&str, &[&str]); 46] = [
    ("b", &["true", "false", "NULL"]),
    ("i2", &["-32768", "32767", "({} % 100)::int2", "NULL"]),
    ("i8", &["-9223372036854775808", "9223372036854775807", "{}", "9007199254740993"]),
    (
        "n",
        &[
            "1.10",
            "-0.000000000000000000000000000001",
            "'NaN'",
            "'Infinity'",
            "12345678901234567890123456789.0",
            "{} / 7.0",
            "1e200",
            "0.00",
        ],
    ),
    ("n2", &["{} / 3.0", "0", "-1.5", "NULL"]),
    ("f4", &["'-0'", "1.1", "3.4e38", "1e-45", "'NaN'", "'-Infinity'", "16777217", "{} / 3.0"]),
    (
        "f8",
        &[
            "'-0'",
            "0.1",
            "1.7976931348623157e308",
            "5e-324",
            "'Infinity'",
            "1e22",
            "123456789.123456789",
            "sqrt({})",
        ],
    ),
    ("m", &["12345.67::money", "(-0.01)::numeric::money", "NULL"]),
    (
        "t",
        &[
            "repeat('long é ', ({} % 600)::int)",
            "E'\\u0001\\t\\n\\r\\f\\b\"\\\\/\\u007f\\u2028'",
            "''",
            "'😀' || chr(57344)",
            "NULL",
            "'null'",
        ],
    ),
    ("vc", &["'x' || {}", "'   '", "NULL"]),
    ("nm", &["'Name \"x\"'", "current_user"]),
    (
        "ba",
        &[
            "decode(md5({}::text), 'hex')",
            "'\\x00ff5c27'",
            "''::bytea",
            "decode(repeat('00ff', 3000), 'hex')",
        ],
    ),
    ("bits", &["B'10110'", "B''", "({} % 65536)::int::bit(16)::varbit"]),
    ("u", &["md5({}::text)::uuid", "NULL"]),
    (
        "j",
        &[
            "'{\"b\": 1.10, \"a\": [1,  2], \"b\": 1e3}'",
            "'  null '",
            "'\"\\u00e9\\ud83d\\ude00\"'",
            "NULL",
        ],
    ),
    (
        "jb",
        &[
            "'{\"bb\": 1.10, \"a\": {\"z\": [], \"\": null}, \"é\": true}'",
            "'null'",
            "'-0.0'",
            "jsonb_build_object('n', {}, 'f', 0.1::float8)",
        ],
    ),
    ("x", &["'<a b=\"1\">é</a>'", "NULL"]),
    (
        "d",
        &[
            "date '2024-02-29'",
            "'infinity'",
            "date '0044-03-15 BC'",
            "current_date - ({} % 100000)::int",
        ],
    ),
    (
        "ts",
        &[
            "timestamp '2024-02-29 23:59:59.999999'",
            "'-infinity'",
            "timestamp '0001-01-01 BC'",
            "localtimestamp",
            "timestamp '2024-01-01 00:00:00.5'",
        ],
    ),
    (
        "tz",
        &[
            "now()",
            "timestamptz '2024-03-31 02:30:00+01'",
            "'infinity'",
            "timestamptz '1883-11-18 12:00:00 UTC'",
            "timestamptz '99999-01-01 UTC'",
        ],
    ),
    ("tm", &["time '24:00'", "localtime", "time '00:00:00.000001'"]),
    ("tmz", &["timetz '12:34:56.7+05:45'", "timetz '00:00-15:59:59'", "NULL"]),
    (
        "iv",
        &[
            "interval '1 year 2 months -3 days 04:05:06.789'",
            "-interval '1 day'",
            "interval '0'",
            "make_interval(secs => {} / 1000.0)",
            "interval '-178000000 years'",
        ],
    ),
    ("ip", &["inet '192.0.2.7'", "inet '2001:db8::1/64'", "NULL"]),
    ("net", &["cidr '10.0.0.0/8'", "NULL"]),
    ("mac", &["macaddr '08:00:2b:01:02:03'", "NULL"]),
    ("p", &["point(0.1, -1e-7)", "point('NaN', 'Infinity')", "point({} / 3.0, 1)"]),
    ("r", &["'[1,5)'", "'empty'", "'(,)'", "int4range(NULL, ({} % 1000)::int)"]),
    ("rz", &["tstzrange(now(), 'infinity')", "tstzrange('2024-03-31 02:30+01', NULL, '(]')"]),
    ("mr", &["'{[1.10,2.50),[3,4]}'", "'{}'::nummultirange"]),
    ("ints", &["'{{1,2},{3,NULL}}'", "'[0:1]={7,8}'", "ARRAY[{} % 1000, 2]::int[]", "'{}'::int[]"]),
    ("texts", &["ARRAY['a,b', 'c\"d', NULL, '']", "ARRAY[E'\\\\', 'é😀']", "NULL"]),
    ("times", &["ARRAY[now(), 'infinity', '2024-03-31 02:30:00+01']", "NULL"]),
    ("floats", &["ARRAY[0.1, '-0', 'NaN', 1e300]::float8[]", "ARRAY[sqrt({})]"]),
    ("intervals", &["ARRAY[interval '1 year -1 day', interval '-00:00:01.5']", "NULL"]),
    ("mo", &["'Übel'", "'so so'", "NULL"]),
    ("moods", &["ARRAY['glad', 'so so']::mood[]", "NULL"]),
    ("pr", &["1.5", "{} / 3.0", "NULL"]),
    (
        "a",
        &["('Weg 1', now(), 3.50, ARRAY['x', NULL])", "(NULL, NULL, NULL, NULL)::address", "NULL"],
    ),
    ("aa", &["ARRAY[('a', 'infinity', -1, '{}'), NULL]::address[]", "NULL"]),
    ("h", &["('Heim', '2024-07-01 12:00 Europe/Berlin', 1, NULL)::address", "NULL"]),
    ("cat", &["'pg_class'::regclass", "'leads'::regclass", "4294967295::oid::regclass"]),
    ("ts_vector", &["to_tsvector('simple', 'The fat cats' || {})", "NULL"]),
    ("\"Größe \"\"x\"\" 😀\"", &["'groß'", "NULL"]),
    ("\"\u{e000}\"", &["'private'", "NULL"]),
    ("late", &["DEFAULT", "'early'"]),
];

#[test]
fn entries_equal_to_jsonb() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "oracle");
    call(&mut admin, TYPES);
    call(&mut admin, "CREATE TABLE gone (id integer, was text); GRANT ALL ON gone TO app");
    let columns: i64 = value(
        &mut admin,
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'everything'::regclass AND attnum > 0 AND NOT attisdropped",
    );
    assert_eq!(
        columns as usize,
        VALUES.len() + 2,
        "each column has values here, but for the key and the generated one"
    );
    // PostgreSQL can be built without xml. On a server without xml, the table has no column of
    // type xml.
    let left_out =
        if try_call(&mut admin, "SELECT '<a/>'::xml").is_ok() { None } else { Some("x") };
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let mut session = cluster.session("app", "oracle");
            scope.spawn(move || write(&mut session, writer, left_out));
        }
    });

    for table in ["everything", "leads"] {
        assert_trail_gives_table(&mut admin, table);
    }
    // The comparison proves nothing if all written values are equal.
    let written: String = value(
        &mut admin,
        "SELECT string_agg(operation || ' ' || (n > 300), ', ' ORDER BY operation)
         FROM (SELECT operation, count(*) AS n FROM lead_audit.log WHERE table_name = 'everything' GROUP BY 1) e",
    );
    assert_eq!(written, "DELETE true, INSERT true, UPDATE true");
    call(&mut admin, "SET TimeZone = 'UTC'");
    let lost: i64 = value(
        &mut admin,
        "WITH deleted AS MATERIALIZED (SELECT row_key, old_values::text AS was FROM lead_audit.log
                                       WHERE operation = 'DELETE' AND new_values IS NULL)
         SELECT count(*) FROM gone g LEFT JOIN deleted d ON d.row_key = jsonb_build_object('id', g.id)
         WHERE d.was IS DISTINCT FROM g.was",
    );
    assert_eq!(lost, 0, "deleted rows that their entry does not have as they were");
    // The diff contains a column whose bytes have changed, even if the column's JSON has not
    // changed.
    call(
        &mut admin,
        "CREATE TEMPORARY TABLE differences AS SELECT id, d.key, d.value->'old' AS was, d.value->'new' AS now
           FROM lead_audit.log, jsonb_each(diff) d WHERE operation = 'UPDATE'",
    );
    let same: String = value(
        &mut admin,
        "SELECT coalesce(string_agg(DISTINCT key, ' ' ORDER BY key), '') FROM differences WHERE was::text = now::text",
    );
    for column in same.split_whitespace() {
        assert!(SEVERAL_FORMS.contains(&column), "{column} of {same}");
    }
    let wrong: i64 = value(
        &mut admin,
        "SELECT count(*) FROM (SELECT id, old_values, new_values FROM lead_audit.log WHERE operation = 'UPDATE' OFFSET 0) e
         WHERE (SELECT coalesce(jsonb_object_agg(d.key, jsonb_build_object('old', d.was, 'new', d.now)), '{}')
                FROM differences d WHERE d.id = e.id AND d.was::text <> d.now::text)::text IS DISTINCT FROM
           (SELECT coalesce(jsonb_object_agg(n.key, jsonb_build_object('old', e.old_values->n.key, 'new', n.value)), '{}')
            FROM jsonb_each(e.new_values) n WHERE n.value::text <> (e.old_values->n.key)::text)::text",
    );
    assert_eq!(wrong, 0, "diffs that are not the difference between old and new values");
    let wrong: i64 = value(
        &mut admin,
        "SELECT count(*) FROM pairs p WHERE NOT EXISTS (SELECT FROM lead_audit.log e WHERE e.table_name = 'pairs'
           AND e.new_values::text = to_jsonb(p)::text AND e.row_key::text = to_jsonb(p)::text)",
    );
    assert_eq!(wrong, 0, "keys of several columns that are not those of to_jsonb");
    assert_intact(&mut admin);
}

fn write(session: &mut Session, writer: u64, left_out: Option<&str>) {
    let mut random = Random::new(100 + writer);
    let value_of = |random: &mut Random, column: usize| match VALUES[column] {
        (name, _) if left_out == Some(name) => "NULL".to_owned(),
        (_, choices) => expression(random, choices),
    };
    for round in 0..40 {
        let setting = |name: &str, value: &str| format!("SET {name} = '{value}'; ");
        let settings = [
            setting("TimeZone", random.pick(&TIME_ZONES)),
            setting("DateStyle", random.pick(&DATE_STYLES)),
            setting("IntervalStyle", random.pick(&INTERVAL_STYLES)),
            setting("extra_float_digits", random.pick(&FLOAT_DIGITS)),
            setting("bytea_output", random.pick(&BYTEA_OUTPUTS)),
        ];
        call(session, &settings.concat());
        let first = writer * 1_000_000 + round * 1_000;
        for n in 0..20 {
            let names: Vec<&str> = VALUES.iter().map(|(name, _)| *name).collect();
            let values: Vec<String> =
                (0..VALUES.len()).map(|column| value_of(&mut random, column)).collect();
            let id = first + n;
            call(
                session,
                &format!(
                    "INSERT INTO everything (id, {}) VALUES ({id}, {})",
                    names.join(", "),
                    values.join(", ")
                ),
            );
            let changes: Vec<String> = (0..=random.below(5))
                .map(|_| random.below(VALUES.len() as u64) as usize)
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .map(|column| format!("{} = {}", VALUES[column].0, value_of(&mut random, column)))
                .collect();
            call(session, &format!("UPDATE everything SET {} WHERE id = {id}", changes.join(", ")));
        }
        call(
            session,
            &format!(
                "UPDATE everything SET tz = tz + interval '1 hour', f8 = f8 / 3 WHERE id BETWEEN {first} AND {first} + 999 AND f8 BETWEEN 0.01 AND 1e9"
            ),
        );
        call(
            session,
            &format!(
                "BEGIN; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres';
                 SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1;
                 INSERT INTO gone SELECT id, to_jsonb(e)::text FROM everything e WHERE id BETWEEN {first} AND {first} + 999 AND id % 3 = 0;
                 COMMIT; DELETE FROM everything WHERE id BETWEEN {first} AND {first} + 999 AND id % 3 = 0"
            ),
        );
        call(
            session,
            &format!(
                "INSERT INTO pairs VALUES ('k \"{writer}', {round}.10, timestamptz '2024-03-31 01:30:00+00' + {round} * interval '1 h');
                 INSERT INTO leads (id, company_name, updated_at) VALUES ('{first}', E'\\b', 'infinity');
                 UPDATE leads SET updated_at = '0044-03-15 12:00 BC' WHERE id = '{first}'"
            ),
        );
    }
}

fn expression(random: &mut Random, choices: &[&str]) -> String {
    let number = random.below(1_000_000_000_000).to_string();
    let choice = random.pick(choices);
    if choice.contains("'{}'") || choice.contains("'{{") {
        choice.to_owned()
    } else {
        choice.replace("{}", &number)
    }
}
