//! Creates random tables, and makes random changes of their definitions.

use acceptance::{Random, Session, call, value};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

pub const TYPES: &str = "
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
    CREATE SCHEMA \"S p\";
    CREATE TYPE mood AS ENUM ('glad', 'so so', 'Übel');
    CREATE DOMAIN price AS numeric(20, 4);
    CREATE TYPE address AS (street text, gone int, since timestamptz, tags text[]);
    ALTER TYPE address DROP ATTRIBUTE gone;
    CREATE TYPE span AS RANGE (subtype = timestamptz)";

/// Types of columns, each with SQL expressions for values of the type. In an expression, {} stands
/// for a random number. The name of a type is the name that format_type() returns.
pub const VALUES: [(&str, &[&str]); 41] = [
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767", "({} % 100)::int2"]),
    ("integer", &["2147483647", "({} % 2147483647)::int", "0"]),
    ("bigint", &["-9223372036854775808", "{}", "9007199254740993"]),
    (
        "numeric",
        &[
            "1.10",
            "'NaN'",
            "'-Infinity'",
            "{} / 7.0",
            "0.00",
            "1e200",
            "-0.000000000000000000000000000001",
        ],
    ),
    ("numeric(12,3)", &["({} % 1000000) / 7.0", "0", "-1.5"]),
    ("real", &["'-0'", "1.1", "3.4e38", "1e-45", "'NaN'", "({} % 1000) / 3.0"]),
    (
        "double precision",
        &["'-0'", "0.1", "1.7976931348623157e308", "5e-324", "'Infinity'", "sqrt({})"],
    ),
    ("money", &["12345.67::money", "(-0.01)::numeric::money"]),
    (
        "text",
        &[
            "repeat('long é ', ({} % 600)::int)",
            "E'\\u0001\\t\\n\"\\\\/\\u007f\\u2028'",
            "''",
            "'😀' || {}",
            "'null'",
        ],
    ),
    ("character varying(40)", &["'x' || {}", "'   '"]),
    ("character(8)", &["'ab'", "''", "'äöü'"]),
    ("name", &["'Name \"x\"'", "'n' || {}"]),
    (
        "bytea",
        &[
            "decode(md5({}::text), 'hex')",
            "'\\x00ff5c27'",
            "''::bytea",
            "decode(repeat('00ff', 2000), 'hex')",
        ],
    ),
    ("bit varying", &["B'10110'", "B''", "({} % 65536)::int::bit(16)::varbit"]),
    ("uuid", &["md5({}::text)::uuid", "gen_random_uuid()"]),
    (
        "json",
        &[
            "'{\"b\": 1.10, \"a\": [1,  2], \"b\": 1e3}'",
            "'  null '",
            "'\"\\u00e9\\ud83d\\ude00\"'",
            "to_json({})",
        ],
    ),
    (
        "jsonb",
        &[
            "'{\"bb\": 1.10, \"a\": {\"z\": [], \"\": null}, \"é\": true}'",
            "'null'",
            "'-0.0'",
            "jsonb_build_object('n', {})",
        ],
    ),
    ("xml", &["'<a b=\"1\">é</a>'::xml", "xmlelement(name n, {})"]),
    (
        "date",
        &[
            "date '2024-02-29'",
            "'infinity'",
            "date '0044-03-15 BC'",
            "current_date - ({} % 100000)::int",
        ],
    ),
    (
        "timestamp without time zone",
        &[
            "timestamp '2024-02-29 23:59:59.999999'",
            "'-infinity'",
            "timestamp '0001-01-01 BC'",
            "localtimestamp",
        ],
    ),
    (
        "timestamp with time zone",
        &[
            "clock_timestamp()",
            "'infinity'",
            "timestamptz '1883-11-18 12:00:00 UTC'",
            "timestamptz '99999-01-01 UTC'",
        ],
    ),
    ("time without time zone", &["time '24:00'", "localtime", "time '00:00:00.000001'"]),
    ("time with time zone", &["timetz '12:34:56.7+05:45'", "timetz '00:00-15:59:59'"]),
    (
        "interval",
        &[
            "interval '1 year 2 months -3 days 04:05:06.789'",
            "interval '0'",
            "make_interval(secs => ({} % 100000) / 1000.0)",
        ],
    ),
    ("inet", &["inet '192.0.2.7'", "inet '2001:db8::1/64'"]),
    ("cidr", &["cidr '10.0.0.0/8'"]),
    ("point", &["point(0.1, -1e-7)", "point('NaN', 'Infinity')", "point(({} % 1000) / 3.0, 1)"]),
    ("int4range", &["'[1,5)'", "'empty'", "int4range(NULL, ({} % 1000)::int)"]),
    ("span", &["span(clock_timestamp(), 'infinity')", "span('2024-03-31 02:30+01', NULL, '(]')"]),
    ("nummultirange", &["'{[1.10,2.50),[3,4]}'", "'{}'::nummultirange"]),
    ("integer[]", &["'{{1,2},{3,NULL}}'", "'[0:1]={7,8}'", "ARRAY[{} % 1000, 2]::int[]"]),
    ("text[]", &["ARRAY['a,b', 'c\"d', NULL, '']", "ARRAY[E'\\\\', 'é😀', {}::text]"]),
    ("timestamp with time zone[]", &["ARRAY[now(), 'infinity', '2024-03-31 02:30:00+01']"]),
    ("mood", &["'Übel'::mood", "'so so'::mood"]),
    ("price", &["1.5", "({} % 100000) / 3.0"]),
    (
        "address",
        &["ROW('Weg ' || {}, now(), ARRAY['x', NULL])::address", "ROW(NULL, NULL, NULL)::address"],
    ),
    ("address[]", &["ARRAY[ROW('a', 'infinity', '{}')::address, NULL]"]),
    ("hstore", &["hstore('a', {}::text)", "'a=>NULL, \"b c\"=>\"\\\"\"'::hstore"]),
    ("citext", &["('Ab' || {})::citext"]),
    ("ltree", &["'Top.Science'::ltree", "('n' || {})::ltree"]),
];

/// Names of columns and tables. Careless code handles most of these names wrongly.
const NAMES: [&str; 20] = [
    "plain",
    "\"",
    "checksum",
    "a.b",
    "Größe",
    "select",
    "id",
    "key",
    "old_values",
    "row_key",
    "with space",
    "😀",
    "back\\slash",
    "'",
    "diff",
    "ÄÖÜäöüßÄÖÜäöüßÄÖÜäöüßÄÖÜäöüßÄÖÜa",
    "{}",
    "new",
    "\u{e000}",
    "new\nline",
];

/// Returns a number that is unique in the whole test. A caller uses the number for a row or for a
/// name.
pub fn next_number() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The oids of the tables to which all sessions write. Oids identify the tables, because sessions
/// rename the tables.
pub struct Tables(Mutex<Vec<u32>>);

impl Tables {
    pub fn make(admin: &mut Session, random: &mut Random, count: usize) -> Tables {
        let mut made = Vec::new();
        for number in 0..count {
            let name = format!("table {number} {}", NAMES[number % NAMES.len()]);
            // The first three tables have the kinds 0, 1 and 2.
            let kind = if number < 3 { number as u64 } else { random.below(3) };
            let without_key = number == 0 || number > 2 && random.one_in(3);
            let sql = definition(random, &name, kind, without_key);
            call(admin, &sql);
            let oid: u32 =
                value(admin, &format!("SELECT {}::regclass::oid", literal(&quoted(&name))));
            if number == 1 {
                call(admin, &format!("ALTER TABLE {} ADD UNIQUE (rid)", quoted(&name)));
            }
            call(
                admin,
                &format!(
                    "SELECT lead_audit.enable({oid}::regclass); INSERT INTO model.watching VALUES ({oid}, true)"
                ),
            );
            made.push(oid);
        }
        // The table `child` has a foreign key to the second table. When a referenced row is
        // deleted, the referring row is also deleted, or its reference becomes NULL.
        let (parent, action) = (made[1], random.pick(&["CASCADE", "SET NULL"]));
        let parent: String = value(admin, &format!("SELECT {parent}::regclass::text"));
        call(
            admin,
            &format!(
                "CREATE TABLE child (rid bigint NOT NULL, k1 bigint PRIMARY KEY, part int NOT NULL DEFAULT 0, note text,
                   parent bigint REFERENCES {parent} (rid) ON DELETE {action})"
            ),
        );
        let child: u32 = value(admin, "SELECT 'child'::regclass::oid");
        call(
            admin,
            &format!(
                "SELECT lead_audit.enable('child'); INSERT INTO model.watching VALUES ({child}, true)"
            ),
        );
        made.push(child);
        Tables(Mutex::new(made))
    }

    pub fn nth(&self, n: usize) -> u32 {
        self.0.lock().expect("no holder of this lock panics")[n]
    }

    pub fn pick(&self, random: &mut Random) -> u32 {
        random.pick(&self.0.lock().expect("no holder of this lock panics"))
    }
}

/// Returns a CREATE TABLE for a random table. Kinds 0 and 1 are plain tables, and kind 2 is
/// partitioned. Each table has the columns `rid`, which identifies a row for the model, and `part`.
fn definition(random: &mut Random, name: &str, kind: u64, without_key: bool) -> String {
    let mut columns =
        vec!["rid bigint NOT NULL".to_owned(), "part int NOT NULL DEFAULT 0".to_owned()];
    let mut used = Vec::new();
    for _ in 0..3 + random.below(10) {
        let (name, type_name) = (new_name(random, &used), random.pick(&VALUES).0);
        columns.push(format!("{} {type_name}", quoted(&name)));
        used.push(name);
    }
    if random.one_in(2) {
        columns
            .push("\"made of it\" bigint GENERATED ALWAYS AS (rid * 2 + part) STORED".to_owned());
    }
    let partition_key = if kind == 2 { ", part" } else { "" };
    if !without_key {
        let (k1, k2) = random.pick(&[
            ("bigint", ""),
            ("text", ""),
            ("numeric", ""),
            ("uuid", ""),
            ("text", "bigint"),
            ("timestamptz", "text"),
        ]);
        columns.push(format!("k1 {k1}"));
        let mut key = "k1".to_owned();
        if !k2.is_empty() {
            columns.push(format!("k2 {k2}"));
            key = "k2, k1".to_owned();
        }
        columns.push(format!("PRIMARY KEY ({key}{partition_key})"));
    }
    let name = quoted(name);
    let mut sql = format!(
        "CREATE TABLE {name} ({}){};",
        columns.join(", "),
        if kind == 2 { " PARTITION BY LIST (part)" } else { "" }
    );
    if kind == 2 {
        let partition = |number: u64| quoted(&format!("partition {number} of {name}"));
        sql += &format!("CREATE TABLE {} PARTITION OF {name} FOR VALUES IN (0);", partition(0));
        sql += &format!("CREATE TABLE {} PARTITION OF {name} FOR VALUES IN (1, 2);", partition(1));
        sql += &format!(
            "CREATE TABLE {} PARTITION OF {name} DEFAULT PARTITION BY HASH (part);",
            partition(2)
        );
        for remainder in 0..2 {
            sql += &format!(
                "CREATE TABLE {} PARTITION OF {} FOR VALUES WITH (MODULUS 2, REMAINDER {remainder});",
                partition(3 + remainder),
                partition(2)
            );
        }
    }
    if kind != 2 && random.one_in(3) {
        let function = quoted(&format!("changes {name}"));
        sql += &format!(
            "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.rid % 5 = 0 THEN NEW.part := 1; END IF;
               IF TG_OP = 'UPDATE' AND NEW.rid % 7 = 0 THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER changes BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION {function}();"
        );
    }
    sql
}

fn new_name(random: &mut Random, used: &[String]) -> String {
    let name = random.pick(&NAMES).to_owned();
    if used.contains(&name) { format!("c{}", next_number()) } else { name }
}

pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A column, as the catalog describes it.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub type_name: String,
    pub generated: bool,
}

/// A table, as the catalog describes it at this moment.
#[derive(Debug, Clone)]
pub struct Table {
    pub oid: u32,
    /// The quoted name of the table, with the schema if search_path does not contain it.
    pub name: String,
    pub partitioned: bool,
    pub columns: Vec<Column>,
    pub key: Vec<String>,
    pub watched: bool,
    /// The tables whose column `parent` refers to the `rid` of this table.
    pub children: Vec<u32>,
    /// The table to which the column `parent` of this table refers.
    pub parent: Option<String>,
}

impl Table {
    pub fn describe(session: &mut Session, oid: u32) -> Result<Table, postgres::Error> {
        let row = session.query_one(
            &format!(
                "SELECT {oid}::regclass::text, relkind = 'p',
                   ARRAY(SELECT quote_ident(a.attname) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                         WHERE i.indrelid = {oid} AND i.indisprimary),
                   (SELECT is_on FROM model.watching WHERE relation = {oid}),
                   ARRAY(SELECT conrelid FROM pg_constraint WHERE confrelid = {oid} AND contype = 'f' AND conparentid = 0),
                   (SELECT confrelid::regclass::text FROM pg_constraint WHERE conrelid = {oid} AND contype = 'f')
                 FROM pg_class WHERE oid = {oid}"
            ),
            &[],
        )?;
        let columns = session.query(
            &format!(
                "SELECT attname::text, format_type(atttypid, atttypmod), attgenerated <> '' FROM pg_attribute
                 WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
            ),
            &[],
        )?;
        Ok(Table {
            oid,
            name: row.get(0),
            partitioned: row.get(1),
            key: row.get(2),
            watched: row.get(3),
            children: row.get(4),
            parent: row.get(5),
            columns: columns
                .iter()
                .map(|c| Column { name: c.get(0), type_name: c.get(1), generated: c.get(2) })
                .collect(),
        })
    }

    /// Returns the columns to which a session may write any value of the column's type.
    pub fn free_columns(&self) -> impl Iterator<Item = &Column> {
        const FIXED: [&str; 5] = ["rid", "part", "k1", "k2", "parent"];
        self.columns
            .iter()
            .filter(|column| !column.generated && !FIXED.contains(&column.name.as_str()))
    }

    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|c| c.name == column)
    }

    pub fn type_of(&self, column: &str) -> Option<&str> {
        self.columns.iter().find(|c| c.name == column).map(|c| c.type_name.as_str())
    }

    /// Returns a statement that changes the table's definition, but no rows. The statement must
    /// therefore have no entries of row changes.
    pub fn random_change(&self, random: &mut Random) -> String {
        let name = &self.name;
        let used: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let free: Vec<&Column> = self.free_columns().collect();
        let column = (!free.is_empty()).then(|| random.pick(&free));
        match (random.below(9), column) {
            (0 | 1, _) => {
                let (type_name, values) = random.pick(&VALUES);
                let default = match random.below(3) {
                    0 => format!(" DEFAULT {}", expression(random, values)),
                    1 => format!(" NOT NULL DEFAULT {}", expression(random, &values[..1])),
                    _ => String::new(),
                };
                format!(
                    "ALTER TABLE {name} ADD COLUMN {} {type_name}{default}",
                    quoted(&new_name(random, &used))
                )
            }
            (2, Some(column)) if free.len() > 2 => {
                format!("ALTER TABLE {name} DROP COLUMN {}", quoted(&column.name))
            }
            (3, Some(column)) => {
                format!(
                    "ALTER TABLE {name} RENAME COLUMN {} TO {}",
                    quoted(&column.name),
                    quoted(&new_name(random, &used))
                )
            }
            (4, Some(column)) => {
                let column = quoted(&column.name);
                format!(
                    "ALTER TABLE {name} ALTER {column} DROP DEFAULT, ALTER {column} TYPE text USING {column}::text || '!'"
                )
            }
            (5, _) => format!(
                "ALTER TABLE {name} RENAME TO {}",
                quoted(&format!("renamed {}", next_number()))
            ),
            (6, _) => {
                format!("ALTER TABLE {name} SET SCHEMA {}", random.pick(&["public", "\"S p\""]))
            }
            (7, _) if !self.has("k1") && !self.partitioned => {
                format!(
                    "ALTER TABLE {name} ADD COLUMN k1 bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"
                )
            }
            (7, _) if !self.key.is_empty() && !self.partitioned && self.children.is_empty() => {
                format!(
                    "DO $$ DECLARE c name; BEGIN SELECT conname INTO c FROM pg_constraint WHERE conrelid = {0} AND contype = 'p';
                     EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', {0}::regclass, c); END $$",
                    self.oid
                )
            }
            (7, _) if self.key.is_empty() && self.has("k1") => {
                format!("ALTER TABLE {name} ADD PRIMARY KEY (k1)")
            }
            (8, Some(column)) => {
                format!(
                    "ALTER TABLE {name} ALTER {} SET STATISTICS 50; ANALYZE {name}",
                    quoted(&column.name)
                )
            }
            _ => format!("CREATE INDEX ON {name} (rid)"),
        }
    }
}

/// Returns one of the expressions `choices`, with a random number in the place of {}.
pub fn expression(random: &mut Random, choices: &[&str]) -> String {
    let number = random.below(1_000_000_000_000).to_string();
    let choice = random.pick(choices);
    // In an expression that contains `'{`, the braces are part of the value and not a placeholder.
    if choice.contains("'{") {
        choice.to_owned()
    } else {
        choice.replace("{}", &format!("{number}::bigint"))
    }
}
