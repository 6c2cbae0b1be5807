//! The library runs in the server processes of sessions and in the worker. Sessions and table
//! owners may cause ordinary errors in the library, but they must not be able to make a process
//! crash. One session stays connected during each test. After a crash, the postmaster would end
//! this session, so a connected session proves that no process has crashed.

use acceptance::{
    Cluster, Session, app_database, assert_intact, call, end_timeout, sqlstate, value, wait_until,
};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(10);
const WORKER: &str = "SELECT EXISTS (SELECT FROM lead_audit.queue() WHERE worker_pid IS NOT NULL AND database_name = current_database())";
const ALL_WRITTEN: &str = "SELECT queued = written AND dropped = 0 FROM lead_audit.stats";

fn cluster() -> (Cluster, Session) {
    let cluster = Cluster::builder().preloaded().start();
    let mut admin = app_database(&cluster, "up");
    call(
        &mut admin,
        "INSERT INTO leads (id) VALUES ('taken'); GRANT CREATE ON SCHEMA public TO app",
    );
    wait_until(&mut admin, LONG, WORKER);
    (cluster, admin)
}

/// The record of a failed statement names a relation that the same transaction has created and
/// dropped.
#[test]
fn a_failure_in_a_table_that_is_dropped_at_once() {
    let (_cluster, mut admin) = cluster();
    call(
        &mut admin,
        "BEGIN;
         CREATE TABLE gone (id int PRIMARY KEY, CHECK (id > 0));
         SELECT lead_audit.enable('gone');
         DO $$ BEGIN INSERT INTO gone VALUES (-1); EXCEPTION WHEN check_violation THEN END $$;
         DROP TABLE gone;
         COMMIT",
    );
    wait_until(&mut admin, SOON, ALL_WRITTEN);
    let entries: i64 = value(
        &mut admin,
        "SELECT count(*) FROM lead_audit.log WHERE outcome = 'failed' AND table_name = 'gone'",
    );
    assert_eq!(entries, 1);
    assert_intact(&mut admin);
}

/// A PL/pgSQL statement that raises an error with a message of control characters. As JSON, the
/// message is six times as long, because each control character becomes an escape. The JSON exceeds
/// the size limits of a record, of a line of the server's log and of a memory allocation.
const HUGE_MESSAGE: &str = "RAISE EXCEPTION '%', repeat(E'\\x01', 180000000)";

#[test]
fn a_rollback_after_an_error_with_a_huge_message() {
    let (cluster, mut admin) = cluster();
    let mut app = cluster.session("app", "up");
    for savepoint in ["", "SAVEPOINT a;"] {
        call(&mut app, "BEGIN; INSERT INTO leads (id) VALUES ('lost')");
        assert_eq!(
            sqlstate(&mut app, &format!("{savepoint} DO $$BEGIN {HUGE_MESSAGE}; END$$")),
            "P0001"
        );
        call(&mut app, "ROLLBACK");
    }
    // After the error with the huge message, the session must still record its failed statements.
    assert_eq!(sqlstate(&mut app, "INSERT INTO leads (id) VALUES ('taken')"), "23505");
    wait_until(&mut admin, SOON, ALL_WRITTEN);
    let rolled_back: i64 =
        value(&mut admin, "SELECT count(*) FROM lead_audit.log WHERE outcome = 'rolled_back'");
    let failed: i64 = value(
        &mut admin,
        "SELECT count(*) FROM lead_audit.log WHERE outcome = 'failed' AND error_code = '23505'",
    );
    assert_eq!((rolled_back, failed), (2, 1));
    let longest: i32 = value(&mut admin, "SELECT max(length(error_message)) FROM lead_audit.entry");
    assert!(longest <= 16 * 1024, "{longest}");
    let locks: i64 = value(
        &mut app,
        "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'",
    );
    assert!(locks <= 3, "{locks} locks are left");
    assert_intact(&mut admin);
}

#[test]
fn a_commit_after_a_gap_with_a_huge_message() {
    let (cluster, mut admin) = cluster();
    let mut app = cluster.session("app", "up");
    call(
        &mut app,
        &format!(
            "CREATE TYPE mood AS ENUM ('sad', 'glad');
             CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN {HUGE_MESSAGE}; END $$;
             CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
             CREATE TABLE moods (id int PRIMARY KEY, m mood)"
        ),
    );
    call(&mut admin, "SELECT lead_audit.enable('moods')");
    call(&mut app, "INSERT INTO moods VALUES (1, 'sad')");
    let key = "SELECT row_key::text FROM lead_audit.entry WHERE outcome = 'gap'";
    wait_until(&mut admin, SOON, "SELECT count(*) = 1 FROM lead_audit.entry WHERE outcome = 'gap'");
    assert_eq!(value::<String>(&mut admin, key), r#"{"id":1}"#);
    call(&mut app, "INSERT INTO leads (id) VALUES ('after')");
    assert_intact(&mut admin);
}

/// SQL with which the role `app` creates a table, types and functions that the table uses. The
/// functions must run only in sessions of `app`, and with the rights of `app`.
const FOREIGN_CODE: &str = "
    CREATE TABLE spy (who text);
    CREATE FUNCTION hang(why text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF session_user <> 'app' THEN
        INSERT INTO spy VALUES (session_user || ' by ' || why);
        LOOP
          BEGIN
            PERFORM pg_sleep(1);
          EXCEPTION WHEN others OR query_canceled THEN
          END;
        END LOOP;
      END IF;
    END $$;
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM hang('cast'); RETURN to_json($1::text); END $$;
    CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
    CREATE FUNCTION is_fine(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM hang('check'); RETURN true; END $$;
    CREATE DOMAIN name AS text CHECK (is_fine(VALUE));
    CREATE TYPE pair AS (a int, b mood[]);
    CREATE TABLE moods (id name PRIMARY KEY, m mood, p pair, n int CHECK (n > 0));
    INSERT INTO moods VALUES ('a', 'sad', NULL, 1)";

#[test]
fn the_worker_runs_no_code_of_a_table_owner() {
    let (cluster, mut admin) = cluster();
    let mut app = cluster.session("app", "up");
    call(
        &mut app,
        &FOREIGN_CODE
            .replace("DOMAIN name", "DOMAIN public.name")
            .replace("id name", "id public.name"),
    );
    // The test makes no baseline of the table, because a baseline would run the owner's functions
    // in the session of the superuser.
    call(&mut admin, "SELECT lead_audit.enable('moods')");
    assert_eq!(
        sqlstate(&mut app, "INSERT INTO moods VALUES ('b', 'sad', ROW(1, '{glad}'), -1)"),
        "23514"
    );
    assert_eq!(sqlstate(&mut app, "INSERT INTO moods VALUES ('a', 'sad', NULL, 1)"), "23505");
    assert_eq!(sqlstate(&mut app, "INSERT INTO leads (id) VALUES ('taken')"), "23505");
    wait_until(&mut admin, SOON, ALL_WRITTEN);
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM spy"), 0);
    let values = "SELECT row_values::text || ' ' || details::text FROM lead_audit.entry WHERE error_code = '23514'";
    let found: String = value(&mut admin, values);
    assert!(
        found.contains(r#""n":-1"#) && found.contains(r#""omitted_columns":["m","p"]"#),
        "{found}"
    );
    let begin = Instant::now();
    cluster.stop("fast");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(!cluster.log_text().contains("has no audit entry"));
}

/// Unwritten entries are counted only if the transaction that made the change is committed.
#[test]
fn entries_that_are_not_written_are_counted_at_commit() {
    let (cluster, mut admin) = cluster();
    let mut app = cluster.session("app", "up");
    call(
        &mut app,
        "CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
         CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
         CREATE TABLE moods (id int, m mood)",
    );
    call(&mut admin, "SELECT lead_audit.enable('moods')");
    let insert = "INSERT INTO moods SELECT g, 'sad' FROM generate_series(1, 7) g";
    call(&mut app, &format!("BEGIN; {insert}; ROLLBACK"));
    call(
        &mut app,
        &format!(
            "BEGIN; {insert}; SAVEPOINT a; {insert}; ROLLBACK TO a; SAVEPOINT b; {insert}; RELEASE b; COMMIT"
        ),
    );
    call(
        &mut app,
        &format!("BEGIN ISOLATION LEVEL SERIALIZABLE; {insert}; PREPARE TRANSACTION 'p'"),
    );
    assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 14);
    call(&mut app, "COMMIT PREPARED 'p'");
    assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 21);
    wait_until(&mut admin, SOON, ALL_WRITTEN);
    assert_eq!(
        value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.entry WHERE outcome = 'gap'"),
        21
    );
}

/// Statements that reach hooks, callbacks or functions of the library. Each statement runs in a
/// session in which nothing is cached.
const STATEMENTS: &[&str] = &[
    "INSERT INTO leads (id) VALUES (gen_random_uuid())",
    "INSERT INTO leads (id) VALUES ('taken')",
    "INSERT INTO leeds (id) VALUES ('taken')",
    "INSERT INTO leads (id) SELECT 1/0",
    "UPDATE leads SET email = random()",
    "DELETE FROM leads WHERE id <> 'taken'",
    "MERGE INTO leads USING (SELECT 'taken' AS k) s ON id = k WHEN MATCHED THEN UPDATE SET email = random()",
    "WITH d AS (DELETE FROM leads WHERE id <> 'taken' RETURNING id) SELECT count(*) FROM d",
    "COPY leads (id) FROM PROGRAM 'cat /proc/sys/kernel/random/uuid'",
    "BEGIN; TRUNCATE leads; ROLLBACK",
    "PREPARE p AS DELETE FROM leads WHERE id = $1; EXECUTE p('none')",
    "DO $$ BEGIN INSERT INTO leads (id) VALUES ('taken'); EXCEPTION WHEN unique_violation THEN END $$",
    "BEGIN; INSERT INTO leads (id) VALUES (gen_random_uuid()); SAVEPOINT a; DELETE FROM leads WHERE id <> 'taken'; ROLLBACK TO a; COMMIT",
    "BEGIN; INSERT INTO parts VALUES (1); UPDATE parts SET id = 11; DELETE FROM parts; COMMIT",
    "BEGIN; ALTER TABLE leads ADD extra int; ALTER TABLE leads DROP extra; COMMIT",
    "BEGIN; CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30); DROP TABLE parts_3; COMMIT",
    "BEGIN; SELECT lead_audit.enable('other'); SELECT lead_audit.disable('other'); COMMIT",
    "SELECT count(*) FROM lead_audit.log",
    "SELECT count(*) FROM lead_audit.history('leads', 'taken')",
    "SELECT * FROM lead_audit.summary('leads', 'taken')",
    "SELECT count(*) FROM lead_audit.verify()",
    "SELECT count(*) FROM lead_audit.watched",
    "SELECT * FROM lead_audit.stats",
    "SELECT * FROM lead_audit.status()",
    "SELECT * FROM lead_audit.queue()",
    "SELECT lead_audit.seal()",
    "SET lead_audit.user_id = 'x'; SELECT 1",
    "CREATE TEMP TABLE leads (id int); DROP TABLE leads",
];

const LOCKED: &[&str] = &[
    "pg_extension",
    "pg_namespace",
    "pg_class",
    "pg_attribute",
    "pg_type",
    "pg_proc",
    "pg_trigger",
    "pg_index",
    "pg_constraint",
    "pg_cast",
    "pg_inherits",
    "pg_sequence",
    "pg_authid",
    "pg_database",
    "pg_event_trigger",
    "lead_audit.entry",
    "lead_audit.watch",
    "lead_audit.watched_relation",
    "lead_audit.tree",
    "lead_audit.checkpoint",
    "lead_audit.queue_position",
    "lead_audit.unwritten",
    "public.leads",
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Interruption {
    StatementTimeout,
    LockTimeout,
    Cancel,
    Terminate,
}

/// Locks each catalog and each table in turn. Other sessions run the statements, wait for the
/// lock, and are interrupted during the wait.
#[test]
fn an_interruption_at_any_catalog_access_is_an_ordinary_error() {
    let (cluster, mut admin) = cluster();
    call(
        &mut admin,
        "CREATE TABLE other (id int);
         CREATE TABLE parts (id int) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
         SELECT lead_audit.enable('parts')",
    );
    let mut holder = cluster.admin("up");
    // The session `holder` calls these functions later, while it holds a lock on a catalog. The
    // first call fills the caches of the session, before the session takes a lock.
    call(&mut holder, "SELECT pg_cancel_backend(0), pg_terminate_backend(0), pg_sleep(0)");
    for (number, table) in LOCKED.iter().enumerate() {
        for interruption in [
            Interruption::StatementTimeout,
            Interruption::LockTimeout,
            Interruption::Cancel,
            Interruption::Terminate,
        ] {
            // Each kind of interruption occurs with each statement and with each locked table. To
            // save time, the test omits half of the combinations.
            let some = STATEMENTS
                .iter()
                .enumerate()
                .filter(|(i, _)| (i + number + interruption as usize).is_multiple_of(2));
            interrupt(
                &cluster,
                &mut holder,
                table,
                some.map(|(_, statement)| *statement),
                interruption,
            );
        }
    }
    drop(holder);
    // The session is still connected, so no process has crashed. The server must still accept and
    // record writes.
    assert_eq!(value::<i32>(&mut admin, "SELECT 1"), 1);
    call(&mut admin, "INSERT INTO leads (id) VALUES ('after')");
    wait_until(&mut admin, LONG, ALL_WRITTEN);
    assert!(value::<bool>(
        &mut admin,
        "SELECT EXISTS (SELECT FROM lead_audit.log WHERE row_key->>'id' = 'after')"
    ));
    assert_intact(&mut admin);
    assert!(!cluster.log_text().contains("PANIC"), "nothing panicked");
}

fn interrupt<'a>(
    cluster: &Cluster,
    holder: &mut Session,
    table: &str,
    statements: impl Iterator<Item = &'a str>,
    interruption: Interruption,
) {
    let mut sessions: Vec<(Session, &str)> =
        statements.map(|statement| (cluster.admin("up"), statement)).collect();
    for (session, _) in &mut sessions {
        match interruption {
            Interruption::StatementTimeout => call(session, "SET statement_timeout = '250ms'"),
            Interruption::LockTimeout => {
                call(session, "SET lock_timeout = '100ms'; SET statement_timeout = '2s'")
            }
            _ => {}
        }
    }
    let pids: Vec<i32> = sessions.iter_mut().map(|(session, _)| session.pid()).collect();
    call(holder, &format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .map(|(session, statement)| {
                scope.spawn(move || (*statement, session.batch_execute(statement)))
            })
            .collect();
        let signal = match interruption {
            Interruption::Cancel => Some("pg_cancel_backend"),
            Interruption::Terminate => Some("pg_terminate_backend"),
            _ => None,
        };
        if let Some(function) = signal {
            std::thread::sleep(Duration::from_millis(150));
            // The test sends the signal repeatedly, because a statement can catch the error and
            // continue.
            while threads.iter().any(|thread| !thread.is_finished()) {
                for pid in &pids {
                    call(holder, &format!("SELECT {function}({pid})"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        threads.into_iter().map(|thread| thread.join().expect("it returns")).collect()
    });
    for (statement, result) in results {
        if let Err(error) = result {
            let ordinary = error.code().is_some() || interruption == Interruption::Terminate;
            assert!(ordinary, "{table} locked, {interruption:?}: {statement}: {error}");
        }
    }
    call(holder, "ROLLBACK");
    if interruption != Interruption::Terminate {
        for (session, statement) in &mut sessions {
            let alive = end_timeout(session);
            assert!(alive.is_ok(), "{table} locked, {interruption:?}: {statement}: {alive:?}");
        }
    }
}

/// In a database in which the extension was not created, no write may wait for a lock on
/// pg_extension.
#[test]
fn a_database_without_the_extension_does_not_wait_for_its_catalog() {
    let (cluster, _admin) = cluster();
    call(&mut cluster.admin("postgres"), "CREATE DATABASE plain");
    let (mut holder, mut session) = (cluster.admin("plain"), cluster.admin("plain"));
    call(&mut holder, "CREATE TABLE t (id int)");
    call(&mut holder, "BEGIN; LOCK TABLE pg_catalog.pg_extension IN ACCESS EXCLUSIVE MODE");
    call(
        &mut session,
        "SET statement_timeout = '10s'; INSERT INTO t VALUES (1); COPY t FROM PROGRAM 'echo 2'; TRUNCATE t",
    );
    call(&mut holder, "ROLLBACK");
}
