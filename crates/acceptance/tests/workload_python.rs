//! Several sessions with unusual settings change many rows. The Python verifier then checks an
//! export of all entries. The Python verifier was written from docs/FORMAT.md, and shares no code
//! with the extension.

use acceptance::{
    Cluster, Session, add_leads, app_database, assert_intact, assert_trail_gives_table, call,
    value, verify_with_python,
};
use std::io::Write;

/// The number of row changes of each kind.
#[derive(Default, Debug, PartialEq, Eq)]
struct Done {
    inserts: i64,
    updates: i64,
    deletes: i64,
}

const SETTINGS: [&str; 5] = [
    "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German, DMY'; SET IntervalStyle = 'sql_standard'",
    "SET TimeZone = '<+13:45>-13:45'; SET DateStyle = 'SQL, MDY'; SET bytea_output = 'escape'",
    "SET TimeZone = 'America/St_Johns'; SET DateStyle = 'Postgres, DMY'; SET extra_float_digits = -15",
    "SET IntervalStyle = 'iso_8601'; SET standard_conforming_strings = off; SET backslash_quote = on",
    "SET client_encoding = 'UTF8'; SET search_path = pg_catalog; SET quote_all_identifiers = on",
];

/// Texts that careless code could handle wrongly.
const TEXTS: [&str; 8] = [
    "O''Reilly & Söhne",
    "quote \" backslash \\\\ slash /",
    "tab\tnewline\ncarriage\rform\u{c}",
    "\u{1}\u{1f}\u{7f}\u{80}\u{2028}\u{2029}\u{feff}",
    "emoji 😀 and \u{e000}, 漢字, e\u{301}",
    "",
    "null",
    "{\"looks\": [\"like\", 1e400]}",
];

#[test]
fn python_computes_each_checksum_of_a_large_workload() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "workload");
    let sessions: Vec<Session> = SETTINGS
        .iter()
        .enumerate()
        .map(|(number, settings)| {
            let mut session = cluster.session("app", "workload");
            call(&mut session, settings);
            call(
                &mut session,
                &format!("SET lead_audit.user_id = 'worker {number} é😀'; SET lead_audit.user_ip = '2001:db8::{number}'"),
            );
            session
        })
        .collect();
    let work = [bulk, copy, singles, many_values, odd_statements];
    let done: Vec<Done> = std::thread::scope(|scope| {
        let workers: Vec<_> = std::iter::zip(sessions, work)
            .map(|(mut session, work)| {
                scope.spawn(move || {
                    let mut done = Done::default();
                    work(&mut session, &mut done);
                    done
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("each worker succeeds")).collect()
    });
    let expected = Done {
        inserts: done.iter().map(|d| d.inserts).sum(),
        updates: done.iter().map(|d| d.updates).sum(),
        deletes: done.iter().map(|d| d.deletes).sum(),
    };
    assert!(expected.inserts >= 100_000, "{expected:?}");

    let mut count = |operation: &str| -> i64 {
        value(
            &mut admin,
            &format!(
                "SELECT count(*) FROM lead_audit.entry WHERE operation = '{operation}' AND outcome = 'ok'"
            ),
        )
    };
    let found =
        Done { inserts: count("INSERT"), updates: count("UPDATE"), deletes: count("DELETE") };
    assert_eq!(found, expected);
    assert_eq!(
        value::<i64>(
            &mut admin,
            "SELECT count(*) FROM lead_audit.entry WHERE soft_delete = 'deleted'"
        ),
        4_000
    );
    assert_eq!(
        value::<i64>(
            &mut admin,
            "SELECT count(*) FROM lead_audit.entry WHERE soft_delete = 'restored'"
        ),
        1_000
    );
    assert_eq!(
        value::<i64>(
            &mut admin,
            "SELECT count(*) FROM lead_audit.entry WHERE previous_key_hash IS NOT NULL"
        ),
        50
    );

    let total = expected.inserts + expected.updates + expected.deletes;
    let verdict = verify_with_python(&cluster, "workload");
    assert_eq!(
        verdict.faulty.iter().take(5).collect::<Vec<_>>(),
        [],
        "the first of {} faults",
        verdict.faults
    );
    assert_eq!((verdict.entries as i64, verdict.faults, verdict.satisfied), (total, 0, true));
    assert_intact(&mut admin);

    assert_trail_gives_table(&mut admin, "leads");
}

/// Inserts 60,000 rows in one statement, and then changes many rows at a time.
fn bulk(session: &mut Session, done: &mut Done) {
    add_leads(session, 1, 60_000);
    done.inserts += 60_000;
    let update = |session: &mut Session, set: &str, numbers: &str, rows: i64| {
        let sql = format!(
            "UPDATE leads SET {set} WHERE id IN (SELECT lpad(to_hex(g), 32, '0') FROM generate_series({numbers}) g)"
        );
        assert_eq!(session.execute(&sql, &[]).expect("an update"), rows as u64);
    };
    update(
        session,
        "enrichment_status = 'COMPLETED', updated_at = clock_timestamp()",
        "1, 10000",
        10_000,
    );
    update(
        session,
        "is_deleted = true, deleted_at = now(), deleted_by = 'me'",
        "10001, 14000",
        4_000,
    );
    update(session, "is_deleted = false, deleted_at = NULL", "13001, 14000", 1_000);
    done.updates += 15_000;
    // This UPDATE changes no value, so it has no entries.
    update(session, "email = email, is_manual = NOT NOT is_manual", "20001, 25000", 5_000);
    let deleted = session
        .execute("DELETE FROM leads WHERE id IN (SELECT lpad(to_hex(g), 32, '0') FROM generate_series(30001, 35000) g)", &[])
        .expect("a delete");
    assert_eq!(deleted, 5_000);
    done.deletes += 5_000;
}

/// Inserts 30,000 rows by COPY in three parts. One of the parts is in a transaction with other
/// statements.
fn copy(session: &mut Session, done: &mut Done) {
    for piece in 0..3 {
        if piece == 1 {
            call(session, "BEGIN");
        }
        let mut rows = String::new();
        for n in 0..10_000 {
            let text = TEXTS[n % TEXTS.len()]
                .replace('\\', "\\\\")
                .replace('\n', "\\n")
                .replace('\r', "\\r")
                .replace('\t', "\\t");
            rows.push_str(&format!("copied-{piece}-{n}\t{text}\t\\N\t{}\n", n % 7 == 0));
        }
        let mut writer = session
            .copy_in("COPY leads (id, company_name, source, is_manual) FROM STDIN")
            .expect("COPY begins");
        writer.write_all(rows.as_bytes()).expect("COPY takes rows");
        assert_eq!(writer.finish().expect("COPY ends"), 10_000);
        done.inserts += 10_000;
        if piece == 1 {
            call(
                session,
                "UPDATE leads SET domain = 'copied.example' WHERE id LIKE 'copied-1-%7'; COMMIT",
            );
            done.updates += 1_000;
        }
    }
}

/// Inserts and changes 4,000 rows one by one. Some of the transactions are rolled back.
fn singles(session: &mut Session, done: &mut Done) {
    let insert = session
        .prepare("INSERT INTO leads (id, company_name, contact_name) VALUES ($1, $2, $3)")
        .expect("prepare");
    let update =
        session.prepare("UPDATE leads SET contact_name = $2 WHERE id = $1").expect("prepare");
    let delete = session.prepare("DELETE FROM leads WHERE id = $1").expect("prepare");
    for n in 0..4_000_usize {
        let (id, text) = (format!("single-{n}"), TEXTS[n % TEXTS.len()]);
        let rolled_back = n % 10 == 9;
        let mut transaction = session.transaction().expect("a transaction");
        transaction.execute(&insert, &[&id, &text, &None::<String>]).expect("an insert");
        transaction.execute(&update, &[&id, &format!("contact {n} {text}")]).expect("an update");
        let delete_too = n % 4 == 0;
        if delete_too {
            transaction.execute(&delete, &[&id]).expect("a delete");
        }
        if rolled_back {
            transaction.rollback().expect("a rollback");
            continue;
        }
        transaction.commit().expect("a commit");
        done.inserts += 1;
        done.updates += 1;
        done.deletes += i64::from(delete_too);
    }
}

/// Inserts 8,000 rows by INSERT … VALUES, 200 rows at a time.
fn many_values(session: &mut Session, done: &mut Done) {
    for piece in 0..40 {
        let rows: Vec<String> = (0..200)
            .map(|n| {
                format!(
                    "('values-{piece}-{n}', E'{}')",
                    TEXTS[n % TEXTS.len()].replace('\\', "\\\\")
                )
            })
            .collect();
        call(session, &format!("INSERT INTO leads (id, company_name) VALUES {}", rows.join(", ")));
        done.inserts += 200;
    }
}

/// Executes statements that change rows in unusual ways.
fn odd_statements(session: &mut Session, done: &mut Done) {
    call(
        session,
        "INSERT INTO public.leads (id) SELECT 'odd-' || g FROM generate_series(1, 1000) g",
    );
    done.inserts += 1_000;
    // Of the inserted rows, 500 exist already and 500 are new.
    call(
        session,
        "INSERT INTO public.leads (id, source) SELECT 'odd-' || g, 'upsert' FROM generate_series(501, 1500) g
         ON CONFLICT (id) DO UPDATE SET source = excluded.source",
    );
    done.inserts += 500;
    done.updates += 500;
    call(
        session,
        "INSERT INTO public.leads (id) SELECT 'odd-' || g FROM generate_series(1, 1500) g ON CONFLICT DO NOTHING",
    );
    call(
        session,
        "MERGE INTO public.leads l USING (SELECT 'odd-' || g AS id, g FROM generate_series(1401, 1600) g) s ON l.id = s.id
         WHEN MATCHED AND g <= 1450 THEN DELETE
         WHEN MATCHED THEN UPDATE SET source = 'merge'
         WHEN NOT MATCHED THEN INSERT (id, source) VALUES (s.id, 'merge')",
    );
    done.deletes += 50;
    done.updates += 50;
    done.inserts += 100;
    call(
        session,
        "UPDATE public.leads SET id = 'moved-' || id WHERE id BETWEEN 'odd-1551' AND 'odd-1600' AND id LIKE 'odd-1___'",
    );
    done.updates += 50;
    // Changes rows through a cursor, in a function that catches an exception, and in the WITH of a
    // statement.
    call(
        session,
        "DO $$ DECLARE c CURSOR FOR SELECT * FROM public.leads WHERE id LIKE 'odd-10_' FOR UPDATE; r record; BEGIN
           FOR r IN c LOOP UPDATE public.leads SET domain = 'cursor' WHERE CURRENT OF c; END LOOP;
           BEGIN UPDATE public.leads SET domain = 'undone' WHERE id LIKE 'odd-1_'; PERFORM 1 / 0;
           EXCEPTION WHEN division_by_zero THEN UPDATE public.leads SET domain = 'caught' WHERE id = 'odd-11'; END; END $$",
    );
    done.updates += 10 + 1;
    call(
        session,
        "WITH gone AS (DELETE FROM public.leads WHERE id LIKE 'odd-20_' RETURNING id),
              changed AS (UPDATE public.leads SET domain = 'with' WHERE id LIKE 'odd-30_' RETURNING id)
         INSERT INTO public.leads (id) SELECT id || '-again' FROM gone UNION ALL SELECT id || '-again' FROM changed",
    );
    done.deletes += 10;
    done.updates += 10;
    done.inserts += 20;
}
