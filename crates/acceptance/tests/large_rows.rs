//! Values of hundreds of megabytes are recorded completely. A value that is too large for an entry
//! raises an error or a warning, depending on lead_audit.on_error. The loss of an entry is never
//! silent.

use acceptance::{Cluster, Session, assert_intact, call, setting, sqlstate, value};

const ENTRIES: &str = "SELECT count(*) FROM lead_audit.entry";
const UNWRITTEN: &str = "SELECT entries_not_written FROM lead_audit.stats";

fn database(cluster: &Cluster) -> Session {
    let mut admin = cluster.admin("postgres");
    call(
        &mut admin,
        "CREATE EXTENSION lead_audit;
         CREATE TABLE large (id int PRIMARY KEY, n int, compressed text, plain text, raw bytea, doc jsonb, text_doc json);
         ALTER TABLE large ALTER plain SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL;
         SELECT lead_audit.enable('large')",
    );
    admin
}

#[test]
fn two_hundred_megabytes_are_recorded() {
    let cluster = Cluster::builder().setting("max_wal_size = 8GB").start();
    let mut admin = database(&cluster);
    // By default, only two values have 200 MB, because five values of 200 MB would take minutes on
    // a busy machine.
    let all = setting("LEAD_AUDIT_ACCEPTANCE_LARGE", 0) > 0;
    let bytes = |at_least: u64| if all { 200_000_000 } else { at_least };
    for (number, (column, size, expression)) in [
        ("compressed", bytes(200_000_000), "left(repeat('compressed \"é\" ', size / 12), size)"),
        ("plain", bytes(200_000_000), "repeat(md5('plain'), size / 32)"),
        // A value of bytea has two hexadecimal digits for each byte, so the row image is twice as
        // long as the value.
        ("raw", bytes(20_000_000), "convert_to(repeat(md5('raw'), size / 64), 'UTF8')"),
        ("doc", bytes(20_000_000), "jsonb_build_object('k', repeat(md5('doc'), size / 32))"),
        ("text_doc", bytes(20_000_000), "json_build_array(repeat(md5('json'), size / 32))"),
    ]
    .into_iter()
    .enumerate()
    {
        let expression = expression.replace("size", &size.to_string());
        call(
            &mut admin,
            &format!("INSERT INTO large (id, {column}) VALUES ({number}, {expression})"),
        );
        // The UPDATE does not change the large value, so the computation of the diff does not read
        // the large value. The old row in the entry must contain the large value nevertheless.
        call(&mut admin, &format!("UPDATE large SET n = 1 WHERE id = {number}"));
        assert_eq!(admin.warnings(), [""; 0], "{column}");
        assert_eq!(value::<i64>(&mut admin, ENTRIES), 2, "{column}");
        let same = format!(
            "SELECT string_agg(concat_ws(' ', l.operation, length(x.value) >= {size}, md5(x.value) = md5(to_jsonb(t)->>'{column}'), l.diff->>'n'), ', ' ORDER BY l.id)
             FROM large t, lead_audit.log l, LATERAL (SELECT coalesce(l.old_values, l.new_values)->>'{column}' AS value) x"
        );
        assert_eq!(
            value::<String>(&mut admin, &same),
            r#"INSERT t t, UPDATE t t {"new": 1, "old": null}"#,
            "{column}"
        );
        assert_intact(&mut admin);
        // Removes the row and the entries of this round, so that the checks of the next round do
        // not read old entries.
        call(&mut admin, "SET lead_audit.enabled = off; TRUNCATE large; RESET lead_audit.enabled");
        call(
            &mut admin,
            "ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only; TRUNCATE lead_audit.entry; ALTER TABLE lead_audit.entry ENABLE ALWAYS TRIGGER append_only",
        );
    }
}

#[test]
fn too_large_values_follow_on_error() {
    let cluster = Cluster::builder().setting("max_wal_size = 8GB").start();
    let mut admin = database(&cluster);
    // The JSON of each of these rows exceeds 256 MB. The first value is large as plain text. Other
    // values exceed 256 MB only as JSON, because of escapes or hexadecimal digits. In some rows, no
    // single value exceeds 256 MB, but all values together do. The JSON of some rows even exceeds 1
    // GB, PostgreSQL's limit for a single allocation.
    let rows = [
        "INSERT INTO large (id, plain) VALUES (1, repeat('x', 270000000))",
        "INSERT INTO large (id, compressed) VALUES (1, repeat(E'\\x01', 50000000))",
        "INSERT INTO large (id, raw) VALUES (1, convert_to(repeat('x', 140000000), 'UTF8'))",
        "INSERT INTO large (id, plain, compressed) VALUES (1, repeat('x', 150000000), repeat('y', 150000000))",
        "INSERT INTO large (id, compressed) VALUES (1, repeat(E'\\x01', 250000000))",
        "INSERT INTO large (id, plain, compressed) VALUES (1, repeat('x', 520000000), repeat('y', 520000000))",
        "INSERT INTO large (id, text_doc) VALUES (1, to_json(repeat('x', 270000000)))",
    ];
    for (number, row) in rows.into_iter().enumerate() {
        let (entries, unwritten): (i64, i64) =
            (value(&mut admin, ENTRIES), value(&mut admin, UNWRITTEN));
        call(&mut admin, row);
        let warnings = admin.warnings();
        assert!(
            warnings.len() == 1
                && warnings[0]
                    .starts_with("no audit entry for INSERT of public.large with key {\"id\":1}"),
            "{row}: {warnings:?}"
        );
        assert_eq!(
            value::<i64>(&mut admin, "SELECT count(*) FROM large"),
            1,
            "{row}: the statement went on"
        );
        assert_eq!(
            (value::<i64>(&mut admin, ENTRIES), value::<i64>(&mut admin, UNWRITTEN)),
            (entries, unwritten + 1),
            "{row}"
        );

        // The old row in the entries of these statements would be as large as the inserted row, so
        // these entries cannot be written either.
        call(
            &mut admin,
            if number == 0 {
                "UPDATE large SET n = 1; DELETE FROM large"
            } else {
                "DELETE FROM large"
            },
        );
        let deleted = if number == 0 { 2 } else { 1 };
        let warnings = admin.warnings();
        assert_eq!(warnings.len(), deleted, "{row}: {warnings:?}");
        assert_eq!(value::<i64>(&mut admin, UNWRITTEN), unwritten + 1 + deleted as i64, "{row}");

        call(&mut admin, "SET lead_audit.on_error = 'abort'");
        let code = sqlstate(&mut admin, row);
        assert_eq!(code, "54000", "{row}: {code}");
        assert_eq!(
            value::<i64>(&mut admin, "SELECT count(*) FROM large"),
            0,
            "{row}: it was refused"
        );
        call(&mut admin, "RESET lead_audit.on_error");
        assert_eq!(admin.warnings(), [""; 0]);

        // Later writes of small rows must have entries.
        call(
            &mut admin,
            &format!("INSERT INTO large (id, n) VALUES ({}, 1); DELETE FROM large", 100 + number),
        );
        assert_eq!(admin.warnings(), [""; 0]);
        assert_eq!(value::<i64>(&mut admin, ENTRIES), entries + 2, "{row}");
    }
    assert_intact(&mut admin);
}

/// If a value is too large for a column of the view lead_audit.log, the view shows NULL in the
/// column. The view lead_audit.log still shows the other columns of the entry, and all other
/// entries.
#[test]
fn an_entry_that_is_too_large_to_show_hides_no_other() {
    let cluster = Cluster::builder().setting("max_wal_size = 8GB").start();
    let mut admin = database(&cluster);
    call(
        &mut admin,
        "CREATE TABLE pair (id int PRIMARY KEY, a jsonb, b jsonb, n int); SELECT lead_audit.enable('pair');
         INSERT INTO large (id, n) VALUES (1, 1); INSERT INTO pair (id, n) VALUES (1, 1);
         UPDATE large SET plain = repeat(md5('plain'), 150000000 / 32) WHERE id = 1;
         UPDATE large SET compressed = repeat('compressed ', 150000000 / 11), plain = NULL WHERE id = 1;
         UPDATE large SET plain = repeat(md5('plain'), 150000000 / 32), compressed = NULL WHERE id = 1",
    );
    // The row image of this row is larger as jsonb than as text.
    call(
        &mut admin,
        "INSERT INTO pair SELECT 2, l, l, 1 FROM to_jsonb(array_fill(1, ARRAY[12000000])) l",
    );
    assert_eq!(admin.warnings(), [""; 0]);
    let columns = |from: &str| {
        format!(
            "SELECT string_agg(concat_ws(' ', operation, row_key, CASE WHEN old_values IS NOT NULL THEN 'old' END,
               CASE WHEN new_values IS NOT NULL THEN 'new' END, CASE WHEN diff IS NOT NULL THEN 'diff' END), ', ' ORDER BY id) FROM {from}"
        )
    };
    assert_eq!(
        value::<String>(&mut admin, &columns("lead_audit.history('large', '1')")),
        "INSERT {\"id\": 1} new, UPDATE {\"id\": 1} old new diff, UPDATE {\"id\": 1} old new, UPDATE {\"id\": 1} old new"
    );
    assert_eq!(
        value::<String>(&mut admin, &columns("lead_audit.log WHERE table_name = 'pair'")),
        "INSERT {\"id\": 1} new, INSERT {\"id\": 2}"
    );
    assert_eq!(
        value::<String>(
            &mut admin,
            "SELECT concat_ws(' ', total, verified) FROM lead_audit.summary('pair', '2')"
        ),
        "1 t"
    );
    // A client can read whole rows of the view.
    let rows = admin.query("SELECT * FROM lead_audit.log", &[]).expect("the log can be read");
    assert_eq!(rows.len(), 6);
    assert_intact(&mut admin);
}
