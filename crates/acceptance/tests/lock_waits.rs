//! Tests the worker of a database while other sessions hold locks that the worker needs. A lock on
//! one table must not delay the entries of other tables for long.

use acceptance::{
    Cluster, Session, app_database, assert_intact, call, sqlstate, value, wait_until,
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);
const WORKER: &str = "SELECT EXISTS (SELECT FROM lead_audit.queue() WHERE database_name = 'waits' AND worker_pid IS NOT NULL)";

fn cluster(seal_interval: &str) -> (Cluster, Session) {
    let cluster = Cluster::builder()
        .preloaded()
        .setting(&format!("lead_audit.seal_interval = '{seal_interval}'"))
        .start();
    let mut admin = app_database(&cluster, "waits");
    call(&mut admin, "INSERT INTO leads (id) VALUES ('taken')");
    wait_until(&mut admin, LONG, WORKER);
    (cluster, admin)
}

fn duplicate(session: &mut Session) {
    assert_eq!(sqlstate(session, "INSERT INTO leads (id) VALUES ('taken')"), "23505");
}

/// A session that locks a watched table delays the entries of other tables only for a moment. The
/// entries of other tables must not wait until the session releases the lock.
#[test]
fn a_locked_table_keeps_the_others_waiting_once() {
    let (cluster, mut admin) = cluster("1h");
    call(
        &mut admin,
        "CREATE TABLE moods (id int PRIMARY KEY, CHECK (id > 0)); SELECT lead_audit.enable('moods')",
    );
    let (mut log, mut table) = (cluster.admin("waits"), cluster.admin("waits"));
    call(&mut log, "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE");
    for _ in 0..20 {
        assert_eq!(sqlstate(&mut admin, "INSERT INTO moods VALUES (-1)"), "23514");
    }
    duplicate(&mut admin);
    wait_until(
        &mut admin,
        LONG,
        "SELECT queued - written = 21 FROM lead_audit_internal.own_queue()",
    );
    call(&mut table, "BEGIN; LOCK TABLE moods IN ACCESS EXCLUSIVE MODE");
    call(&mut log, "ROLLBACK");
    wait_until(&mut admin, SOON, "SELECT queued = written FROM lead_audit.stats");
    call(&mut table, "ROLLBACK");
    let count: i64 = value(
        &mut admin,
        "SELECT count(*) FROM lead_audit.log WHERE outcome = 'failed' AND table_name = 'moods'",
    );
    assert_eq!(count, 20, "they have entries, if without the row");
    assert_eq!(sqlstate(&mut admin, "INSERT INTO moods VALUES (-2)"), "23514");
    let shown = "SELECT EXISTS (SELECT FROM lead_audit.entry WHERE outcome = 'failed' AND row_values->>'id' = '-2')";
    wait_until(&mut admin, SOON, shown);
    assert_intact(&mut admin);
}

/// The owner of a table can lock an index with REINDEX, while the table itself can still be read.
/// The worker must not wait until the owner releases the lock on the index.
#[test]
fn a_locked_index_delays_the_worker_once() {
    let (cluster, mut admin) = cluster("1h");
    let (mut log, mut owner) = (cluster.admin("waits"), cluster.session("app", "waits"));
    call(&mut log, "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE");
    for _ in 0..20 {
        duplicate(&mut admin);
    }
    wait_until(
        &mut admin,
        LONG,
        "SELECT queued - written = 20 FROM lead_audit_internal.own_queue()",
    );
    call(&mut owner, "BEGIN; REINDEX INDEX leads_pkey");
    call(&mut log, "ROLLBACK");
    wait_until(&mut admin, SOON, "SELECT queued = written FROM lead_audit.stats");
    call(&mut owner, "ROLLBACK");
    assert_eq!(
        value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.log WHERE outcome = 'failed'"),
        20
    );
    duplicate(&mut admin);
    let shown = "SELECT EXISTS (SELECT FROM lead_audit.log WHERE outcome = 'failed' AND row_key->>'id' = 'taken')";
    wait_until(&mut admin, SOON, shown);
    assert_intact(&mut admin);
}

/// After a crash, the queue can still contain a record whose entry the killed worker has already
/// written. The new worker must not write this entry again. The new worker must also write the
/// entry of the next failed statement.
#[test]
fn records_written_before_a_crash_are_not_written_again() {
    let (cluster, mut admin) = cluster("1h");
    duplicate(&mut admin);
    wait_until(&mut admin, LONG, "SELECT queued = written AND queued = 1 FROM lead_audit.stats");
    // The lock of a prepared transaction survives the kill of the postmaster.
    let mut log = cluster.admin("waits");
    call(
        &mut log,
        "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'lock'",
    );
    duplicate(&mut admin);
    wait_until(
        &mut admin,
        LONG,
        "SELECT queued - written = 1 FROM lead_audit_internal.own_queue()",
    );
    // Simulates a worker that was killed after its COMMIT and before it removed the record from the
    // queue.
    call(
        &mut admin,
        "SET synchronous_commit = on; UPDATE lead_audit.queue_position SET position = position + 1",
    );
    cluster.kill();
    drop((admin, log));
    cluster.start_again();
    let mut admin = cluster.admin("waits");
    wait_until(&mut admin, LONG, WORKER);
    wait_until(
        &mut admin,
        LONG,
        "SELECT waiting = 0 FROM lead_audit.queue() WHERE database_name = 'waits'",
    );
    call(&mut admin, "ROLLBACK PREPARED 'lock'");
    // During this pause, the worker finishes its round and begins to wait for its latch.
    std::thread::sleep(Duration::from_millis(200));
    duplicate(&mut admin);
    // The log contains the entries of the first and the last failed statement, and no entry of the
    // second failed statement.
    wait_until(
        &mut admin,
        SOON,
        "SELECT count(*) = 2 FROM lead_audit.log WHERE outcome = 'failed'",
    );
}

/// If a session wakes the worker while sealing waits for a lock, the worker does not notice the
/// wake-up. The worker must therefore read the queue after the wait.
#[test]
fn a_wake_up_while_sealing_waits_is_not_lost() {
    let (cluster, mut admin) = cluster("12s");
    let mut holder = cluster.admin("waits");
    call(&mut holder, "BEGIN; LOCK TABLE lead_audit.checkpoint IN ACCESS EXCLUSIVE MODE");
    call(&mut admin, "INSERT INTO leads (id) VALUES ('to be sealed')");
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'lead_audit worker' AND wait_event_type = 'Lock')";
    wait_until(&mut admin, LONG, waits);
    duplicate(&mut admin);
    // During these two seconds, the wait for the lock consumes the wake-up of the worker.
    std::thread::sleep(Duration::from_secs(2));
    call(&mut holder, "ROLLBACK");
    wait_until(&mut admin, SOON, "SELECT queued = written AND queued = 1 FROM lead_audit.stats");
}

/// If a value of a rejected row is compressed, the record in the queue contains the compressed
/// value. The uncompressed row can be a hundred times larger than the record.
#[test]
fn many_large_rows_do_not_need_much_memory() {
    let (cluster, mut admin) = cluster("1h");
    call(
        &mut admin,
        "CREATE TABLE large AS SELECT 1 AS id, repeat('x', 200000) AS text; SELECT lead_audit.enable('large');
         CREATE TABLE checked (id int, text text, CHECK (id > 1)); SELECT lead_audit.enable('checked')",
    );
    let mut log = cluster.admin("waits");
    call(&mut log, "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE");
    for _ in 0..1500 {
        assert_eq!(sqlstate(&mut admin, "INSERT INTO checked SELECT 1, text FROM large"), "23514");
    }
    wait_until(
        &mut admin,
        LONG,
        "SELECT queued - written = 1500 FROM lead_audit_internal.own_queue()",
    );
    call(&mut log, "ROLLBACK");
    wait_until(&mut admin, LONG, "SELECT queued = written FROM lead_audit.stats");
    let worker: i32 = value(
        &mut admin,
        "SELECT worker_pid FROM lead_audit.queue() WHERE database_name = 'waits'",
    );
    let status =
        std::fs::read_to_string(format!("/proc/{worker}/status")).expect("the worker is there");
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    let most: u64 = most.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(most < 150 * 1024, "the worker had {most} kB");
    let whole = "SELECT count(*) FROM lead_audit.entry WHERE table_name = 'checked' AND length(row_values->>'text') = 200000";
    assert_eq!(value::<i64>(&mut admin, whole), 1500);
}

/// If a session has locked a table, the worker's check of the watched tables reports the locked
/// table, and repairs the other tables.
#[test]
fn a_lock_prevents_the_repair_of_one_table_only() {
    let (cluster, mut admin) = cluster("1h");
    call(
        &mut admin,
        "CREATE TABLE a (id int); CREATE TABLE b (id int); SELECT lead_audit.enable('a'), lead_audit.enable('b');
         ALTER EVENT TRIGGER lead_audit_ddl DISABLE",
    );
    let mut owner = cluster.admin("waits");
    // Simulates commands that bypassed the DDL guard. The session then locks the table `ca`, so the
    // worker cannot repair this table at its next check.
    call(
        &mut owner,
        "BEGIN; CREATE TABLE ca () INHERITS (a); CREATE TABLE cb () INHERITS (b); COMMIT;
         BEGIN; LOCK TABLE ca IN ROW EXCLUSIVE MODE",
    );
    call(&mut admin, "ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS");
    let is_repaired = |table: &str| {
        format!("SELECT count(*) = 2 FROM pg_trigger WHERE tgrelid = '{table}'::regclass")
    };
    wait_until(&mut admin, Duration::from_secs(90), &is_repaired("cb"));
    assert!(!value::<bool>(&mut admin, &is_repaired("ca")));
    assert!(cluster.log_text().contains("was found to be: locked"));
    call(&mut owner, "COMMIT");
    wait_until(&mut admin, LONG, &is_repaired("ca"));
}
