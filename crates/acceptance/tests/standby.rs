//! On a hot standby, the audit trail can be read and verified. After a promotion, the new primary
//! continues the trail.

use acceptance::populated_database::{self, Trail, assert_watched_as_before};
use acceptance::{
    Cluster, Random, assert_intact, assert_trail_gives_table, assert_tree_whole, call, seal,
    sqlstate, unsealed, value,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const DATABASE: &str = "app_db";

/// Waits until a query returns true on the standby.
fn wait_until(cluster: &Cluster, database: &str, query: &str) {
    let begin = Instant::now();
    while !value::<bool>(&mut cluster.admin(database), query) {
        assert!(begin.elapsed() < Duration::from_secs(60), "this did not become true: {query}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the standby has replayed all WAL that the primary has written.
fn wait_for_replay(primary: &Cluster, standby: &Cluster) {
    let written: String =
        value(&mut primary.admin("postgres"), "SELECT pg_current_wal_lsn()::text");
    wait_until(standby, "postgres", &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'"));
}

#[test]
fn a_standby_shows_and_verifies_the_trail() {
    let primary = Cluster::builder().preloaded().setting("lead_audit.seal_interval = 0").start();
    let before = populated_database::make(&primary, DATABASE);
    let standby = Cluster::builder().preloaded().start_standby_of(&primary);
    wait_for_replay(&primary, &standby);
    let mut reader = standby.admin(DATABASE);
    assert!(value::<bool>(&mut reader, "SELECT pg_is_in_recovery()"));
    assert_eq!(Trail::of(&mut reader), before);
    assert_intact(&mut reader);

    // Sessions that are open on the standby see new writes of the primary.
    let key = format!("{:0>32}", "2a");
    call(
        &mut primary.session("app", DATABASE),
        &format!("UPDATE leads SET source = 'later' WHERE id = '{key}'"),
    );
    wait_for_replay(&primary, &standby);
    let history = format!(
        "SELECT string_agg(new_values->>'source', ' ' ORDER BY id) FROM lead_audit.history('leads', '{key}')"
    );
    assert_eq!(
        value::<String>(&mut reader, &history),
        value::<String>(&mut primary.admin(DATABASE), &history)
    );
    assert!(value::<bool>(
        &mut reader,
        &format!("SELECT verified AND total >= 2 FROM lead_audit.summary('leads', '{key}')")
    ));
    assert!(value::<bool>(
        &mut reader,
        "SELECT lead_audit.verify_entry(max(id)) FROM lead_audit.entry"
    ));
    for view in ["log", "watched", "stats", "entry"] {
        assert!(
            value::<i64>(&mut reader, &format!("SELECT count(*) FROM lead_audit.{view}")) > 0,
            "{view}"
        );
    }
    assert_intact(&mut reader);

    // Checkpoints are replicated together with the entries, so proofs work on both servers.
    let size: i64 = value(&mut primary.admin(DATABASE), "SELECT lead_audit.seal()");
    wait_for_replay(&primary, &standby);
    assert_eq!(value::<i64>(&mut reader, "SELECT tree_size FROM lead_audit.stats"), size);
    for call in [
        "latest_checkpoint()",
        "inclusion_proof((SELECT max(id) FROM lead_audit.entry))",
        "consistency_proof(1)",
    ] {
        let query = format!("SELECT lead_audit.{call}");
        assert_eq!(
            value::<String>(&mut reader, &query),
            value::<String>(&mut primary.admin(DATABASE), &query),
            "{call}"
        );
    }
    assert_intact(&mut reader);

    // A standby refuses functions that write.
    for statement in [
        "SELECT lead_audit.seal()",
        "SELECT lead_audit.enable('leads')",
        "SELECT lead_audit.disable('leads')",
        "DELETE FROM leads",
    ] {
        assert_eq!(sqlstate(&mut reader, statement), "25006", "{statement}");
    }
    assert_eq!(reader.warnings(), [""; 0]);
}

#[test]
fn a_promoted_standby_continues_the_trail() {
    let primary =
        Cluster::builder().preloaded().setting("synchronous_standby_names = '*'").create();
    primary.configure(&["synchronous_commit = local".to_owned()]);
    primary.start_again();
    drop(populated_database::make(&primary, DATABASE));
    let standby = Cluster::builder()
        .preloaded()
        .setting("synchronous_standby_names = ''")
        .start_standby_of(&primary);
    wait_until(
        &primary,
        "postgres",
        "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'",
    );
    let mut admin = primary.admin(DATABASE);
    call(&mut admin, "ALTER ROLE app SET synchronous_commit = remote_apply");
    let past_ids: i64 = value(&mut admin, "SELECT max(id) FROM lead_audit.entry");

    // The primary dies while sessions write. The standby must have each write whose COMMIT the
    // primary has acknowledged, and its entry.
    let acknowledged = AtomicBool::new(false);
    let committed: Vec<(String, i64)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (primary, acknowledged) = (&primary, &acknowledged);
                scope.spawn(move || {
                    let mut session = primary.session("app", DATABASE);
                    let mut random = Random::new(800 + writer);
                    let mut committed = Vec::new();
                    for number in 0.. {
                        let (request, rows) = (format!("{writer}-{number}"), 1 + random.below(20) as i64);
                        let written = session.batch_execute(&format!(
                            "BEGIN; SET LOCAL lead_audit.request_id = '{request}';
                             INSERT INTO leads (id) SELECT '{request}-' || g FROM generate_series(1, {rows}) g;
                             UPDATE leads SET source = 'x' WHERE id = '{request}-1'; COMMIT"
                        ));
                        if written.is_err() {
                            break;
                        }
                        committed.push((request, rows + 1));
                        acknowledged.store(committed.len() > 20, Ordering::Relaxed);
                    }
                    committed
                })
            })
            .collect();
        let begin = Instant::now();
        while !acknowledged.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        primary.stop("immediate");
        writers.into_iter().flat_map(|writer| writer.join().expect("each writer ends")).collect()
    });
    assert!(committed.len() > 20, "nothing was committed before the end: this proves nothing");
    standby.promote();
    let mut admin = standby.admin(DATABASE);
    assert!(!value::<bool>(&mut admin, "SELECT pg_is_in_recovery()"));
    for (request, entries) in &committed {
        let found: i64 = value(
            &mut admin,
            &format!("SELECT count(*) FROM lead_audit.entry WHERE request_id = '{request}'"),
        );
        assert_eq!(found, *entries, "entries of the acknowledged transaction {request}");
    }
    assert_trail_gives_table(&mut admin, "leads");
    seal(&mut admin);
    assert_eq!(unsealed(&mut admin), 0, "whatever the primary has sealed or not");
    assert_tree_whole(&mut admin);
    assert_intact(&mut admin);
    let taken_over: i64 = value(&mut admin, "SELECT max(id) FROM lead_audit.entry");
    assert!(taken_over > past_ids);

    call(&mut admin, "ALTER ROLE app RESET synchronous_commit");
    let again: i64 =
        value(&mut admin, "SELECT count(*) FROM lead_audit.entry WHERE request_id IS NULL");
    assert_watched_as_before(&standby, DATABASE);
    let (new, lowest): (i64, i64) = (
        value(&mut admin, "SELECT count(*) FROM lead_audit.entry WHERE request_id IS NULL"),
        value(&mut admin, &format!("SELECT min(id) FROM lead_audit.entry WHERE id > {taken_over}")),
    );
    // assert_watched_as_before() makes six entries. One of the six entries is an UPDATE that moves
    // a row to another partition.
    assert_eq!(new - again, 6);
    // For a sequence, PostgreSQL writes a value to WAL that is up to 32 values ahead. The promoted
    // standby therefore skips up to 32 values of the sequence.
    assert!(lowest <= taken_over + 33, "{taken_over} is followed by {lowest}");
    assert_eq!(
        value::<i64>(&mut admin, "SELECT count(*) - count(DISTINCT id) FROM lead_audit.entry"),
        0
    );
    assert_trail_gives_table(&mut admin, "leads");
    assert_intact(&mut admin);
}
