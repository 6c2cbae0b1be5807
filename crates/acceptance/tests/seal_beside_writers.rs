//! Sessions seal while other sessions write. Sealing must seal the entries of committed
//! transactions. Sealing must seal the entries of an open transaction after this transaction's
//! COMMIT. Sealing and writers must never wait for each other.

use acceptance::{
    Cluster, Random, Session, add_leads, app_database, assert_intact, assert_tree_whole, call,
    seal, setting, sqlstate, unsealed, value,
};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// A query whose result changes whenever sealing writes something.
const STATE: &str = "SELECT (SELECT xmin::text || ctid::text FROM lead_audit.tree) || ' ' ||
     coalesce((SELECT string_agg(g::text, ' ') FROM lead_audit.open_gap g), '') || ' ' ||
     (SELECT count(*) FROM lead_audit.checkpoint)";

fn insert(session: &mut Session, key: &str, rows: u32) {
    call(
        session,
        &format!("INSERT INTO leads (id) SELECT '{key}-' || g FROM generate_series(1, {rows}) g"),
    );
}

#[test]
fn each_committed_entry_is_one_leaf() {
    let cluster = Cluster::builder().setting("max_connections = 60").start();
    let mut admin = app_database(&cluster, "crowd");
    let deadline =
        Instant::now() + Duration::from_secs(setting("LEAD_AUDIT_ACCEPTANCE_SECONDS", 6));
    let together = Barrier::new(11);
    let sealings: u32 = std::thread::scope(|scope| {
        for writer in 0..8 {
            let (mut app, together) = (cluster.session("app", "crowd"), &together);
            scope.spawn(move || {
                let mut random = Random::new(900 + writer);
                together.wait();
                for number in 0.. {
                    // Each writer runs at least 100 transactions, even after the deadline.
                    if Instant::now() > deadline && number >= 100 {
                        break;
                    }
                    call(&mut app, "BEGIN");
                    for part in 0..1 + random.below(3) {
                        insert(
                            &mut app,
                            &format!("{writer}-{number}-{part}"),
                            1 + random.below(4) as u32,
                        );
                        if random.one_in(3) {
                            call(&mut app, "SAVEPOINT s");
                            insert(&mut app, &format!("{writer}-{number}-{part}-undone"), 2);
                            call(&mut app, "ROLLBACK TO s");
                        }
                    }
                    call(&mut app, if random.one_in(4) { "ROLLBACK" } else { "COMMIT" });
                }
            });
        }
        let sealers: Vec<_> = (0..3)
            .map(|number| {
                let (mut admin, together) = (cluster.admin("crowd"), &together);
                scope.spawn(move || {
                    let isolation = ["read committed", "repeatable read", "read committed"][number];
                    call(&mut admin, &format!("SET default_transaction_isolation = '{isolation}'"));
                    together.wait();
                    let (mut sealings, mut last) = (0, 0);
                    // Each sealing session seals at least 20 times, even after the deadline.
                    while Instant::now() < deadline || sealings < 20 {
                        // Under REPEATABLE READ, the SELECT takes the transaction's snapshot before
                        // seal() takes the sealing lock.
                        call(&mut admin, "BEGIN; SELECT count(*) FROM lead_audit.checkpoint");
                        let size = seal(&mut admin);
                        call(&mut admin, "COMMIT");
                        assert!(size >= last, "the tree shrank from {last} to {size}");
                        (sealings, last) = (sealings + 1, size);
                    }
                    sealings
                })
            })
            .collect();
        sealers.into_iter().map(|sealer| sealer.join().expect("each sealer succeeds")).sum()
    });
    let size = seal(&mut admin);
    println!("{size} entries, {sealings} sealings");
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.entry"), size);
    assert_eq!(unsealed(&mut admin), 0);
    assert!(
        sealings > 50 && size > 1000,
        "only {sealings} sealings, {size} entries: this proves nothing"
    );
    let late: i64 = value(
        &mut admin,
        "SELECT count(*) FROM (
           SELECT first < max(last) OVER (ORDER BY tree_size ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS late
           FROM (SELECT tree_size, (regexp_match(entry_ids::text, '^.\\[(\\d+)'))[1]::bigint AS first,
                        (regexp_match(entry_ids::text, '(\\d+).}$'))[1]::bigint AS last FROM lead_audit.checkpoint) c) c WHERE late",
    );
    assert!(late > 0, "no entry came after a higher id was sealed: this proves nothing");
    assert_tree_whole(&mut admin);
    assert_intact(&mut admin);
    // All writers have ended, so no further entry can become visible.
    assert_eq!(seal(&mut admin), size);
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.open_gap"), 0);
}

#[test]
fn an_open_transaction_delays_its_own_entries_and_costs_nothing() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "open");
    let (mut slow, mut other, mut quick) = (
        cluster.session("app", "open"),
        cluster.session("app", "open"),
        cluster.session("app", "open"),
    );
    call(&mut slow, "BEGIN");
    insert(&mut slow, "slow", 100);
    call(&mut other, "BEGIN");
    insert(&mut other, "other", 10);
    insert(&mut quick, "quick", 5);
    assert_eq!(seal(&mut admin), 5, "what is committed does not wait");

    let before: String = value(&mut admin, STATE);
    for _ in 0..20 {
        assert_eq!(seal(&mut admin), 5);
    }
    assert_eq!(
        value::<String>(&mut admin, STATE),
        before,
        "as long as nothing happens nothing is written"
    );

    insert(&mut quick, "more", 5);
    assert_eq!(seal(&mut admin), 10);
    // The first sealing after the end of a transaction seals the transaction's entries.
    call(&mut other, "COMMIT");
    assert_eq!(seal(&mut admin), 20);
    insert(&mut slow, "slow again", 50);
    insert(&mut quick, "even more", 5);
    assert_eq!(seal(&mut admin), 25);
    call(&mut slow, "COMMIT");
    assert_eq!(seal(&mut admin), 175);
    assert_eq!(unsealed(&mut admin), 0);
    assert_tree_whole(&mut admin);

    // The ids of a rolled-back transaction never get entries. Once sealing knows of the rollback,
    // it must not examine these ids again.
    call(&mut slow, "BEGIN");
    insert(&mut slow, "gone", 30);
    insert(&mut quick, "stays", 1);
    assert_eq!(seal(&mut admin), 176);
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.open_gap"), 1);
    call(&mut slow, "ROLLBACK");
    assert_eq!(seal(&mut admin), 176);
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.open_gap"), 0);
    assert_tree_whole(&mut admin);
    assert_intact(&mut admin);
}

#[test]
fn a_prepared_transaction_is_open_until_it_ends() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "prepared");
    let mut app = cluster.session("app", "prepared");
    for name in ["one", "two"] {
        call(&mut app, "BEGIN");
        insert(&mut app, name, 10);
        call(&mut app, &format!("PREPARE TRANSACTION '{name}'"));
    }
    insert(&mut app, "three", 10);
    assert_eq!(seal(&mut admin), 10);
    drop((admin, app));
    cluster.stop("immediate");
    cluster.start_again();
    let mut admin = cluster.admin("prepared");
    assert_eq!(seal(&mut admin), 10);
    call(&mut admin, "COMMIT PREPARED 'two'");
    assert_eq!(seal(&mut admin), 20);
    call(&mut admin, "ROLLBACK PREPARED 'one'");
    assert_eq!(seal(&mut admin), 20);
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.open_gap"), 0);
    assert_eq!(unsealed(&mut admin), 0);
    assert_tree_whole(&mut admin);
    // A transaction that has sealed cannot be prepared. A prepared transaction would hold the
    // sealing lock even after the end of its session.
    call(&mut admin, "BEGIN; SELECT lead_audit.enable('leads')");
    insert(&mut admin, "four", 1);
    seal(&mut admin);
    assert_eq!(sqlstate(&mut admin, "PREPARE TRANSACTION 'three'"), "0A000");
}

#[test]
fn only_sealing_waits_for_sealing() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "locks");
    let (mut first, mut second) = (cluster.admin("locks"), cluster.admin("locks"));
    let mut app = cluster.session("app", "locks");
    add_leads(&mut app, 1, 50);
    call(&mut first, "BEGIN");
    assert_eq!(seal(&mut first), 50);
    call(&mut second, "SET lock_timeout = '100ms'");
    assert_eq!(sqlstate(&mut second, "SELECT lead_audit.seal()"), "55P03");
    // Writers, readers and maintenance commands must not wait for the sealing lock.
    call(&mut app, "SET lock_timeout = '5s'");
    add_leads(&mut app, 51, 100);
    call(
        &mut admin,
        "SET lock_timeout = '5s'; SELECT * FROM lead_audit.verify(); SELECT * FROM lead_audit.checkpoint",
    );
    call(
        &mut admin,
        "VACUUM lead_audit.tree, lead_audit.tree_edge, lead_audit.checkpoint, lead_audit.entry",
    );
    cluster.run("pg_dump", &["-d", "locks", "-f", "/dev/null"]);
    call(&mut first, "ROLLBACK");
    assert_eq!(seal(&mut second), 100);
    assert_tree_whole(&mut admin);
}

#[test]
fn a_snapshot_older_than_the_lock_seals_correctly() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "snapshots");
    let mut app = cluster.session("app", "snapshots");
    let mut old = cluster.admin("snapshots");
    add_leads(&mut app, 1, 10);
    call(&mut old, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM leads");
    add_leads(&mut app, 11, 20);
    assert_eq!(seal(&mut admin), 20);
    add_leads(&mut app, 21, 30);
    assert_eq!(
        seal(&mut old),
        30,
        "it seals what is committed now, on top of what others have sealed"
    );
    call(&mut old, "COMMIT");
    assert_tree_whole(&mut admin);
    call(&mut old, "BEGIN ISOLATION LEVEL SERIALIZABLE");
    assert_eq!(sqlstate(&mut old, "SELECT lead_audit.seal()"), "0A000");
}
