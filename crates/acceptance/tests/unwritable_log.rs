//! Tests a log to which entries cannot be written. With on_error = warn, the application
//! continues. Each unwritten entry causes a warning and is counted, and all other entries are
//! written. With on_error = abort, the statement fails with the error of the write to the log. A
//! cancelled statement fails with the error of the cancellation, and its entries do not count as
//! unwritten.

use acceptance::{
    Cluster, Session, add_leads, app_database, assert_intact, call, end_timeout, faults, sqlstate,
    value,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ENTRIES: &str = "SELECT count(*) FROM lead_audit.entry";
const UNWRITTEN: &str = "SELECT entries_not_written FROM lead_audit.stats";
const LEADS: &str = "SELECT count(*) FROM leads";

fn abort_on_error(cluster: &Cluster, database: &str) -> Session {
    call(
        &mut cluster.admin(database),
        &format!("ALTER DATABASE {database} SET lead_audit.on_error = 'abort'"),
    );
    let mut app = cluster.session("app", database);
    // The SELECT does not load the library. The next write of `app` loads the library, and must
    // fail because of on_error = abort.
    assert_eq!(value::<i64>(&mut app, "SELECT count(*) FROM leads WHERE false"), 0);
    call(
        &mut cluster.admin(database),
        &format!("ALTER DATABASE {database} RESET lead_audit.on_error"),
    );
    app
}

/// Inserts rows until the log is full. Continues to write with small and large statements after
/// the log is full.
fn fill(cluster: &Cluster, database: &str, cause: &str, sqlstate_of_cause: &str) {
    let mut admin = cluster.admin(database);
    let mut app = cluster.session("app", database);
    let mut warned = 0;
    for number in 0..1_000 {
        call(
            &mut app,
            &format!(
                "INSERT INTO leads (id, company_name, enrichment_error)
                 SELECT '{number}-' || g, 'Company', repeat(md5(g::text), 20) FROM generate_series(1, 100) g"
            ),
        );
        let warnings = app.warnings();
        for warning in &warnings {
            let key = format!(r#"{{"id":"{number}-"#);
            let said = warning.contains("INSERT")
                && warning.contains("public.leads")
                && warning.contains(&key)
                && warning.contains(cause);
            assert!(said, "the warning names operation, table, key and cause: {warning}");
        }
        warned += warnings.len() as i64;
        if warned > 150 {
            break;
        }
    }
    assert!(warned > 150, "the log never became full");
    let (leads, entries): (i64, i64) = (value(&mut admin, LEADS), value(&mut admin, ENTRIES));
    assert_eq!(
        leads,
        entries + warned,
        "no row was lost, and each that has no entry was warned of"
    );
    assert_eq!(value::<i64>(&mut admin, UNWRITTEN), warned);
    let missing: i64 = value(
        &mut admin,
        "SELECT count(*) FROM leads l WHERE NOT EXISTS (SELECT FROM lead_audit.entry e WHERE e.row_key->>'id' = l.id)",
    );
    assert_eq!(missing, warned);

    let mut strict = abort_on_error(cluster, database);
    let write = "INSERT INTO leads (id, enrichment_error) SELECT 'strict-' || g, repeat(md5(g::text), 20) FROM generate_series(1, 1000) g";
    assert_eq!(sqlstate(&mut strict, write), sqlstate_of_cause);
    assert_eq!(value::<i64>(&mut admin, LEADS), leads, "the statement failed as a whole");
    assert_eq!(
        value::<i64>(&mut admin, UNWRITTEN),
        warned,
        "nothing was lost, so nothing is counted"
    );
    assert_intact(&mut admin);
}

#[test]
fn a_full_disk() {
    let cluster = Cluster::start();
    let Some(disk) = TinyDisk::mount(cluster.directory()) else { return };
    let mut admin = app_database(&cluster, "full_disk");
    cluster.give_to_server(&disk.0);
    call(&mut admin, &format!("CREATE TABLESPACE tiny LOCATION '{}'", disk.0.display()));
    call(&mut admin, "ALTER TABLE lead_audit.entry SET TABLESPACE tiny");
    fill(&cluster, "full_disk", "No space left on device", "53100");
    // In the default tablespace, the log can grow again.
    call(&mut admin, "ALTER TABLE lead_audit.entry SET TABLESPACE pg_default");
    let before: i64 = value(&mut admin, ENTRIES);
    let mut app = cluster.session("app", "full_disk");
    call(&mut app, "UPDATE leads SET source = 'again'");
    assert_eq!(app.warnings(), [""; 0]);
    assert_eq!(value::<i64>(&mut admin, ENTRIES) - before, value::<i64>(&mut admin, LEADS));
    assert_intact(&mut admin);
    drop((admin, app));
    cluster.stop("immediate");
}

/// A mounted file system of a few megabytes. Dropping a `TinyDisk` unmounts the file system.
struct TinyDisk(PathBuf);

impl TinyDisk {
    fn mount(below: &Path) -> Option<Self> {
        let place = below.join("tiny");
        std::fs::create_dir(&place).expect("a directory in the cluster's own");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(&place)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(TinyDisk(place)),
            failed => {
                let why = failed.map_or_else(
                    |error| error.to_string(),
                    |o| String::from_utf8_lossy(&o.stderr).trim().to_owned(),
                );
                println!(
                    "SKIPPED: the full disk cannot be tried, since no file system can be mounted here: {why}"
                );
                None
            }
        }
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // The server can still run when a `TinyDisk` is dropped, so the unmount is lazy.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Simulates a full disk without the right to mount a file system. No file of the server can grow
/// beyond 17 MB. The limit must be larger than a WAL segment (16 MB).
#[test]
fn a_file_size_limit() {
    let cluster = Cluster::builder().file_size_limit(17 * 1024).start();
    drop(app_database(&cluster, "quota"));
    fill(&cluster, "quota", "could not extend file", "XX000");
}

#[test]
fn a_constraint_on_the_log() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "checked");
    call(
        &mut admin,
        "ALTER TABLE lead_audit.entry ADD CONSTRAINT no_mallory CHECK (user_id <> 'mallory'),
                                      ADD CONSTRAINT no_poison CHECK (row_key->>'id' NOT LIKE 'poison%')",
    );
    let mut app = cluster.session("app", "checked");
    // If one entry of a statement cannot be written, the other entries of the statement are
    // written.
    call(
        &mut app,
        "INSERT INTO leads (id) SELECT CASE WHEN g = 700 THEN 'poison' ELSE 'good ' || g END FROM generate_series(1, 2000) g",
    );
    let warnings = app.notices();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let warning = &warnings[0];
    assert_eq!(warning.severity(), "WARNING");
    for part in ["INSERT", "public.leads", r#"{"id":"poison"}"#, "no_poison"] {
        assert!(warning.message().contains(part), "{part}: {}", warning.message());
    }
    assert_eq!(value::<i64>(&mut admin, ENTRIES), 1_999);
    assert_eq!(value::<i64>(&mut admin, LEADS), 2_000);
    assert_eq!(value::<i64>(&mut admin, UNWRITTEN), 1);

    // The change is rolled back and needs no entry, so the unwritten entry is not counted.
    call(
        &mut app,
        "BEGIN; UPDATE leads SET source = 'x' WHERE id IN ('poison', 'good 1'); ROLLBACK",
    );
    assert_eq!(app.warnings().len(), 1);
    assert_eq!(
        (value::<i64>(&mut admin, ENTRIES), value::<i64>(&mut admin, UNWRITTEN)),
        (1_999, 1)
    );

    // A constraint refuses all entries of the user "mallory". The user "mallory" writes in
    // savepoints, in a function with an exception handler, in batches of COPY, and by TRUNCATE.
    call(&mut app, "SET lead_audit.user_id = 'mallory'");
    call(
        &mut app,
        "BEGIN; SAVEPOINT a; UPDATE leads SET source = 'a' WHERE id = 'good 1'; RELEASE a; SAVEPOINT b;
         DELETE FROM leads WHERE id = 'good 2'; ROLLBACK TO b; COMMIT;
         DO $$ BEGIN UPDATE leads SET source = 'b' WHERE id = 'good 3'; EXCEPTION WHEN OTHERS THEN RAISE 'not to be seen'; END $$",
    );
    assert_eq!(app.warnings().len(), 3);
    assert_eq!(
        (value::<i64>(&mut admin, ENTRIES), value::<i64>(&mut admin, UNWRITTEN)),
        (1_999, 3)
    );
    call(
        &mut app,
        "RESET lead_audit.user_id; UPDATE leads SET source = 'c' WHERE id IN ('good 1', 'good 3')",
    );
    assert_eq!(value::<i64>(&mut admin, ENTRIES), 2_001);
    assert_eq!(app.warnings(), [""; 0]);

    let mut strict = abort_on_error(&cluster, "checked");
    for statement in [
        "INSERT INTO leads (id) SELECT 'new ' || g FROM generate_series(1, 5) g UNION ALL SELECT 'poison 2'",
        "UPDATE leads SET source = 'x' WHERE id = 'poison'",
        "DELETE FROM leads",
        "COPY leads (id) FROM PROGRAM 'echo never' ",
    ] {
        let state = sqlstate(&mut strict, statement);
        assert!(
            state == "23514" || (state == "42501" && statement.starts_with("COPY")),
            "{state}: {statement}"
        );
    }
    // After a ROLLBACK TO, a statement that has failed does not affect later statements of the
    // transaction.
    call(&mut strict, "BEGIN; INSERT INTO leads (id) VALUES ('before'); SAVEPOINT s");
    assert_eq!(
        sqlstate(&mut strict, "INSERT INTO leads (id) VALUES ('lost'), ('poison 3')"),
        "23514"
    );
    call(&mut strict, "ROLLBACK TO s; INSERT INTO leads (id) VALUES ('after'); COMMIT");
    assert_eq!(value::<i64>(&mut admin, LEADS), 2_002);
    assert_eq!(value::<i64>(&mut admin, ENTRIES), 2_003);
    assert_eq!(value::<i64>(&mut admin, UNWRITTEN), 3);
    assert_intact(&mut admin);
}

#[test]
fn the_log_is_locked() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "locked");
    let mut app = cluster.session("app", "locked");
    let mut strict = abort_on_error(&cluster, "locked");
    for session in [&mut app, &mut strict] {
        call(
            session,
            "INSERT INTO leads (id) VALUES (pg_backend_pid()); SET lock_timeout = '200ms'",
        );
    }
    call(&mut admin, "BEGIN; ALTER TABLE lead_audit.entry SET (autovacuum_enabled = off)");
    call(&mut admin, "LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE");

    assert_eq!(sqlstate(&mut strict, "INSERT INTO leads (id) VALUES ('strict')"), "55P03");
    call(&mut app, "INSERT INTO leads (id) VALUES ('lenient')");
    let warnings = app.warnings();
    assert!(
        matches!(&warnings[..], [w] if w.contains("lenient") && w.contains("lock timeout")),
        "{warnings:?}"
    );

    // If the lock on the log is released before lock_timeout ends the wait, the waiting session
    // loses no entry.
    call(&mut app, "SET lock_timeout = '10s'");
    let waiting = std::thread::spawn(move || {
        call(&mut app, "INSERT INTO leads (id) VALUES ('patient')");
        app.warnings()
    });
    std::thread::sleep(Duration::from_millis(300));
    call(&mut admin, "COMMIT");
    assert_eq!(waiting.join().expect("the INSERT succeeds"), [""; 0]);
    assert_eq!(value::<i64>(&mut admin, LEADS), 4);
    assert_eq!(value::<i64>(&mut admin, ENTRIES), 3);
    assert_eq!(value::<i64>(&mut admin, UNWRITTEN), 1);
    assert_intact(&mut admin);
}

#[test]
fn the_log_has_been_changed() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "changed");
    let mut app = cluster.session("app", "changed");
    let mut strict = abort_on_error(&cluster, "changed");
    call(&mut app, "INSERT INTO leads (id) VALUES ('before')");
    call(&mut admin, "ALTER TABLE lead_audit.entry RENAME COLUMN user_id TO user_name");
    call(&mut app, "INSERT INTO leads (id) VALUES ('lenient')");
    let warnings = app.warnings();
    assert!(
        matches!(&warnings[..], [w] if w.contains("lenient") && w.contains("user_id")),
        "{warnings:?}"
    );
    assert_eq!(sqlstate(&mut strict, "INSERT INTO leads (id) VALUES ('strict')"), "55000");
    call(&mut admin, "ALTER TABLE lead_audit.entry RENAME COLUMN user_name TO user_id");
    call(&mut app, "INSERT INTO leads (id) VALUES ('after')");
    assert_eq!(app.warnings(), [""; 0]);
    assert_eq!(value::<i64>(&mut admin, ENTRIES), 2);
    assert_eq!(value::<i64>(&mut admin, UNWRITTEN), 1);
    // In a column that a user has added to lead_audit.entry, new entries contain NULL. The
    // checksum of an entry does not cover an added column.
    call(&mut admin, "ALTER TABLE lead_audit.entry ADD COLUMN extra text");
    call(&mut app, "INSERT INTO leads (id) VALUES ('with a column more')");
    assert_eq!(value::<i64>(&mut admin, ENTRIES), 3);
    assert_intact(&mut admin);
}

#[test]
fn a_cancel_is_not_an_unwritten_entry() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "cancelled");
    add_leads(&mut admin, 1, 60_000);
    let before: i64 = value(&mut admin, ENTRIES);
    let update = "UPDATE leads SET source = md5(random()::text)";
    let begin = Instant::now();
    call(&mut admin, &format!("BEGIN; {update}; ROLLBACK"));
    let full_time = begin.elapsed();
    println!("the UPDATE takes {full_time:?}");
    let mut sessions = [cluster.session("app", "cancelled"), abort_on_error(&cluster, "cancelled")];
    // The test stops the UPDATE at several moments, so that the stop comes while the UPDATE changes
    // rows, runs triggers or writes entries.
    for tenth in [3, 5, 7, 8] {
        for session in &mut sessions {
            stopped(full_time.mul_f64(f64::from(tenth) / 10.0), |after| {
                call(session, &format!("SET statement_timeout = {}; BEGIN", after.as_millis()));
                let begin = Instant::now();
                let result = session.batch_execute(update);
                let late = begin.elapsed().saturating_sub(after);
                end_timeout(session).expect("the session is connected");
                assert_eq!(session.warnings(), [""; 0]);
                (result, late)
            });
        }
    }
    let pid = sessions[0].pid();
    stopped(full_time.mul_f64(0.6), |after| {
        let mut canceller = cluster.admin("cancelled");
        let cancelling = std::thread::spawn(move || {
            std::thread::sleep(after);
            let begin = Instant::now();
            call(&mut canceller, &format!("SELECT pg_cancel_backend({pid})"));
            begin
        });
        call(&mut sessions[0], "BEGIN");
        let result = sessions[0].batch_execute(update);
        let end = Instant::now();
        let cancelled = cancelling.join().expect("the cancel is sent");
        call(&mut sessions[0], "ROLLBACK");
        (result, end.saturating_duration_since(cancelled))
    });

    assert_eq!(value::<i64>(&mut admin, ENTRIES), before);
    assert_eq!(value::<i64>(&mut admin, UNWRITTEN), 0);
    call(&mut sessions[0], "UPDATE leads SET source = 'after' WHERE created_by = 'user-1'");
    assert_eq!(value::<i64>(&mut admin, ENTRIES), before + 1_200);
    assert!(faults(&mut admin).is_empty());
}

/// Executes a statement that is stopped after the time `after`. The statement must end with the
/// SQLSTATE 57014 soon after the stop. If the statement ends before the stop, repeats the attempt
/// with less time.
fn stopped(
    mut after: Duration,
    mut attempt: impl FnMut(Duration) -> (Result<(), postgres::Error>, Duration),
) {
    for _ in 0..10 {
        let (result, late) = attempt(after);
        match result {
            Err(error) => {
                assert_eq!(
                    error.code().map(|code| code.code()),
                    Some("57014"),
                    "after {after:?}: {error}"
                );
                assert!(
                    late < Duration::from_secs(1),
                    "what was to end after {after:?} took {late:?} more"
                );
                return;
            }
            Ok(()) => assert!(
                late < Duration::from_millis(200),
                "after {after:?} it went on for {late:?}, to its end"
            ),
        }
        after = after.mul_f64(0.7);
    }
    panic!("the statement is never slow enough to be stopped");
}
