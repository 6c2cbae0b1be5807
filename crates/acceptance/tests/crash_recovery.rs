//! The server crashes again and again during writes. The cause of a crash is a SIGKILL to a
//! writer's server process, a SIGKILL to the postmaster, or an immediate shutdown. After a crash,
//! each committed change must have its entry, and no other change may have an entry.

use acceptance::{
    Cluster, Random, app_database, assert_intact, assert_trail_gives_table, call, setting, value,
};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WRITERS: u64 = 4;

/// The end of a transaction, as the transaction's writer knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Committed,
    RolledBack,
    /// The connection was lost after COMMIT was sent, so the end is unknown.
    Unknown,
}

#[test]
fn after_a_crash_each_change_has_its_entry() {
    let crashes = setting("LEAD_AUDIT_ACCEPTANCE_CRASHES", 6);
    let cluster = Cluster::builder().preloaded().setting("restart_after_crash = on").start();
    let mut admin = app_database(&cluster, "crash");
    // This index speeds up the statements that find a transaction's rows with LIKE, by the
    // beginning of the key.
    call(&mut admin, "CREATE INDEX ON leads (id varchar_pattern_ops)");
    drop(admin);
    let mut random = Random::new(700);
    // The transactions of all writers, by request id. Each value contains the number of entries
    // that the transaction must have if it was committed, and the end of the transaction.
    let mut transactions: BTreeMap<String, (i64, End)> = BTreeMap::new();
    for round in 0..crashes {
        let pause = Duration::from_millis(100 + random.below(500));
        let (stopped, committed) = (AtomicBool::new(false), AtomicBool::new(false));
        let done: Vec<(String, i64, End)> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (cluster, stopped, committed) = (&cluster, &stopped, &committed);
                    scope.spawn(move || {
                        write_until_the_end(cluster, stopped, committed, round, writer)
                    })
                })
                .collect();
            let begin = Instant::now();
            while !committed.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
            std::thread::sleep(pause);
            match round % 3 {
                0 => kill_a_writer(&cluster),
                1 => cluster.kill(),
                _ => cluster.stop("immediate"),
            }
            stopped.store(true, Ordering::Relaxed);
            writers
                .into_iter()
                .flat_map(|writer| writer.join().expect("each writer ends"))
                .collect()
        });
        if round % 3 > 0 {
            cluster.start_again();
        }
        wait_until_it_is_back(&cluster);
        let committed = done.iter().filter(|(.., end)| *end == End::Committed).count();
        assert!(committed > 0, "nothing was committed before the crash: this proves nothing");
        for (request, entries, end) in done {
            transactions.insert(request, (entries, end));
        }

        let mut admin = cluster.admin("crash");
        let found: BTreeMap<String, i64> = admin
            .query(
                "SELECT request_id, count(*) FROM lead_audit.entry WHERE outcome = 'ok' GROUP BY 1",
                &[],
            )
            .expect("the entries can be read")
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        for (request, (entries, end)) in &transactions {
            let has = found.get(request).copied().unwrap_or(0);
            let right = match end {
                End::Committed => has == *entries,
                End::RolledBack => has == 0,
                End::Unknown => has == *entries || has == 0,
            };
            assert!(
                right,
                "round {round}: transaction {request} wrote {entries} times, ended as {end:?}, and has {has} entries"
            );
        }
        assert!(
            found.keys().all(|request| transactions.contains_key(request)),
            "entries of nobody"
        );
        // The table and its entries must agree, even if a writer does not know how its transaction
        // ended. The check runs only after every fifth crash and after the last crash. No rows are
        // removed between two checks, so a check also finds the effects of earlier crashes.
        if round % 5 == 0 || round + 1 == crashes {
            assert_trail_gives_table(&mut admin, "leads");
            assert_intact(&mut admin);
        }
    }
    let ends = |wanted: End| transactions.values().filter(|(_, end)| *end == wanted).count();
    println!(
        "{crashes} crashes; {} transactions committed, {} rolled back, {} unknown",
        ends(End::Committed),
        ends(End::RolledBack),
        ends(End::Unknown)
    );
    assert!(ends(End::RolledBack) > 0);
}

/// Runs transactions until the server has crashed. Returns each transaction's request id, number of
/// expected entries and end.
fn write_until_the_end(
    cluster: &Cluster,
    stopped: &AtomicBool,
    committed: &AtomicBool,
    round: u64,
    writer: u64,
) -> Vec<(String, i64, End)> {
    let mut done = Vec::new();
    let mut random = Random::new(710 + round * WRITERS + writer);
    let Ok(mut session) = cluster.try_session("app", "crash") else { return done };
    for number in 0.. {
        if stopped.load(Ordering::Relaxed) && session.is_closed() {
            break;
        }
        let request = format!("{round}-{writer}-{number}");
        let rows = if random.one_in(6) { 400 } else { 1 + random.below(8) as i64 };
        let rolled_back = random.one_in(4);
        let statements = [
            format!("BEGIN; SET LOCAL lead_audit.request_id = '{request}'"),
            format!(
                "INSERT INTO leads (id, source) SELECT '{request}-' || g, 'new' FROM generate_series(1, {rows}) g"
            ),
            format!("SAVEPOINT s; DELETE FROM leads WHERE id LIKE '{request}-%'; ROLLBACK TO s"),
            format!(
                "UPDATE leads SET source = 'changed' WHERE id LIKE '{request}-%' AND right(id, 1) IN ('1', '2')"
            ),
            format!("DELETE FROM leads WHERE id = '{request}-1'"),
        ];
        let changed = (1..=rows).filter(|n| n % 10 == 1 || n % 10 == 2).count() as i64;
        let entries = rows + changed + 1;
        if statements.iter().any(|statement| session.batch_execute(statement).is_err()) {
            done.push((request, entries, End::RolledBack));
            break;
        }
        let end = match (
            rolled_back,
            session.batch_execute(if rolled_back { "ROLLBACK" } else { "COMMIT" }),
        ) {
            (true, _) => End::RolledBack,
            (false, Ok(())) => End::Committed,
            (false, Err(_)) => End::Unknown,
        };
        if end == End::Committed {
            committed.store(true, Ordering::Relaxed);
        }
        done.push((request, entries, end));
        if session.is_closed() {
            break;
        }
    }
    done
}

/// Kills the server process of a writer with SIGKILL. When a server process is killed, the
/// postmaster restarts all other processes.
fn kill_a_writer(cluster: &Cluster) {
    let pid: i32 = value(
        &mut cluster.admin("crash"),
        "SELECT pid FROM pg_stat_activity WHERE usename = 'app' ORDER BY state = 'active' DESC, random() LIMIT 1",
    );
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    assert!(killed.success());
}

fn wait_until_it_is_back(cluster: &Cluster) {
    let begin = Instant::now();
    // The postmaster notices the kill after a moment, and then ends all sessions. A session that
    // still exists after 0.1 seconds therefore belongs to the restarted server.
    loop {
        let postmaster_says_ready = || -> Option<()> {
            let mut session = cluster.try_session("postgres", "crash").ok()?;
            session.batch_execute("SELECT pg_sleep(0.1); CREATE TEMP TABLE ready ()").ok()
        };
        if postmaster_says_ready().is_some() {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the server did not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
}
