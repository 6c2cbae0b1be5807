//! Tests the extension at limits of the server. At a limit, a statement must fail with an ordinary
//! error, or it must succeed and each of its missing entries must be counted. No process of the
//! server may crash.

use acceptance::{Cluster, Session, assert_intact, call, faults, try_call, value};
use std::path::Path;
use std::time::{Duration, Instant};

const ENTRIES: &str = "SELECT count(*) FROM lead_audit.entry WHERE outcome = 'ok'";
const UNWRITTEN: &str = "SELECT entries_not_written FROM lead_audit.stats";

/// Checks in the server's log that no process of the server ended abnormally.
fn assert_nothing_crashed(cluster: &Cluster, started: &str, admin: &mut Session) {
    assert_eq!(value::<String>(admin, "SELECT pg_postmaster_start_time()::text"), started);
    let log = cluster.log_text();
    let crash = log.lines().find(|line| {
        line.contains("terminated by signal") || line.contains("PANIC") || line.contains("panicked")
    });
    assert_eq!(crash, None);
}

fn database(cluster: &Cluster, tables: &str) -> (Session, String) {
    let mut admin = cluster.admin("postgres");
    call(&mut admin, "CREATE EXTENSION lead_audit");
    call(&mut admin, tables);
    let started = value(&mut admin, "SELECT pg_postmaster_start_time()::text");
    (admin, started)
}

/// Opens a session, and allows its server process only `bytes` more memory than the process has
/// now.
fn short_of_memory(cluster: &Cluster, bytes: u64) -> Session {
    let mut session = cluster.admin("postgres");
    // The first write loads the library, before the memory is limited.
    call(&mut session, "INSERT INTO large (id) VALUES (0); DELETE FROM large");
    let status = std::fs::read_to_string(format!("/proc/{}/status", session.pid()))
        .expect("the process is there");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("Linux tells VmSize");
    let now: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    let limit = now * 1024 + bytes;
    let mut prlimit = cluster.as_server_user(Path::new("/usr/bin/prlimit"));
    let limited =
        prlimit.args([format!("--pid={}", session.pid()), format!("--as={limit}")]).status();
    assert!(limited.expect("prlimit runs").success());
    session
}

/// For each row, the entry must be written, or the statement must fail, or the missing entry must
/// be counted. The test varies the available memory, so that an allocation fails at many different
/// places in the code.
#[test]
fn a_process_that_runs_out_of_memory() {
    let cluster = Cluster::builder().preloaded().setting("max_wal_size = 8GB").start();
    let (mut admin, started) = database(
        &cluster,
        "CREATE TABLE large (id int PRIMARY KEY, n int, compressed text, plain text, raw bytea, doc jsonb, list text[]);
         ALTER TABLE large ALTER plain SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL;
         SELECT lead_audit.enable('large')",
    );
    let values = [
        ("compressed", "repeat('compressed ', 4000000)"),
        ("compressed", "repeat(E'\\x01', 10000000)"),
        ("plain", "repeat(md5('plain'), 1250000)"),
        ("raw", "convert_to(repeat(md5('raw'), 600000), 'UTF8')"),
        ("doc", "jsonb_build_object('z', repeat(md5('doc'), 600000), 'yy', 1)"),
        ("list", "ARRAY[repeat('listed ', 3000000), 'x']"),
    ];
    let (mut recorded, mut failed) = (0, 0);
    for megabytes in [20, 45, 60, 80, 100, 130, 170, 220, 300, 400] {
        let mut session = short_of_memory(&cluster, megabytes << 20);
        for (number, (column, expression)) in values.into_iter().enumerate() {
            for statement in [
                format!("INSERT INTO large (id, {column}) VALUES ({number}, {expression})"),
                "UPDATE large SET n = 1".to_owned(),
                "DELETE FROM large".to_owned(),
            ] {
                let before: i64 = value(&mut admin, ENTRIES);
                let unwritten: i64 = value(&mut admin, UNWRITTEN);
                let rows: i64 = value(&mut admin, "SELECT count(*) FROM large");
                let result = try_call(&mut session, &statement);
                let touched = if statement.starts_with("INSERT") { 1 } else { rows };
                let entries = value::<i64>(&mut admin, ENTRIES) - before;
                let missing = value::<i64>(&mut admin, UNWRITTEN) - unwritten;
                match result {
                    Ok(()) => assert_eq!(entries + missing, touched, "{megabytes} MB: {statement}"),
                    Err(error) => {
                        assert!(
                            error.contains("53200") || error.contains("out of memory"),
                            "{megabytes} MB: {statement}: {error}"
                        );
                        assert_eq!(entries, 0, "{megabytes} MB: {statement}: {error}");
                    }
                }
                recorded += entries;
                failed += missing + i64::from(entries + missing < touched);
            }
            call(
                &mut admin,
                "SET lead_audit.enabled = off; DELETE FROM large; RESET lead_audit.enabled",
            );
        }
        assert_nothing_crashed(&cluster, &started, &mut admin);
    }
    println!("{recorded} rows recorded, {failed} not");
    assert!(
        recorded > 10 && failed > 10,
        "the memory was short, but not always: {recorded} recorded, {failed} not"
    );
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.verify()"), 0);
}

/// A table's owner has created a cast to json that raises an error. The message of the cast's
/// error is longer than the available memory.
#[test]
fn an_error_longer_than_the_memory() {
    let cluster = Cluster::builder().preloaded().start();
    let (mut admin, started) = database(
        &cluster,
        "CREATE TABLE large (id int PRIMARY KEY); SELECT lead_audit.enable('large');
         CREATE TYPE odd AS ENUM ('one');
         CREATE FUNCTION raise(odd) RETURNS json LANGUAGE plpgsql AS
           $$BEGIN RAISE EXCEPTION '%', repeat('x', 40000000) USING DETAIL = repeat('é', 20000000); END$$;
         CREATE CAST (odd AS json) WITH FUNCTION raise(odd);
         CREATE TABLE odds (id int PRIMARY KEY, value odd); SELECT lead_audit.enable('odds')",
    );
    for megabytes in (60..800).step_by(20) {
        let mut session = short_of_memory(&cluster, megabytes << 20);
        let before: i64 = value(&mut admin, UNWRITTEN);
        match try_call(&mut session, &format!("INSERT INTO odds VALUES ({megabytes}, 'one')")) {
            Ok(()) => assert_eq!(value::<i64>(&mut admin, UNWRITTEN), before + 1, "{megabytes} MB"),
            Err(error) => assert!(error.contains("53200"), "{megabytes} MB: {error:.200}"),
        }
        assert_nothing_crashed(&cluster, &started, &mut admin);
    }
}

/// The worker inspects the types of a rejected row's columns. Deeply nested types must not exhaust
/// the worker's stack.
#[test]
fn twenty_thousand_nested_types() {
    const BLOCK: i32 = 200;
    const BLOCKS: i32 = 100;
    let cluster = Cluster::builder().preloaded().setting("fsync = off").start();
    let (mut admin, started) = database(&cluster, "SELECT 1");
    // The test creates the nested types in blocks, and then joins the blocks from the outermost
    // type to the innermost type. The blocks and this order keep the recursion of PostgreSQL's own
    // code shallow.
    for block in 0..BLOCKS {
        let types = (1..BLOCK)
            .map(|one| format!("CREATE TYPE t{block}_{one} AS (a t{block}_{});", one - 1));
        call(
            &mut admin,
            &format!("CREATE TYPE t{block}_0 AS (x int); {}", types.collect::<String>()),
        );
    }
    let top = BLOCK - 1;
    call(&mut admin, &format!("CREATE TABLE deep (id int PRIMARY KEY, c t0_{top})"));
    for block in 1..BLOCKS {
        call(&mut admin, &format!("ALTER TYPE t{}_0 ADD ATTRIBUTE d t{block}_{top}", block - 1));
    }
    call(&mut admin, "SELECT lead_audit.enable('deep')");
    call(&mut admin, "INSERT INTO deep VALUES (1, NULL)");
    assert!(try_call(&mut admin, "INSERT INTO deep VALUES (1, NULL)").is_err());
    let failed = "SELECT EXISTS (SELECT FROM lead_audit.log WHERE outcome = 'failed')";
    acceptance::wait_until(&mut admin, Duration::from_secs(60), failed);
    assert_nothing_crashed(&cluster, &started, &mut admin);
}

#[test]
fn as_many_columns_as_a_table_can_have() {
    let cluster = Cluster::builder().preloaded().start();
    // 1600 is PostgreSQL's limit for the columns of a table. The UPDATE below sets only 399
    // columns, because more large values would not fit into one tuple.
    let columns: Vec<_> = (2..=1600).map(|i| format!("c{i} text")).collect();
    let (mut admin, started) = database(
        &cluster,
        &format!(
            "CREATE TABLE wide (c1 int PRIMARY KEY, {}); SELECT lead_audit.enable('wide')",
            columns.join(", ")
        ),
    );
    call(&mut admin, "INSERT INTO wide (c1, c1600) VALUES (1, 'last')");
    let set: Vec<_> = (2..=400).map(|i| format!("c{i} = repeat(md5('{i}'), 10000)")).collect();
    call(&mut admin, &format!("UPDATE wide SET {}", set.join(", ")));
    call(&mut admin, "UPDATE wide SET c400 = NULL, c401 = 'x'; DELETE FROM wide");
    assert_eq!((value::<i64>(&mut admin, ENTRIES), value::<i64>(&mut admin, UNWRITTEN)), (4, 0));
    let same = "SELECT count(*) FROM lead_audit.log WHERE (SELECT count(*) FROM jsonb_object_keys(coalesce(old_values, new_values))) = 1600";
    assert_eq!(value::<i64>(&mut admin, same), 4);
    assert_nothing_crashed(&cluster, &started, &mut admin);
    assert_intact(&mut admin);
}

#[test]
fn ten_thousand_nested_subtransactions() {
    const DEPTH: usize = 10_000;
    let cluster = Cluster::builder().preloaded().start();
    let (mut admin, started) = database(
        &cluster,
        "CREATE TABLE deep (id int PRIMARY KEY); SELECT lead_audit.enable('deep')",
    );
    let steps: Vec<_> =
        (1..=DEPTH).map(|i| format!("SAVEPOINT s{i}; INSERT INTO deep VALUES ({i})")).collect();
    call(&mut admin, &format!("BEGIN; {}; COMMIT", steps.join(";")));
    assert_eq!(value::<i64>(&mut admin, ENTRIES), DEPTH as i64);
    call(&mut admin, "DELETE FROM deep");
    // ROLLBACK TO rolls back half of the savepoints at once.
    call(&mut admin, &format!("BEGIN; {}; ROLLBACK TO s{}; COMMIT", steps.join(";"), DEPTH / 2));
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM deep"), (DEPTH / 2 - 1) as i64);
    assert_eq!(value::<i64>(&mut admin, ENTRIES), (2 * DEPTH + DEPTH / 2 - 1) as i64);
    assert_eq!(value::<i64>(&mut admin, UNWRITTEN), 0);
    assert_nothing_crashed(&cluster, &started, &mut admin);
    assert_intact(&mut admin);
}

/// One statement locks thousands of watched tables, with the default of max_locks_per_transaction.
/// Either all entries of the statement are written, or the statement fails with an ordinary error.
#[test]
fn thousands_of_watched_tables() {
    const TABLES: i64 = 3000;
    let cluster = Cluster::builder().preloaded().setting("fsync = off").start();
    let (mut admin, started) = database(
        &cluster,
        "CREATE TABLE parted (id int PRIMARY KEY, n int) PARTITION BY LIST (id)",
    );
    for first in (0..TABLES).step_by(100) {
        let partition =
            |id| format!("CREATE TABLE part{id} PARTITION OF parted FOR VALUES IN ({id});");
        call(&mut admin, &(first..first + 100).map(partition).collect::<String>());
    }
    for statement in [
        "SELECT lead_audit.enable('parted')",
        "INSERT INTO parted SELECT g, 0 FROM generate_series(0, 2999) g",
        "UPDATE parted SET n = n + 1",
        "ALTER TABLE parted ADD COLUMN note text",
        "UPDATE parted SET n = n + 1 WHERE id < 500",
        "DELETE FROM parted WHERE id = 7",
        "TRUNCATE parted",
        "SELECT lead_audit.disable('parted')",
    ] {
        let before: i64 = value(&mut admin, ENTRIES);
        let changed = match try_call(&mut admin, statement) {
            Ok(()) => 1,
            Err(error) => {
                assert!(error.contains("53200"), "{statement}: {error}");
                0
            }
        };
        println!("{statement}: {changed}");
        let entries = value::<i64>(&mut admin, ENTRIES) - before;
        let expected = if statement.starts_with("SELECT") { 0 } else { changed };
        assert!(entries >= expected && (changed > 0 || entries == 0), "{statement}: {entries}");
    }
    let watched = "SELECT count(*) FROM lead_audit.watched WHERE NOT row_trigger_on";
    assert_eq!(value::<i64>(&mut admin, watched), 0);
    assert_eq!(value::<i64>(&mut admin, UNWRITTEN), 0);
    assert_intact(&mut admin);
    assert_nothing_crashed(&cluster, &started, &mut admin);
}

/// The shared memory for locks is almost full. Each round leaves space for a different number of
/// further locks. The memory for locks therefore becomes full at many places where the library or
/// the statement takes a lock.
#[test]
fn the_lock_table_is_full() {
    const TABLES: i64 = 30;
    let cluster = Cluster::builder().preloaded().setting("autovacuum = off").start();
    let create: Vec<_> = (0..TABLES)
        .map(|i| format!("CREATE TABLE t{i} (id int PRIMARY KEY, note text); SELECT lead_audit.enable('t{i}')"))
        .collect();
    let (mut admin, started) = database(&cluster, &create.join(";"));
    let insert = |id: i64| {
        let inserts: Vec<_> =
            (0..TABLES).map(|table| format!("INSERT INTO t{table} VALUES ({id})")).collect();
        inserts.join(";")
    };
    let names: Vec<_> = (0..TABLES).map(|table| format!("t{table}")).collect();
    let truncate = format!("TRUNCATE {}", names.join(", "));
    call(
        &mut admin,
        "CREATE FUNCTION fill(room int) RETURNS void LANGUAGE plpgsql AS $$ DECLARE taken int := 0; BEGIN
           BEGIN
             LOOP PERFORM pg_advisory_lock(taken); taken := taken + 1; END LOOP;
           EXCEPTION WHEN out_of_memory THEN NULL; END;
           FOR i IN taken - room .. taken - 1 LOOP PERFORM pg_advisory_unlock(i); END LOOP; END $$",
    );
    let (mut succeeded, mut failed) = (0, 0);
    for room in [0, 1, 2, 3, 5, 8, 10, 13, 20, 30, 40, 60, 80, 100, 150, 300] {
        for (statements, touched) in [(insert(room), TABLES), (truncate.clone(), TABLES)] {
            let (before, unwritten): (i64, i64) =
                (value(&mut admin, ENTRIES), value(&mut admin, UNWRITTEN));
            let mut filler = cluster.admin("postgres");
            let mut session = cluster.admin("postgres");
            // Before the memory for locks becomes full, a query fills the caches of the session.
            call(&mut session, "SELECT count(*) FROM t0, lead_audit.stats");
            call(&mut filler, &format!("SELECT fill({room})"));
            let result = try_call(&mut session, &format!("BEGIN; {statements}; COMMIT"));
            // The test closes the sessions to release their locks. A statement that releases the
            // locks could itself need a lock.
            drop((session, filler));
            let begin = Instant::now();
            // A session that ends releases its locks one by one, so the memory for locks becomes
            // free after a while.
            let filled = "DO $$BEGIN ASSERT NOT EXISTS
                 (SELECT FROM pg_locks WHERE locktype = 'advisory'), 'locks are left'; END$$";
            while try_call(&mut admin, &format!("{filled}; {ENTRIES}; {UNWRITTEN}")).is_err() {
                assert!(
                    begin.elapsed() < Duration::from_secs(60),
                    "room for {room} locks: it does not come back"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
            let (entries, missing) = (
                value::<i64>(&mut admin, ENTRIES) - before,
                value::<i64>(&mut admin, UNWRITTEN) - unwritten,
            );
            match result {
                Ok(()) => {
                    succeeded += 1;
                    assert_eq!(entries + missing, touched, "room for {room} locks");
                }
                Err(error) => {
                    failed += 1;
                    assert!(error.contains("53200"), "room for {room} locks: {error}");
                    assert_eq!(entries, 0, "room for {room} locks: {error}");
                }
            }
            assert_nothing_crashed(&cluster, &started, &mut admin);
        }
    }
    println!("{succeeded} succeeded, {failed} failed");
    assert!(succeeded > 1 && failed > 1, "{succeeded} succeeded, {failed} failed");
    assert_eq!(faults(&mut admin), []);
}
