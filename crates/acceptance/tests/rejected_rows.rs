//! The entry of a failed statement must contain the row at which the statement failed, or no row.
//! The entry must never contain a row that the statement wrote or skipped before.

use acceptance::{Cluster, call, try_call, value, wait_until};
use std::time::Duration;

const SCHEMA: &str = "
    CREATE TABLE leads (id text PRIMARY KEY, n int CHECK (n < 100));
    CREATE TABLE same_shape (id text PRIMARY KEY, n int); INSERT INTO same_shape VALUES ('bad', 500);
    CREATE TABLE two (id text, n int); INSERT INTO two VALUES ('one', 1), ('two', 200);
    CREATE DOMAIN small AS int CHECK (VALUE < 100);
    CREATE TABLE parts (id int PRIMARY KEY, n int CONSTRAINT small CHECK (n < 100), t text) PARTITION BY RANGE (id);
    CREATE TABLE alike PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE otherwise (t text, n int CONSTRAINT small CHECK (n < 100), gone int, id int NOT NULL);
    ALTER TABLE otherwise DROP COLUMN gone;
    ALTER TABLE parts ATTACH PARTITION otherwise FOR VALUES FROM (10) TO (20);
    CREATE TABLE guarded (id int PRIMARY KEY, n int);
    CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF NEW.n = 0 THEN RETURN NULL; END IF;
      IF NEW.n = 7 THEN RAISE 'seven'; END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON guarded FOR EACH ROW EXECUTE FUNCTION guard();
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
    CREATE TABLE summed (id int PRIMARY KEY, lead text REFERENCES leads);
    CREATE TRIGGER refuse AFTER INSERT ON summed FOR EACH STATEMENT EXECUTE FUNCTION refuse();
    CREATE TABLE followed (id int PRIMARY KEY, n int);
    CREATE TRIGGER refuse AFTER INSERT ON followed FOR EACH ROW WHEN (NEW.n = 2) EXECUTE FUNCTION refuse();
    CREATE TABLE mails (id int PRIMARY KEY, mail text UNIQUE, n int CHECK (n < 100));
    CREATE VIEW few AS SELECT * FROM leads WHERE n < 50 WITH CHECK OPTION;
    CREATE EXTENSION lead_audit;
    SELECT lead_audit.enable(t::regclass) FROM unnest('{parts,guarded,summed,followed,mails}'::text[]) t;
    INSERT INTO leads VALUES ('here', 1);
    INSERT INTO parts VALUES (4, 4, 'four'), (14, 14, 'fourteen'), (15, 90, 'fifteen');
    INSERT INTO guarded VALUES (20, 1), (21, 1);
    INSERT INTO mails VALUES (1, 'a', 1), (2, 'b', 99)";

/// Statements, each with the key of the row at which the statement fails. The key is None if the
/// extension cannot determine the row reliably.
const STATEMENTS: [(&str, Option<&str>); 39] = [
    // In these statements, the executor inserts the row that the plan returns either directly or as
    // a copy.
    ("INSERT INTO leads SELECT * FROM same_shape", Some("bad")),
    ("INSERT INTO leads TABLE same_shape LIMIT 1", Some("bad")),
    ("INSERT INTO leads SELECT 'good', 1 UNION ALL SELECT * FROM same_shape", Some("bad")),
    ("INSERT INTO leads SELECT * FROM same_shape UNION ALL SELECT 'good', 1", Some("bad")),
    ("INSERT INTO leads SELECT id, n FROM same_shape ORDER BY n", Some("bad")),
    ("INSERT INTO leads SELECT id, max(n) FROM same_shape GROUP BY id", Some("bad")),
    ("INSERT INTO leads SELECT DISTINCT * FROM same_shape", Some("bad")),
    (
        "WITH x AS MATERIALIZED (SELECT * FROM same_shape) INSERT INTO leads SELECT * FROM x",
        Some("bad"),
    ),
    (
        "INSERT INTO leads SELECT a.id, b.n FROM same_shape a JOIN same_shape b USING (id)",
        Some("bad"),
    ),
    ("INSERT INTO leads SELECT id, n FROM two", Some("two")),
    ("INSERT INTO few SELECT id, n / 3 FROM two", Some("two")),
    (
        "WITH w AS (INSERT INTO leads SELECT id, n FROM two RETURNING id) SELECT * FROM w",
        Some("two"),
    ),
    // In these statements, the error occurs while the executor fetches the next row. During the
    // fetch of a row, the tuple slot still contains the previous row.
    ("INSERT INTO leads SELECT id, n::small FROM two", None),
    ("INSERT INTO leads SELECT id, 100 / (n - 200) FROM two", None),
    (
        "WITH w AS (INSERT INTO leads SELECT id, 1 / (200 - n) FROM two RETURNING id) SELECT * FROM w",
        None,
    ),
    // These statements skip a row, and then fail at the next row.
    ("INSERT INTO leads VALUES ('here', 2), ('new', 200) ON CONFLICT DO NOTHING", Some("new")),
    (
        "INSERT INTO leads SELECT id, 1 / n FROM (VALUES ('here', 1), ('new', 0)) v(id, n) ON CONFLICT DO NOTHING",
        None,
    ),
    // With ON CONFLICT DO UPDATE, a statement can fail at an existing row or at a new row. The
    // rejected row must not be a row that the statement has already updated.
    ("INSERT INTO mails VALUES (9, 'a', 1) ON CONFLICT (mail) DO UPDATE SET n = 1000", Some("1")),
    (
        "INSERT INTO mails VALUES (9, 'a', 1), (8, 'b', 1) ON CONFLICT (mail) DO UPDATE SET n = mails.n + 1",
        Some("2"),
    ),
    (
        "INSERT INTO mails VALUES (9, 'a', 1), (7, 'c', 1000) ON CONFLICT (mail) DO UPDATE SET n = 2",
        Some("7"),
    ),
    (
        "INSERT INTO mails VALUES (9, 'a', 1), (6, 'b', 0) ON CONFLICT (mail) DO UPDATE SET n = 1 / excluded.n",
        None,
    ),
    ("INSERT INTO guarded VALUES (1, 0), (2, 7)", Some("2")),
    (
        "INSERT INTO guarded SELECT g, CASE WHEN g = 1 THEN 0 ELSE 1 / (g - 2) END FROM generate_series(1, 3) g",
        None,
    ),
    ("UPDATE guarded SET n = 7", Some("20")),
    ("UPDATE guarded SET n = CASE WHEN id = 20 THEN 0 ELSE 1 / (id - 21) END", None),
    ("UPDATE leads SET n = n + 99", Some("here")),
    // In one partition, the columns have the same order as in the partitioned table. In the other
    // partition, the columns have a different order.
    ("INSERT INTO parts VALUES (1, 1000, 'x')", Some("1")),
    ("INSERT INTO parts VALUES (2, 2, 'x'), (11, 1000, 'y')", Some("11")),
    ("INSERT INTO parts VALUES (12, 2, 'x'), (3, 1000, 'y')", Some("3")),
    ("INSERT INTO parts SELECT 5, 7, 'a' UNION ALL SELECT 6, n, id FROM same_shape", Some("6")),
    ("INSERT INTO parts VALUES (55, 1, 'nowhere')", None),
    ("UPDATE parts SET n = n * 10", Some("14")),
    // In this UPDATE, a partition first accepts one row and then refuses another row.
    ("UPDATE parts SET id = CASE id WHEN 15 THEN 5 ELSE id END, n = n + 10", Some("15")),
    ("DELETE FROM parts WHERE 1 / (id - 14) IS NOT NULL", None),
    ("UPDATE parts SET id = id + 10, n = n + 96 WHERE id = 4", Some("4")),
    // The next three statements fail in AFTER triggers, either in a trigger for the statement or in
    // a trigger for each row.
    ("INSERT INTO summed VALUES (1), (2)", None),
    ("INSERT INTO summed VALUES (1, NULL), (2, 'nobody'), (3, NULL)", Some("2")),
    ("INSERT INTO followed VALUES (1, 1), (2, 2), (3, 3)", Some("2")),
    ("INSERT INTO otherwise VALUES ('x', 1, 18), ('y', 1000, 19)", Some("19")),
];

#[test]
fn the_row_that_failed_or_none() {
    let cluster = Cluster::builder().preloaded().start();
    call(&mut cluster.admin("postgres"), "CREATE DATABASE rows");
    let mut admin = cluster.admin("rows");
    call(&mut admin, SCHEMA);
    let worker = "SELECT state = 'on' FROM lead_audit.status() WHERE part = 'background worker'";
    wait_until(&mut admin, Duration::from_secs(30), worker);
    for (number, (statement, expected)) in (1..).zip(STATEMENTS) {
        let mut session = cluster.examined("rows");
        let error = try_call(&mut session, statement).expect_err(statement);
        // A client receives its error a moment before the record of the failed statement is in the
        // queue.
        let is_there =
            format!("SELECT count(*) >= {number} FROM lead_audit.log WHERE outcome = 'failed'");
        wait_until(&mut admin, Duration::from_secs(10), &is_there);
        let row = admin
            .query_one(
                "SELECT coalesce(row_key->>'id', ''), coalesce(new_values, old_values) IS NOT NULL FROM lead_audit.log
                 WHERE outcome = 'failed' ORDER BY id DESC LIMIT 1",
                &[],
            )
            .expect("there is an entry");
        assert_eq!(
            (row.get::<_, &str>(0), row.get(1)),
            (expected.unwrap_or(""), expected.is_some()),
            "{statement}: {error}"
        );
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.log WHERE outcome = 'failed'"),
        STATEMENTS.len() as i64
    );
}
