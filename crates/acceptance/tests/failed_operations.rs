//! Each failed statement must have an entry. The tests run failed statements of every kind through
//! psycopg and psql (crates/acceptance/python), also on a full disk, on a standby, after restarts,
//! and in databases that are created and dropped.

use acceptance::{
    Bouncer, Builder, Cluster, Session, app_database, assert_intact, call, sqlstate, try_call,
    value,
};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

#[track_caller]
fn wait_until(session: &mut Session, condition: &str) {
    acceptance::wait_until(session, Duration::from_secs(30), condition);
}

const WRITTEN: &str = "SELECT queued = written FROM lead_audit.stats";

fn preloaded() -> Builder {
    Cluster::builder().preloaded()
}

/// Returns the state and the remedy that lead_audit.status() shows for a part of the extension.
fn status(session: &mut Session, part: &str) -> (String, Option<String>) {
    let row = session
        .query_one("SELECT state, remedy FROM lead_audit.status() WHERE part = $1", &[&part]);
    let row = row.expect("status() knows the part");
    (row.get(0), row.get(1))
}

fn duplicate(cluster: &Cluster, database: &str) {
    let mut app = cluster.session("app", database);
    assert_eq!(sqlstate(&mut app, "INSERT INTO leads (id) VALUES ('taken')"), "23505");
}

fn failures(admin: &mut Session) -> i64 {
    value(
        admin,
        "SELECT count(*) FROM lead_audit.log WHERE outcome = 'failed' AND row_key->>'id' = 'taken'",
    )
}

/// Creates a database in which a lead with the id "taken" exists.
fn taken_database(cluster: &Cluster, name: &str) -> Session {
    let mut admin = app_database(cluster, name);
    call(&mut admin, "INSERT INTO leads (id) VALUES ('taken')");
    admin
}

#[test]
fn each_kind_from_real_clients() {
    let cluster = preloaded().start();
    call(&mut cluster.admin("postgres"), "CREATE DATABASE clients");
    call(&mut cluster.admin("clients"), "CREATE EXTENSION lead_audit");
    let bouncer = Bouncer::start(&cluster, "clients", "app");
    let python = std::env::var("LEAD_AUDIT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/failed_operations.py");
    let output = Command::new(python)
        .arg(script)
        .arg(format!(
            "postgresql://postgres@/clients?host={}",
            cluster.socket_directory().display()
        ))
        .arg(bouncer.url())
        .arg(cluster.bin().join("psql"))
        .output()
        .expect("python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<&str> = said.lines().filter(|line| !line.starts_with("ok")).collect();
    assert!(
        output.status.success(),
        "{}\n{}",
        wrong.join("\n"),
        String::from_utf8_lossy(&output.stderr)
    );
    // If no entry is wrong, `wrong` contains only the line with the totals and the delays.
    println!("{}", wrong.join("\n"));
}

#[test]
fn a_full_disk() {
    // The server can write no file of more than 20 MB. The file of the table `leads` reaches this
    // limit first, because the files of the log stay smaller.
    let cluster = preloaded().file_size_limit(20_000).start();
    let mut admin = app_database(&cluster, "disk");
    call(
        &mut admin,
        "SET lead_audit.enabled = off; INSERT INTO leads (id, email) SELECT g::text, repeat(md5(g::text), 7) FROM generate_series(1, 20000) g;
         RESET lead_audit.enabled",
    );
    let fill = "INSERT INTO leads (id, email) SELECT 'x' || g, repeat(md5(g::text), 7) FROM generate_series(1, 80000) g";
    call(&mut admin, "ALTER ROLE app SET lead_audit.batch_memory = '512MB'");
    let mut app = cluster.session("app", "disk");
    let code = sqlstate(&mut app, fill);
    // The client receives the error before the server has finished the abort of the transaction.
    // The record of the failed statement is counted only after the abort.
    wait_until(&mut admin, "SELECT queued > 0 FROM lead_audit.stats");
    wait_until(&mut admin, WRITTEN);
    let rows = admin
        .query("SELECT error_code, operation, table_name, statement FROM lead_audit.log WHERE outcome = 'failed'", &[])
        .expect("the log can be read");
    assert_eq!(rows.len(), 1, "{rows:?}\n{}", cluster.log_text());
    let row = &rows[0];
    assert_eq!((row.get::<_, String>(0), row.get::<_, String>(1)), (code, "INSERT".to_owned()));
    assert_eq!(
        (row.get::<_, String>(2), row.get::<_, String>(3)),
        ("leads".to_owned(), fill.to_owned())
    );
}

#[test]
fn without_preloading_status_names_the_remedy() {
    let cluster = Cluster::start();
    let mut admin = taken_database(&cluster, "plain");
    duplicate(&cluster, "plain");
    for part in [
        "preloading",
        "background worker",
        "failed operations",
        "rolled-back transactions",
        "sealing",
    ] {
        let (state, remedy) = status(&mut admin, part);
        assert_eq!(state, "off", "{part}");
        assert!(remedy.is_some_and(|remedy| remedy.starts_with("shared_preload_libraries = 'lead_audit'")), "{part}");
    }
    assert_eq!(status(&mut admin, "recording").0, "on");
    assert_eq!(failures(&mut admin), 0);
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.queue()"), 0);
    assert_eq!(
        value::<i64>(&mut admin, "SELECT queued + written + dropped FROM lead_audit.stats"),
        0
    );

    // Applies the remedy that status() names for the part "preloading".
    let (_, remedy) = status(&mut admin, "preloading");
    drop(admin);
    cluster.stop("fast");
    cluster.configure(&[remedy.expect("there is one")]);
    cluster.start_again();
    let mut admin = cluster.admin("plain");
    wait_until(
        &mut admin,
        "SELECT bool_and(state = 'on') FROM lead_audit.status() WHERE part NOT IN ('signing', 'checkpoint files')",
    );
    duplicate(&cluster, "plain");
    wait_until(&mut admin, "SELECT count(*) = 1 FROM lead_audit.log WHERE outcome = 'failed'");
}

/// If the server is shut down or killed while records are in the queue, the worker writes the
/// entries of these records after the restart.
#[test]
fn a_restart_loses_no_record() {
    let cluster = preloaded().start();
    let mut admin = taken_database(&cluster, "restart");
    wait_until(
        &mut admin,
        "SELECT EXISTS (SELECT FROM lead_audit.queue() WHERE database_name = 'restart' AND worker_pid IS NOT NULL)",
    );
    let mut expected = 0;
    for mode in ["fast", "smart", "immediate", "kill"] {
        // This lock makes the worker wait, so that the queue does not become empty.
        let mut holder = cluster.admin("restart");
        call(&mut holder, "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE");
        for _ in 0..50 {
            duplicate(&cluster, "restart");
        }
        expected += 50;
        // A client receives its error a moment before the record of the failed statement is
        // counted.
        wait_until(&mut admin, "SELECT queued - written = 50 FROM lead_audit_internal.own_queue()");
        if mode == "smart" {
            call(&mut holder, "ROLLBACK");
        }
        drop((admin, holder));
        if mode == "kill" {
            cluster.kill();
        } else {
            cluster.stop(mode);
        }
        cluster.start_again();
        admin = cluster.admin("restart");
        wait_until(
            &mut admin,
            "SELECT EXISTS (SELECT FROM lead_audit.queue() WHERE database_name = 'restart' AND worker_pid IS NOT NULL)",
        );
        wait_until(
            &mut admin,
            "SELECT waiting = 0 FROM lead_audit.queue() WHERE database_name = 'restart'",
        );
        if failures(&mut admin) != expected {
            let others =
                "SELECT coalesce(string_agg(l::text, E'\\n'), 'none') FROM lead_audit.log l
                WHERE outcome <> 'ok' AND row_key->>'id' IS DISTINCT FROM 'taken'";
            let others: String = value(&mut admin, others);
            panic!(
                "{mode}: {} of {expected}; other entries: {others}\n{}",
                failures(&mut admin),
                cluster.log_text()
            );
        }
    }
    assert!(
        !cluster.log_text().contains("has no audit entry"),
        "none of them had to go to the log"
    );
    assert_intact(&mut admin);
}

/// The worker writes the entries of all records of a round in one subtransaction. If an error
/// occurs, the worker starts again, and uses a separate subtransaction for each record.
#[test]
fn a_record_that_fails_does_not_affect_the_others() {
    let cluster = preloaded().start();
    let mut admin = taken_database(&cluster, "together");
    call(
        &mut admin,
        "CREATE TABLE moods (id int PRIMARY KEY, CHECK (id > 0)); SELECT lead_audit.enable('moods')",
    );
    let mut holder = cluster.admin("together");
    call(&mut holder, "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE");
    for id in [-1, -2, -3] {
        duplicate(&cluster, "together");
        assert_eq!(sqlstate(&mut admin, &format!("INSERT INTO moods VALUES ({id})")), "23514");
        // PostgreSQL's parser raises an error for this text, first in the session and later in the
        // worker. The record of this statement therefore causes an error in the worker, and gets no
        // entry.
        assert_eq!(sqlstate(&mut admin, "INSERT INTO moods VALUES (1"), "42601");
    }
    wait_until(&mut admin, "SELECT queued - written = 9 FROM lead_audit_internal.own_queue()");
    call(&mut holder, "ROLLBACK");
    wait_until(&mut admin, WRITTEN);
    assert_eq!(failures(&mut admin), 3);
    let ids = "SELECT string_agg(row_values->>'id', ' ' ORDER BY id) FROM lead_audit.entry WHERE table_name = 'moods' AND outcome = 'failed'";
    assert_eq!(value::<String>(&mut admin, ids), "-1 -2 -3");
    assert_intact(&mut admin);
}

#[test]
fn databases_are_created_and_dropped() {
    let cluster = preloaded().setting("max_worker_processes = 16").start();
    let mut other = cluster.admin("postgres");
    let workers = "SELECT coalesce(string_agg(datname, ' ' ORDER BY datname), '') FROM pg_stat_activity WHERE backend_type = 'lead_audit worker'";
    call(&mut other, "CREATE DATABASE without");
    drop(taken_database(&cluster, "one"));
    drop(taken_database(&cluster, "two"));
    wait_until(&mut other, &format!("SELECT ({workers}) = 'one two'"));
    call(&mut other, "CREATE DATABASE copy TEMPLATE one");
    wait_until(&mut other, &format!("SELECT ({workers}) = 'copy one two'"));
    for database in ["one", "two", "copy"] {
        duplicate(&cluster, database);
        wait_until(
            &mut cluster.admin(database),
            "SELECT count(*) = 1 FROM lead_audit.log WHERE outcome = 'failed'",
        );
    }
    call(&mut other, "ALTER DATABASE copy RENAME TO renamed");
    duplicate(&cluster, "renamed");
    wait_until(
        &mut cluster.admin("renamed"),
        "SELECT count(*) = 2 FROM lead_audit.log WHERE outcome = 'failed'",
    );
    call(&mut other, "DROP DATABASE renamed");
    wait_until(&mut other, &format!("SELECT ({workers}) = 'one two'"));
    call(&mut cluster.admin("two"), "DROP EXTENSION lead_audit CASCADE");
    // Until the worker notices the DROP EXTENSION, sessions can still put records of failed
    // statements into the queue. After the DROP EXTENSION, the worker writes records only to the
    // server's log.
    wait_until(&mut other, &format!("SELECT ({workers}) = 'one'"));
    assert_eq!(
        sqlstate(&mut cluster.admin("two"), "INSERT INTO leads (id) VALUES ('taken')"),
        "23505"
    );
    call(&mut cluster.admin("two"), "CREATE EXTENSION lead_audit");
    duplicate(&cluster, "two");
    wait_until(
        &mut cluster.admin("two"),
        "SELECT count(*) = 1 FROM lead_audit.log WHERE outcome = 'failed'",
    );
    // A role without the right to drop a database must not be able to stop the database's worker
    // by a DROP DATABASE that fails.
    call(&mut other, "CREATE ROLE nobody LOGIN");
    let before: i32 = value(
        &mut other,
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'lead_audit worker' AND datname = 'one'",
    );
    let mut nobody = cluster.session("nobody", "postgres");
    assert_eq!(sqlstate(&mut nobody, "DROP DATABASE one"), "42501");
    assert_eq!(sqlstate(&mut nobody, "CREATE DATABASE another TEMPLATE one"), "42501");
    let after: i32 = value(
        &mut other,
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'lead_audit worker' AND datname = 'one'",
    );
    assert_eq!(before, after);
    call(&mut other, "DROP DATABASE one; ");
    call(&mut other, "DROP DATABASE two WITH (FORCE)");
    wait_until(&mut other, &format!("SELECT ({workers}) = ''"));
    assert!(!cluster.log_text().contains("has no audit entry"));
}

#[test]
fn a_missing_background_process_is_reported() {
    // The launcher of lead_audit and PostgreSQL's logical replication launcher occupy both
    // background processes, so there is no background process for a worker.
    let cluster = preloaded().setting("max_worker_processes = 2").start();
    let mut alone = taken_database(&cluster, "alone");
    wait_until(
        &mut alone,
        "SELECT reason = 'all background processes of the server are in use' FROM lead_audit.status() WHERE part = 'background worker'",
    );
    assert_eq!(
        status(&mut alone, "background worker").1.as_deref(),
        Some("max_worker_processes = 6  # then restart the server")
    );
    let log = cluster.log_text();
    assert!(log.contains("no background process is left for database"));
    assert!(log.contains("Until there is one, nothing is sealed there"));
    duplicate(&cluster, "alone");
    assert_eq!(
        value::<i64>(&mut alone, "SELECT queued - written FROM lead_audit_internal.own_queue()"),
        1
    );
    // With max_worker_processes = 3, the server has a background process for the worker.
    drop(alone);
    cluster.configure(&["max_worker_processes = 3".to_owned()]);
    cluster.stop("fast");
    cluster.start_again();
    duplicate(&cluster, "alone");
    wait_until(
        &mut cluster.admin("alone"),
        "SELECT count(*) = 1 FROM lead_audit.log WHERE outcome = 'failed'",
    );
}

#[test]
fn two_databases_take_turns_with_one_background_process() {
    // The launcher of lead_audit and PostgreSQL's logical replication launcher occupy two of the
    // three background processes.
    let cluster = preloaded().setting("max_worker_processes = 3").start();
    let mut first = taken_database(&cluster, "first");
    wait_until(
        &mut first,
        "SELECT state = 'on' FROM lead_audit.status() WHERE part = 'background worker'",
    );
    let mut second = taken_database(&cluster, "second");
    for database in [&mut second, &mut first] {
        wait_until(
            database,
            "SELECT state = 'off' AND reason LIKE '%in use: the database waits for its turn' AND remedy = 'max_worker_processes = 7  # then restart the server'
             FROM lead_audit.status() WHERE part = 'background worker'",
        );
    }
    let log = cluster.log_text();
    assert!(log.contains("no background process is left for database"));
    assert!(log.contains("The databases with the extension take turns"));
    for name in ["first", "second"] {
        duplicate(&cluster, name);
    }
    for database in [&mut first, &mut second] {
        wait_until(database, "SELECT count(*) = 1 FROM lead_audit.log WHERE outcome = 'failed'");
    }
    // After the DROP EXTENSION, the database `first` needs no worker, so the database `second`
    // keeps the only background process.
    call(&mut first, "DROP EXTENSION lead_audit CASCADE");
    wait_until(
        &mut second,
        "SELECT state = 'on' FROM lead_audit.status() WHERE part = 'background worker'",
    );
    duplicate(&cluster, "second");
    wait_until(&mut second, "SELECT count(*) = 2 FROM lead_audit.log WHERE outcome = 'failed'");
}

#[test]
fn a_standby_writes_nothing_until_it_is_promoted() {
    let primary = preloaded().start();
    let mut admin = taken_database(&primary, "pair");
    let standby = preloaded().start_standby_of(&primary);
    let written: String = value(&mut admin, "SELECT pg_current_wal_lsn()::text");
    let mut reader = standby.admin("postgres");
    wait_until(&mut reader, &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'"));
    let mut app = standby.session("app", "pair");
    assert_eq!(sqlstate(&mut app, "INSERT INTO leads (id) VALUES ('x')"), "25006");
    let mut on_standby = standby.admin("pair");
    assert_eq!(status(&mut on_standby, "failed operations").0, "off");
    assert_eq!(status(&mut on_standby, "background worker").0, "off");
    standby.promote();
    wait_until(&mut on_standby, "SELECT NOT pg_is_in_recovery()");
    wait_until(
        &mut on_standby,
        "SELECT state = 'on' FROM lead_audit.status() WHERE part = 'background worker'",
    );
    assert_eq!(sqlstate(&mut app, "INSERT INTO leads (id) VALUES ('taken')"), "23505");
    wait_until(&mut on_standby, "SELECT count(*) = 1 FROM lead_audit.log WHERE outcome = 'failed'");
    assert_intact(&mut on_standby);
}

/// With on_error = warn, a row can be committed although its entry could not be written. An entry
/// with the outcome `gap` then takes the place of the missing entry.
#[test]
fn gaps_have_entries() {
    let cluster = preloaded().start();
    let mut admin = app_database(&cluster, "gaps");
    call(
        &mut admin,
        "ALTER TABLE lead_audit.entry ADD CONSTRAINT no_poison CHECK (row_key->>'id' <> 'poison' OR outcome <> 'ok')",
    );
    let mut app = cluster.session("app", "gaps");
    call(&mut app, "SET lead_audit.user_id = 'u-1'");
    call(&mut app, "BEGIN; INSERT INTO leads (id) VALUES ('poison'); ROLLBACK");
    call(
        &mut app,
        "BEGIN; SAVEPOINT s; INSERT INTO leads (id) VALUES ('poison'); ROLLBACK TO s; COMMIT",
    );
    call(&mut app, "INSERT INTO leads (id) VALUES ('fine'), ('poison')");
    wait_until(&mut admin, WRITTEN);
    let row = admin
        .query_one(
            "SELECT operation, table_name, row_key->>'id', error_code, error_message, user_id, db_session_user FROM lead_audit.log WHERE outcome = 'gap'",
            &[],
        )
        .expect("one gap");
    let texts: Vec<String> = (0..7).map(|column| row.get(column)).collect();
    assert_eq!(texts[..4], ["INSERT", "leads", "poison", "23514"]);
    assert!(texts[4].contains("no_poison"), "{texts:?}");
    assert_eq!(texts[5..], ["u-1", "app"]);
    assert_eq!(
        value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.history('leads', 'poison')"),
        1
    );
    // A row that was rolled back needs no entry, so `entries_not_written` does not count the row.
    assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 1);
    assert_intact(&mut admin);
}

/// A role that is not a superuser cannot read the queue, and can add records to the queue only by
/// statements that fail.
#[test]
fn roles_cannot_read_the_queue() {
    let cluster = preloaded().start();
    let mut admin = taken_database(&cluster, "reach");
    call(&mut admin, "GRANT USAGE ON SCHEMA lead_audit TO app");
    let mut app = cluster.session("app", "reach");
    let worker = "SELECT format('SELECT pg_terminate_backend(%s)', worker_pid) FROM lead_audit.queue() WHERE database_name = 'reach'";
    wait_until(
        &mut admin,
        "SELECT count(*) = 1 FROM lead_audit.queue() WHERE worker_pid IS NOT NULL",
    );
    for sql in [
        &*value::<String>(&mut admin, worker),
        "SELECT * FROM lead_audit.queue()",
        "SELECT * FROM lead_audit.queue_position",
        "INSERT INTO lead_audit.queue_position VALUES (1, 1)",
        "SELECT * FROM lead_audit.status()",
        "SET lead_audit.log_rollbacks = off",
        "SET lead_audit.log_parameters = on",
        "SET lead_audit.log_statement_length = 0",
    ] {
        assert_eq!(sqlstate(&mut app, sql), "42501", "{sql}");
    }
    assert!(try_call(&mut app, "SET lead_audit.queue_size = '1MB'").is_err());
}

/// A record in the queue must not contain more data than its entry will contain. If statement
/// texts are not recorded, the queue must contain no value that only the statement's text
/// contains.
#[test]
fn the_queue_holds_no_more_than_the_entry() {
    let cluster = preloaded().start();
    let mut admin = taken_database(&cluster, "privacy");
    call(&mut admin, "ALTER ROLE app SET lead_audit.log_statement_length = 0");
    let mut holder = cluster.admin("privacy");
    call(&mut holder, "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE");
    let mut app = cluster.session("app", "privacy");
    assert_eq!(
        sqlstate(
            &mut app,
            "INSERT INTO leads (id, is_manual) VALUES ('secret-of-parsing', 'maybe')"
        ),
        "22P02"
    );
    assert_eq!(
        sqlstate(
            &mut app,
            "UPDATE leads SET is_manual = 'secret-of-running' = id, id = (1 / 0)::text"
        ),
        "22012"
    );
    let data = std::fs::metadata(cluster.data()).expect("the data directory is there");
    let memory = format!("/dev/shm/lead_audit.{}.{}", data.dev(), data.ino());
    let memory = std::fs::read(&memory).unwrap_or_else(|error| panic!("{memory}: {error}"));
    let holds = |text: &str| memory.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("invalid input syntax for type boolean"), "the record is there");
    assert!(holds("division by zero"), "and the other");
    assert!(!holds("secret-of-parsing") && !holds("secret-of-running"));
    call(&mut holder, "ROLLBACK");
    wait_until(
        &mut admin,
        "SELECT count(*) = 2 FROM lead_audit.log WHERE outcome = 'failed' AND statement IS NULL",
    );
}
