//! A superuser changes one column in each of two hundred entries, with UPDATE statements on
//! lead_audit.entry. The test changes each column of lead_audit.entry in turn. Verification must
//! report each changed entry, and no other entry.

use acceptance::{
    Cluster, Random, Session, add_leads, app_database, assert_intact, call, faults, value,
    verify_with_python,
};
use std::collections::{BTreeMap, BTreeSet};

const TAMPERINGS: usize = 200;

/// Returns SQL expressions for a changed value of a column. In the expressions, `$` stands for the
/// column.
fn changes(column: &str, type_name: &str) -> &'static [&'static str] {
    match (column, type_name) {
        // None of the new ids belongs to an original entry. Verification reports a changed entry
        // under its new id.
        ("id", _) => &["$ + 1000000", "-$", "$ + 2000000", "0"],
        (_, "bigint" | "integer") => &["$ + 1", "$ - 1", "-$", "NULL", "coalesce($, 0)", "0"],
        (_, "smallint") => &["$ + 1", "0", "-$", "NULL"],
        (_, "oid") => {
            &["($::bigint + 1)::oid", "($::bigint - 1)::oid", "0", "NULL", "coalesce($, 0::oid)"]
        }
        (_, "xid8") => &[
            "($::text::numeric + 1)::text::xid8",
            "($::text::numeric - 1)::text::xid8",
            "'0'",
            "'18446744073709551615'",
            "NULL",
        ],
        (_, "timestamp with time zone") => &[
            "$ + interval '1 microsecond'",
            "$ - interval '1 microsecond'",
            "$ + interval '1 hour'",
            "'infinity'",
            "$ - interval '5000 years'",
            "NULL",
        ],
        (_, "uuid") => &[
            "gen_random_uuid()",
            "reverse($::text)::uuid",
            "NULL",
            "coalesce($, gen_random_uuid())",
        ],
        (_, "bytea") => &[
            "set_byte($, 31, get_byte($, 31) # 1)",
            "set_byte($, 0, get_byte($, 0) # 128)",
            "substr($, 1, 31)",
            "$ || '\\x00'",
            "''",
            "sha256($)",
            "NULL",
        ],
        (_, "json") => &[
            "regexp_replace($::text, ':', ': ')::json",
            "($::text || ' ')::json",
            "(E'\\n' || $::text)::json",
            "regexp_replace($::text, '\"}\\Z', 'x\"}')::json",
            "(replace($::text, '}', ',\"added\":null}'))::json",
            "upper($::text)::json",
            "('{\"a\":1,' || substr($::text, 2))::json",
            "replace($::text, 'o', E'\\\\u006f')::json",
            "'{}'",
            "coalesce($, '{}')",
            "NULL",
        ],
        (_, "text") => &[
            "upper($)",
            "lower($)",
            "initcap($)",
            "$ || ' '",
            "' ' || $",
            "left($, -1)",
            "$ || $",
            "translate($, 'aeo', 'аео')",
            "$ || E'\\u200b'",
            "''",
            "coalesce($, '')",
            "coalesce($, 'somebody else')",
            "NULL",
        ],
        _ => panic!("column {column} has type {type_name}, for which this test knows no change"),
    }
}

#[test]
fn each_of_two_hundred_tampered_columns_is_found() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "tamper");
    write_trail(&mut cluster.session("app", "tamper"), &mut admin);
    assert_intact(&mut admin);
    // A superuser can disable the triggers that protect the log. Without the triggers that protect
    // the log, any statement can change the log.
    call(
        &mut admin,
        "ALTER TABLE lead_audit.entry DISABLE TRIGGER append_only;
         DO $$ DECLARE c name; BEGIN
           FOR c IN SELECT attname FROM pg_attribute WHERE attrelid = 'lead_audit.entry'::regclass AND attnum > 1 AND attnotnull LOOP
             EXECUTE format('ALTER TABLE lead_audit.entry ALTER %I DROP NOT NULL', c); END LOOP; END $$;
         CREATE TABLE original AS SELECT * FROM lead_audit.entry;
         ALTER TABLE original ADD PRIMARY KEY (id)",
    );
    let tampered = tamper(&mut admin);
    assert_eq!(tampered.len(), TAMPERINGS);

    let found: BTreeMap<i64, String> = faults(&mut admin)
        .into_iter()
        .map(|fault| (fault.id, format!("{}: {}", fault.kind, fault.detail)))
        .collect();
    let missed: Vec<_> = tampered.iter().filter(|(id, _)| !found.contains_key(id)).collect();
    let wronged: Vec<_> = found.iter().filter(|(id, _)| !tampered.contains_key(id)).collect();
    assert!(missed.is_empty(), "verify() did not find: {missed:#?}");
    assert!(wronged.is_empty(), "verify() found what nobody touched: {wronged:#?}");

    let verdict = verify_with_python(&cluster, "tamper");
    let missed: Vec<_> =
        tampered.iter().filter(|(id, _)| !verdict.faulty.contains_key(id)).collect();
    let wronged: Vec<_> =
        verdict.faulty.iter().filter(|(id, _)| !tampered.contains_key(id)).collect();
    assert!(missed.is_empty(), "the verifier in Python did not find: {missed:#?}");
    assert!(wronged.is_empty(), "the verifier in Python found what nobody touched: {wronged:#?}");
    assert!(!verdict.satisfied);

    // verify_entry(), and verify() for a range of ids, must report the same entries as verify()
    // for the whole log.
    let by_entry: Vec<i64> = admin
        .query(
            "SELECT id FROM lead_audit.entry WHERE NOT lead_audit.verify_entry(id) ORDER BY id",
            &[],
        )
        .expect("verify_entry() works")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(by_entry, tampered.keys().copied().collect::<Vec<_>>());
    let some: i64 = tampered
        .keys()
        .copied()
        .find(|id| (1..1_000_000).contains(id))
        .expect("some entry has kept its id");
    let by_range: Vec<i64> = admin
        .query("SELECT id FROM lead_audit.verify(from_id => $1, to_id => $1)", &[&some])
        .expect("verify() takes a range")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(by_range, [some]);

    // Once the original entries are restored, verification must report no fault. Verification
    // detects changed values, and not the writes that changed the values.
    call(
        &mut admin,
        "TRUNCATE lead_audit.entry; INSERT INTO lead_audit.entry SELECT * FROM original",
    );
    assert_intact(&mut admin);
}

/// Makes entries of every operation, with and without a value in each optional column.
fn write_trail(app: &mut Session, admin: &mut Session) {
    add_leads(app, 1, 150);
    call(
        app,
        "SET lead_audit.user_id = 'Ursula O''Connor'; SET lead_audit.user_ip = '2001:db8::a'; SET lead_audit.user_agent = 'Mozilla/5.0 (é)';
         SET lead_audit.request_id = 'Request-1'",
    );
    add_leads(app, 151, 300);
    call(
        app,
        "UPDATE leads SET enrichment_status = 'COMPLETED' WHERE is_manual;
         UPDATE leads SET is_deleted = true WHERE source = 'web';
         UPDATE leads SET is_deleted = false WHERE is_manual;
         UPDATE leads SET id = 'moved ' || id WHERE created_by = 'user-7';
         DELETE FROM leads WHERE created_by = 'user-9'",
    );
    call(
        admin,
        "CREATE TABLE keyless (note text); CREATE TABLE other (a int, b text, PRIMARY KEY (b, a));
         SELECT lead_audit.enable('keyless'), lead_audit.enable('other');
         INSERT INTO keyless SELECT 'note ' || g FROM generate_series(1, 50) g;
         INSERT INTO other SELECT g, 'Other ' || g FROM generate_series(1, 50) g; TRUNCATE other;
         ALTER TABLE keyless DISABLE TRIGGER \"00_lead_audit_truncate\";
         ALTER TABLE keyless ENABLE TRIGGER \"00_lead_audit_truncate\"; SELECT lead_audit.disable('keyless')",
    );
}

/// Changes one column in each of many entries. Returns the id of each changed entry after the
/// change, with a description of the change.
fn tamper(admin: &mut Session) -> BTreeMap<i64, String> {
    let columns: Vec<(String, String)> = admin
        .query(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
             WHERE attrelid = 'lead_audit.entry'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[],
        )
        .expect("the catalog can be read")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let mut random = Random::new(400);
    call(admin, "CREATE TABLE untouched AS SELECT id FROM lead_audit.entry");
    let mut tampered = BTreeMap::new();
    let mut covered = BTreeSet::new();
    let mut next_change: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..TAMPERINGS {
        let (column, type_name) = &columns[number % columns.len()];
        let all = changes(column, type_name);
        // The query prefers entries in which the column is not NULL, because a change from NULL to
        // a value is easier to detect.
        let candidates: Vec<i64> = admin
            .query(
                &format!(
                    "SELECT id FROM lead_audit.entry JOIN untouched USING (id)
                     ORDER BY {column} IS NULL, md5(id::text || '{}') LIMIT 20",
                    random.any()
                ),
                &[],
            )
            .expect("candidates")
            .iter()
            .map(|row| row.get(0))
            .collect();
        let mut done = None;
        // An expression such as lower('ok') can leave the value unchanged. The loops then try the
        // next entry or the next expression.
        'search: for _ in 0..all.len() {
            let turn = next_change.entry(type_name).or_insert_with(|| random.below(50) as usize);
            let change = all[*turn % all.len()];
            *turn += 1;
            for id in &candidates {
                let expression = change.replace('$', &format!("e.{column}"));
                let sql = format!(
                    "UPDATE lead_audit.entry e SET {column} = {expression}
                     WHERE id = {id} AND ({expression})::text IS DISTINCT FROM {column}::text RETURNING id"
                );
                match admin.query_opt(&sql, &[]) {
                    Ok(Some(row)) => {
                        done = Some((
                            *id,
                            row.get::<_, i64>(0),
                            format!("{column} of entry {id} = {change}"),
                        ));
                        break 'search;
                    }
                    Ok(None) => {}
                    // The UPDATE fails if the new id already exists or if the new JSON is invalid.
                    Err(error) => assert!(
                        matches!(error.code().map(|c| c.code()), Some("22P02" | "23505")),
                        "{error}\n{sql}"
                    ),
                }
            }
        }
        let (before, now, what) =
            done.unwrap_or_else(|| panic!("no way found to change column {column}"));
        call(admin, &format!("DELETE FROM untouched WHERE id = {before}"));
        covered.insert(column.clone());
        tampered.insert(now, what);
    }
    assert_eq!(covered.len(), columns.len(), "every column was changed in some entry");
    let differing: i64 = value(
        admin,
        "SELECT count(*) FROM lead_audit.entry e FULL JOIN original o ON o.id = e.id WHERE e::text IS DISTINCT FROM o::text AND o.id IS NOT NULL",
    );
    assert_eq!(differing as usize, TAMPERINGS, "as many entries differ as were changed");
    tampered
}
