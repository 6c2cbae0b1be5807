//! If a worker dies while it writes the entry of a record, the next worker must not write an entry
//! for this record. The tests kill the worker at each step at which a lock can make the worker
//! wait.

use acceptance::{
    Cluster, Session, app_database, assert_intact, call, sqlstate, value, wait_until,
};
use std::process::Command;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const WORKER: &str = "SELECT EXISTS (SELECT FROM lead_audit.queue() WHERE worker_pid IS NOT NULL)";

fn cluster() -> (Cluster, Session) {
    let cluster = Cluster::builder().preloaded().setting("lead_audit.seal_interval = '1h'").start();
    let mut admin = app_database(&cluster, "poison");
    call(&mut admin, "INSERT INTO leads (id) VALUES ('taken')");
    wait_until(&mut admin, LONG, WORKER);
    (cluster, admin)
}

fn connect(cluster: &Cluster) -> Session {
    let begin = Instant::now();
    loop {
        match cluster.try_session("postgres", "poison") {
            Ok(session) => return session,
            Err(error) => assert!(begin.elapsed() < LONG, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(pid: i32, signal: &str) {
    assert!(
        Command::new("kill")
            .args([signal, &pid.to_string()])
            .status()
            .expect("kill runs")
            .success()
    );
}

/// Executes a statement that fails. If `by_text` is true, the statement fails before PostgreSQL
/// knows its table, so the worker must find the table in the statement's text. If `by_text` is
/// false, the record contains the rejected row.
fn fail(session: &mut Session, request: &str, by_text: bool) {
    call(session, &format!("SET lead_audit.request_id = '{request}'"));
    if by_text {
        assert_eq!(sqlstate(session, "INSERT INTO leads (no_such_column) VALUES (1)"), "42703");
    } else {
        assert_eq!(sqlstate(session, "INSERT INTO leads (id) VALUES ('taken')"), "23505");
    }
}

/// Stops the worker with SIGSTOP between two transactions. Within a transaction, a stopped worker
/// could hold a lock that the test needs.
fn stop(session: &mut Session, worker: i32) {
    let is_idle = format!("SELECT xact_start IS NULL FROM pg_stat_activity WHERE pid = {worker}");
    loop {
        signal(worker, "-STOP");
        std::thread::sleep(Duration::from_millis(10));
        if value(session, &is_idle) {
            return;
        }
        signal(worker, "-CONT");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Stops the worker, executes a statement that fails, and takes the lock `lock` in a prepared
/// transaction, so that the lock survives a crash. Then lets the worker continue until it waits for
/// this lock, and kills the worker.
fn kill_at(cluster: &Cluster, lock: &str, request: &str, by_text: bool) {
    let mut session = connect(cluster);
    wait_until(&mut session, LONG, "SELECT queued = written + dropped FROM lead_audit.stats");
    let worker: i32 = value(&mut session, "SELECT worker_pid FROM lead_audit.queue()");
    stop(&mut session, worker);
    fail(&mut session, request, by_text);
    call(&mut session, &format!("BEGIN; {lock}; PREPARE TRANSACTION 'lock'"));
    signal(worker, "-CONT");
    std::thread::sleep(Duration::from_millis(300));
    signal(worker, "-KILL");
    wait_for_crash(&mut session);
}

/// Waits until the postmaster has ended all sessions. The postmaster ends all sessions shortly
/// after the crash of a process.
fn wait_for_crash(session: &mut Session) {
    let begin = Instant::now();
    while session.batch_execute("SELECT 1").is_ok() {
        assert!(begin.elapsed() < LONG, "the session lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the number of entries with the request id `request`, and the number of lines in the
/// server's log with this request id.
fn found(cluster: &Cluster, admin: &mut Session, request: &str) -> (i64, usize) {
    let entries = value(
        admin,
        &format!(
            "SELECT count(*) FROM lead_audit.entry WHERE request_id = '{request}' AND outcome = 'failed'"
        ),
    );
    let log = cluster.log_text();
    let of_request = |line: &&str| {
        line.contains("has no audit entry")
            && line.contains(&format!("\"request_id\":\"{request}\""))
    };
    (entries, log.lines().filter(of_request).count())
}

fn assert_queue_continues(admin: &mut Session, request: &str) {
    fail(admin, request, false);
    let there = format!(
        "SELECT EXISTS (SELECT FROM lead_audit.entry WHERE request_id = '{request}' AND outcome = 'failed')"
    );
    wait_until(admin, LONG, &there);
}

#[test]
fn a_record_that_ended_a_worker_is_not_tried_again() {
    let (cluster, admin) = cluster();
    drop(admin);
    let mut quarantined = 0;
    for (step, lock) in [
        ("opening the table", "LOCK TABLE leads IN ACCESS EXCLUSIVE MODE"),
        ("taking an entry", "LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE"),
    ] {
        for by_text in [false, true] {
            // The worker opens the table only for a record with a rejected row.
            if by_text && step == "opening the table" {
                continue;
            }
            let request = format!("{step} {by_text}");
            kill_at(&cluster, lock, &request, by_text);
            let mut admin = connect(&cluster);
            call(&mut admin, "ROLLBACK PREPARED 'lock'");
            wait_until(&mut admin, LONG, WORKER);
            wait_until(&mut admin, LONG, "SELECT waiting = 0 FROM lead_audit.queue()");
            quarantined += 1;
            assert_eq!(found(&cluster, &mut admin, &request), (0, 1), "{request}");
            assert_queue_continues(&mut admin, &format!("after {request}"));
            assert_eq!(
                value::<i64>(&mut admin, "SELECT quarantined FROM lead_audit.stats"),
                quarantined,
                "{request}"
            );
            assert_intact(&mut admin);
        }
    }
}

/// If a worker dies while it writes the entries of several records together, the next worker does
/// not know which record was the cause. The next worker must write the entries one by one.
#[test]
fn records_of_a_batch_that_ended_a_worker_are_tried_one_by_one() {
    let (cluster, admin) = cluster();
    drop(admin);
    // The SHARE lock lets the worker read lead_audit.queue_position, but blocks the worker's
    // UPDATE of this table.
    kill_at(&cluster, "LOCK TABLE lead_audit.queue_position IN SHARE MODE", "together", false);
    let mut admin = connect(&cluster);
    wait_until(&mut admin, LONG, WORKER);
    std::thread::sleep(Duration::from_millis(500));
    let worker: i32 = value(&mut admin, "SELECT worker_pid FROM lead_audit.queue()");
    signal(worker, "-KILL");
    wait_for_crash(&mut admin);
    let mut admin = connect(&cluster);
    call(&mut admin, "ROLLBACK PREPARED 'lock'");
    wait_until(&mut admin, LONG, WORKER);
    wait_until(&mut admin, LONG, "SELECT waiting = 0 FROM lead_audit.queue()");
    assert_eq!(found(&cluster, &mut admin, "together"), (0, 1));
    assert_queue_continues(&mut admin, "after");
    assert_intact(&mut admin);
}

/// If a worker ends because another process crashed, the record that the worker was processing must
/// not go into quarantine.
#[test]
fn a_crash_of_another_process_quarantines_nothing() {
    let (cluster, admin) = cluster();
    drop(admin);
    let mut session = connect(&cluster);
    let worker: i32 = value(&mut session, "SELECT worker_pid FROM lead_audit.queue()");
    stop(&mut session, worker);
    fail(&mut session, "innocent", false);
    call(
        &mut session,
        "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'lock'",
    );
    signal(worker, "-CONT");
    std::thread::sleep(Duration::from_millis(300));
    let mut watcher = connect(&cluster);
    signal(session.pid(), "-KILL");
    wait_for_crash(&mut watcher);
    let mut admin = connect(&cluster);
    call(&mut admin, "ROLLBACK PREPARED 'lock'");
    wait_until(&mut admin, LONG, WORKER);
    wait_until(&mut admin, LONG, "SELECT waiting = 0 FROM lead_audit.queue()");
    assert_eq!(found(&cluster, &mut admin, "innocent"), (1, 0));
    assert_eq!(value::<i64>(&mut admin, "SELECT quarantined FROM lead_audit.stats"), 0);
    assert_intact(&mut admin);
}

/// When the postmaster is killed, the worker also ends. The record that the worker was processing
/// must not go into quarantine.
#[test]
fn a_kill_of_the_postmaster_quarantines_nothing() {
    let (cluster, admin) = cluster();
    drop(admin);
    for round in 0..10 {
        let request = format!("round {round}");
        let mut session = connect(&cluster);
        let worker: i32 = value(&mut session, "SELECT worker_pid FROM lead_audit.queue()");
        stop(&mut session, worker);
        fail(&mut session, &request, false);
        call(
            &mut session,
            "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'lock'",
        );
        signal(worker, "-CONT");
        std::thread::sleep(Duration::from_millis(100));
        cluster.kill();
        cluster.start_again();
        let mut admin = connect(&cluster);
        call(&mut admin, "ROLLBACK PREPARED 'lock'");
        wait_until(&mut admin, LONG, WORKER);
        wait_until(&mut admin, LONG, "SELECT waiting = 0 FROM lead_audit.queue()");
        assert_eq!(found(&cluster, &mut admin, &request), (1, 0), "{request}");
    }
    assert_intact(&mut connect(&cluster));
}

/// If a worker dies after its commit and before it removes the records from the queue, the next
/// worker counts all remaining records of the transaction as written. A record that concerns no
/// watched table gets no entry, so it must leave the queue before the commit.
#[test]
fn a_record_without_an_entry_leaves_the_queue_before_the_commit() {
    let (cluster, admin) = cluster();
    drop(admin);
    let mut session = connect(&cluster);
    call(&mut session, "CREATE TABLE unwatched (n int)");
    fail(&mut session, "has an entry", false);
    wait_until(&mut session, LONG, "SELECT waiting = 0 FROM lead_audit.queue()");
    let worker: i32 = value(&mut session, "SELECT worker_pid FROM lead_audit.queue()");
    stop(&mut session, worker);
    // The text names a watched table, so only the worker finds that no watched table is written.
    let statement = "INSERT INTO unwatched (no_such_column) SELECT 1 FROM leads";
    assert_eq!(sqlstate(&mut session, statement), "42703");
    assert!(value::<bool>(&mut session, "SELECT waiting > 0 FROM lead_audit.queue()"));
    // The worker's transaction ends with an UPDATE of this table.
    call(&mut session, "BEGIN; LOCK TABLE lead_audit.queue_position IN SHARE MODE");
    signal(worker, "-CONT");
    let mut admin = connect(&cluster);
    wait_until(&mut admin, LONG, "SELECT waiting = 0 FROM lead_audit.queue()");
    assert!(value::<bool>(
        &mut admin,
        &format!("SELECT xact_start IS NOT NULL FROM pg_stat_activity WHERE pid = {worker}")
    ));
    call(&mut session, "ROLLBACK");
    let counts = "SELECT (queued, written, dropped) = (1, 1, 0) FROM lead_audit.stats";
    assert!(value::<bool>(&mut admin, counts));
    assert_intact(&mut admin);
}
