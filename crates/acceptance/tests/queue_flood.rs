//! Eight sessions execute statements that fail, as fast as they can. Each failed statement must
//! have an entry, or must be counted and written to the server's log, no matter which process is
//! killed.
//!
//! `LEAD_AUDIT_ACCEPTANCE_SECONDS` sets the duration of the flood.

use acceptance::{Cluster, Session, app_database, assert_intact, call, setting, value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SESSIONS: usize = 8;

#[track_caller]
fn wait_until(session: &mut Session, condition: &str) {
    acceptance::wait_until(session, Duration::from_secs(120), condition);
}

/// Executes statements that fail until `stop` is set. Reconnects after a lost connection. Returns,
/// for each request id, the number of failed statements whose error the client received.
fn fail_on(
    cluster: &Cluster,
    round: u64,
    number: usize,
    stop: &AtomicBool,
) -> BTreeMap<String, i64> {
    let mut failed = BTreeMap::new();
    let mut life = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut session) = cluster.try_session("app", "flood") else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        life += 1;
        let request = format!("{round}-{number}-{life}");
        if session.batch_execute(&format!("SET lead_audit.request_id = '{request}'")).is_err() {
            continue;
        }
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let error = session
                .execute("INSERT INTO leads (id) VALUES ('taken')", &[])
                .expect_err("it is taken");
            match error.code() {
                Some(code) if code.code() == "23505" => count += 1,
                // The connection was lost, so the client does not know whether the statement
                // failed.
                _ => break,
            }
        }
        failed.insert(request, count);
    }
    failed
}

/// Returns, for each request id, the number of failed statements in the audit trail and in the
/// server's log.
fn found(cluster: &Cluster, admin: &mut Session) -> (BTreeMap<String, i64>, BTreeMap<String, i64>) {
    let rows = admin.query(
        "SELECT request_id, count(*) FROM lead_audit.entry WHERE outcome = 'failed' GROUP BY 1",
        &[],
    );
    let entries =
        rows.expect("the log can be read").iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut logged = BTreeMap::new();
    for line in cluster.log_text().lines().filter(|line| line.contains("has no audit entry")) {
        let (_, rest) =
            line.split_once("\"request_id\":\"").unwrap_or_else(|| panic!("no record in: {line}"));
        let request = rest.split('"').next().unwrap_or_default();
        *logged.entry(request.to_owned()).or_default() += 1;
    }
    (entries, logged)
}

/// Checks that each failed statement is in the audit trail or in the server's log. If `exact` is
/// false, sessions can have been killed. The client of a killed session does not receive the last
/// error, so there can be a record of one more failed statement than the client has counted.
fn assert_all_there(
    cluster: &Cluster,
    admin: &mut Session,
    failed: &BTreeMap<String, i64>,
    exact: bool,
) -> (i64, i64) {
    let (entries, logged) = found(cluster, admin);
    let mut totals = (0, 0);
    for (request, &count) in failed {
        let (entries, logged) =
            (entries.get(request).copied().unwrap_or(0), logged.get(request).copied().unwrap_or(0));
        totals = (totals.0 + entries, totals.1 + logged);
        let there = entries + logged;
        let right = there == count || !exact && there == count + 1;
        assert!(
            right,
            "request {request} failed {count} times; {entries} entries, {logged} in the server's log"
        );
    }
    totals
}

/// A query that returns whether all sessions of the flood have ended.
const SESSIONS_ENDED: &str = "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'app'";

/// Creates a cluster with a queue of the size `queue`, and waits until the worker runs.
fn flood_cluster(queue: &str) -> (Cluster, Session) {
    let cluster = Cluster::builder()
        .preloaded()
        .setting(&format!("lead_audit.queue_size = '{queue}'"))
        .setting("log_error_verbosity = terse")
        .start();
    let mut admin = app_database(&cluster, "flood");
    call(&mut admin, "INSERT INTO leads (id) VALUES ('taken')");
    wait_until(
        &mut admin,
        "SELECT EXISTS (SELECT FROM lead_audit.queue() WHERE worker_pid IS NOT NULL)",
    );
    (cluster, admin)
}

/// Lets this number of sessions fail for `seconds` (see `fail_on`), and calls `meanwhile` again and
/// again.
fn flood(
    cluster: &Cluster,
    sessions: usize,
    round: u64,
    seconds: u64,
    mut meanwhile: impl FnMut(),
) -> BTreeMap<String, i64> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let threads: Vec<_> = (0..sessions)
            .map(|number| scope.spawn(move || fail_on(cluster, round, number, stop)))
            .collect();
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            meanwhile();
            std::thread::sleep(Duration::from_millis(200));
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().expect("each session ends")).collect()
    })
}

#[test]
fn every_failure_is_an_entry_or_in_the_servers_log() {
    let seconds = setting("LEAD_AUDIT_ACCEPTANCE_SECONDS", 5);
    for queue in ["16MB", "256kB"] {
        let (cluster, mut admin) = flood_cluster(queue);
        // At first, the worker waits for the lock on lead_audit.entry, so that a small queue
        // becomes full.
        let mut holder = cluster.admin("flood");
        call(&mut holder, "BEGIN; LOCK TABLE lead_audit.entry IN ACCESS EXCLUSIVE MODE");
        let mut holder = Some(holder);
        let begin = Instant::now();
        let failed = flood(&cluster, SESSIONS, 0, seconds, || {
            if begin.elapsed() > Duration::from_secs(1) {
                holder = None;
            }
        });
        drop(holder);
        wait_until(&mut admin, SESSIONS_ENDED);
        wait_until(&mut admin, "SELECT waiting = 0 FROM lead_audit.queue()");
        let total: i64 = failed.values().sum();
        let (entries, logged) = assert_all_there(&cluster, &mut admin, &failed, true);
        println!(
            "queue of {queue}: {total} failures in {seconds} s, {entries} entries, {logged} in the server's log"
        );
        let stats = admin
            .query_one("SELECT queued, written, dropped FROM lead_audit.stats", &[])
            .expect("there are stats");
        assert_eq!(
            (stats.get::<_, i64>(0), stats.get::<_, i64>(1), stats.get::<_, i64>(2)),
            (entries, entries, logged)
        );
        assert!(logged > 0 || queue != "256kB", "the small queue was never full");
        assert_intact(&mut admin);
    }
}

#[test]
fn no_failure_is_lost_when_processes_are_killed() {
    let crashes = setting("LEAD_AUDIT_ACCEPTANCE_CRASHES", 6);
    let (cluster, _) = flood_cluster("4MB");
    let victim = |what: &str| {
        format!(
            "SELECT pid FROM pg_stat_activity WHERE {what} AND (datname = 'flood' OR datname IS NULL) AND pid <> pg_backend_pid() LIMIT 1"
        )
    };
    for round in 0..crashes {
        let what = [
            "backend_type = 'lead_audit worker'",
            "usename = 'app'",
            "backend_type = 'lead_audit launcher'",
            "postmaster",
        ][round as usize % 4];
        let begin = Instant::now();
        let mut killed = false;
        let failed = flood(&cluster, SESSIONS, round, 3, || {
            if killed || begin.elapsed() < Duration::from_millis(700) {
                return;
            }
            killed = true;
            if what == "postmaster" {
                cluster.kill();
                cluster.start_again();
            } else if let Ok(mut session) = cluster.try_session("postgres", "flood") {
                let pid: i32 = value(&mut session, &victim(what));
                let status =
                    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
                assert!(status.expect("kill runs").success());
            }
        });
        let mut admin = loop {
            if let Ok(session) = cluster.try_session("postgres", "flood") {
                break session;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        wait_until(&mut admin, SESSIONS_ENDED);
        wait_until(
            &mut admin,
            "SELECT EXISTS (SELECT FROM lead_audit.queue() WHERE worker_pid IS NOT NULL AND waiting = 0)",
        );
        let (entries, logged) = assert_all_there(&cluster, &mut admin, &failed, false);
        println!(
            "killed {what}: {} failures, {entries} entries, {logged} in the server's log",
            failed.values().sum::<i64>()
        );
        assert_intact(&mut admin);
    }
}

/// Each COMMIT of the worker waits for the disk, which delays the transactions of the application.
/// During a flood of failed statements, the worker therefore writes the entries of many records in
/// one transaction.
#[test]
fn a_flood_takes_few_transactions_and_a_single_failure_no_wait() {
    let (cluster, mut admin) = flood_cluster("16MB");
    let begin = Instant::now();
    let failed = flood(&cluster, SESSIONS, 0, 4, || {});
    // If many failures occur, the worker may use ten transactions per second, and a few more at the
    // beginning and at the end of the flood.
    assert_few_transactions(&cluster, &mut admin, &failed, (10, begin));

    // After the flood, the worker must write the entry of a single failed statement without a
    // pause.
    let mut app = cluster.session("app", "flood");
    let mut delays = Vec::new();
    for number in 0..21 {
        std::thread::sleep(Duration::from_millis(50));
        call(&mut app, &format!("SET lead_audit.request_id = 'lone {number}'"));
        app.execute("INSERT INTO leads (id) VALUES ('taken')", &[]).expect_err("it is taken");
        let begin = Instant::now();
        let there = format!(
            "SELECT EXISTS (SELECT FROM lead_audit.entry WHERE request_id = 'lone {number}')"
        );
        while !value::<bool>(&mut admin, &there) {
            assert!(begin.elapsed() < Duration::from_secs(60));
        }
        delays.push(begin.elapsed());
    }
    delays.sort();
    println!(
        "a lone failure has its entry after {:?} (median), {:?} (longest)",
        delays[10], delays[20]
    );
    assert!(delays[10] < Duration::from_millis(100), "{delays:?}");
}

/// A session that waits for the answer to each statement can leave one record at a time in the
/// queue. The worker must not make a transaction for each of these records.
#[test]
fn the_failures_of_one_session_take_few_transactions() {
    let (cluster, mut admin) = flood_cluster("16MB");
    let begin = Instant::now();
    let failed = flood(&cluster, 1, 0, 3, || {});
    // The worker may use 50 transactions per second, because few records may wait at a time.
    assert_few_transactions(&cluster, &mut admin, &failed, (50, begin));
}

/// Waits until the flood that began at `begin` has its entries. Checks that each failed statement
/// has one, and that the worker used at most `each_second` transactions per second.
fn assert_few_transactions(
    cluster: &Cluster,
    admin: &mut Session,
    failed: &BTreeMap<String, i64>,
    (each_second, begin): (i64, Instant),
) {
    wait_until(admin, SESSIONS_ENDED);
    wait_until(admin, "SELECT waiting = 0 FROM lead_audit.queue()");
    let seconds = begin.elapsed().as_secs() as i64 + 1;
    assert_all_there(cluster, admin, failed, true);
    let failures: i64 = failed.values().sum();
    let count = "SELECT count(DISTINCT xmin::text) FROM lead_audit.entry WHERE outcome = 'failed'";
    let transactions: i64 = value(admin, count);
    println!("{failures} failures in {seconds} s were written in {transactions} transactions");
    // After a quiet time, the worker may use ten transactions without pauses. If many records wait,
    // the worker may also use one transaction for each 4,000 records or 4 MB.
    assert!(
        transactions <= each_second * seconds + 30 + failures / 2_000,
        "{transactions} transactions in {seconds} s"
    );
}

/// During a flood, the worker pauses between two transactions. A shutdown of the server must not
/// wait for the end of this pause.
#[test]
fn a_shutdown_does_not_wait_for_the_pause_of_the_worker() {
    let (cluster, _) = flood_cluster("16MB");
    let mut total = 0;
    for round in 0..3 {
        let failed = flood(&cluster, SESSIONS, round, 1, || {});
        total += failed.values().sum::<i64>();
        let begin = Instant::now();
        cluster.stop("fast");
        println!("shut down after {:?}", begin.elapsed());
        cluster.start_again();
        let mut admin = cluster.admin("flood");
        assert_eq!(
            value::<i64>(
                &mut admin,
                "SELECT count(*) FROM lead_audit.entry WHERE outcome = 'failed'"
            ),
            total
        );
        assert_all_there(&cluster, &mut admin, &failed, true);
    }
}
