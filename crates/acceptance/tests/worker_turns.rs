//! If the server has fewer background processes than databases with the extension, every database
//! gets its turn. A role with the right to create databases cannot keep the worker away from
//! another database by copying databases.

use acceptance::{
    Cluster, Session, app_database, assert_intact, call, sqlstate, try_call, value, wait_until,
};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const WORKERS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'lead_audit worker'";

/// Creates a cluster with `processes` background processes for workers. Creates the database
/// `kept`. The role `creator` owns this database, and has the right to create databases.
fn cluster(processes: u32) -> Cluster {
    let cluster = Cluster::builder()
        .preloaded()
        .setting("lead_audit.seal_interval = '100ms'")
        .setting("max_logical_replication_workers = 0")
        // The launcher needs one more background process.
        .setting(&format!("max_worker_processes = {}", processes + 1))
        .start();
    drop(database(&cluster, "kept"));
    call(
        &mut cluster.admin("postgres"),
        "CREATE ROLE creator LOGIN CREATEDB; ALTER DATABASE kept OWNER TO creator",
    );
    cluster
}

fn database(cluster: &Cluster, name: &str) -> Session {
    let mut admin = app_database(cluster, name);
    call(&mut admin, "INSERT INTO leads (id) VALUES ('taken')");
    admin
}

/// Inserts a row, and waits until the row's entry is sealed. The database must not be a copy,
/// because the worker does not seal a copy.
fn seals(admin: &mut Session, key: &str) {
    call(admin, &format!("INSERT INTO leads (id) VALUES ('{key}')"));
    wait_until(admin, LONG, "SELECT unsealed_entries = 0 FROM lead_audit.stats");
}

/// Runs a failing statement in each of these databases at once, and waits for the entries of all
/// failed statements.
fn all_record_failures(cluster: &Cluster, databases: &[&str]) {
    let count = "SELECT count(*) FROM lead_audit.log WHERE outcome = 'failed'";
    let before: Vec<i64> =
        databases.iter().map(|name| value(&mut cluster.admin(name), count)).collect();
    for name in databases {
        let mut app = cluster.session("app", name);
        assert_eq!(sqlstate(&mut app, "INSERT INTO leads (id) VALUES ('taken')"), "23505");
    }
    for (name, before) in databases.iter().zip(before) {
        wait_until(&mut cluster.admin(name), LONG, &format!("SELECT ({count}) = {before} + 1"));
    }
}

/// Creates copies of the database `kept` as the role `creator`.
fn copy(cluster: &Cluster, names: &[&str]) {
    let mut creator = cluster.session("creator", "postgres");
    for name in names {
        call(&mut creator, &format!("CREATE DATABASE {name} TEMPLATE kept"));
    }
}

#[test]
fn copies_do_not_keep_the_worker_away() {
    let cluster = cluster(2);
    drop(database(&cluster, "other"));
    let copies = ["copy1", "copy2", "copy3"];
    copy(&cluster, &copies);
    let mut postgres = cluster.admin("postgres");
    // While a session locks the database `kept`, workers of the other databases use all background
    // processes.
    let mut holder = cluster.session("creator", "postgres");
    call(&mut holder, "BEGIN; ALTER DATABASE kept RENAME TO held");
    wait_until(&mut postgres, LONG, &format!("SELECT ({WORKERS} AND datname LIKE 'copy%') = 2"));
    call(&mut holder, "ROLLBACK");
    let begin = Instant::now();
    seals(&mut cluster.admin("kept"), "held");
    // A turn takes five seconds, and two databases have their turns at the same time. The database
    // `kept` waits until other databases have had their turns.
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    seals(&mut cluster.admin("other"), "other");
    let all = ["kept", "other", "copy1", "copy2", "copy3"];
    all_record_failures(&cluster, &all);

    // Terminates the worker of the database `kept` again and again.
    for key in ["1", "2", "3"] {
        call(
            &mut postgres,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'lead_audit worker' AND datname = 'kept'",
        );
        seals(&mut cluster.admin("kept"), key);
    }
    call(&mut postgres, "DROP DATABASE copy3");
    cluster.stop("fast");
    cluster.start_again();
    let all = &all[..4];
    all_record_failures(&cluster, all);
    for name in ["kept", "other"] {
        seals(&mut cluster.admin(name), "restarted");
    }
    for name in all {
        assert_intact(&mut cluster.admin(name));
    }

    // After pg_terminate_backend(), the postmaster restarts the launcher. The workers that the old
    // launcher started must continue under the new launcher.
    call(
        &mut cluster.admin("postgres"),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'lead_audit launcher'",
    );
    all_record_failures(&cluster, all);

    // A turn must not add lines to the server's log about the lack of background processes. The
    // worker cannot seal a copied database, and must not write this to the log again in each turn.
    let before = cluster.log_text().len();
    std::thread::sleep(Duration::from_secs(40));
    let log = cluster.log_text();
    let lines = |text: &str| log[before..].lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("background process"), 0, "{log}");
    assert!(lines("is a copy of") <= 6, "{log}");
    assert!(!log.contains("has no audit entry"), "{log}");

    // If the server has enough background processes, each database keeps its worker.
    let mut creator = cluster.session("creator", "postgres");
    for name in ["copy1", "copy2"] {
        call(&mut creator, &format!("DROP DATABASE {name}"));
    }
    let mut postgres = cluster.admin("postgres");
    wait_until(&mut postgres, LONG, &format!("SELECT ({WORKERS}) = 2"));
    let pids = format!("SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM ({WORKERS}) AS w")
        .replace("count(*)", "pid");
    let before: String = value(&mut postgres, &pids);
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(value::<String>(&mut postgres, &pids), before);
    assert!(cluster.log_text().contains("background processes are available again"));
}

/// While a session renames a database, no process can connect to the database. A worker that cannot
/// connect must not occupy a background process that another database needs.
#[test]
fn locked_databases_do_not_keep_the_worker_away() {
    let cluster = cluster(1);
    let copies = ["copy1", "copy2", "copy3"];
    copy(&cluster, &copies);
    // One transaction locks all copies, one after the other. A worker of a locked copy cannot
    // connect.
    let mut holder = cluster.session("creator", "postgres");
    call(&mut holder, "BEGIN");
    for name in copies {
        let deadline = Instant::now() + LONG;
        call(&mut holder, "SAVEPOINT s");
        while let Err(error) =
            try_call(&mut holder, &format!("ALTER DATABASE {name} RENAME TO locked_{name}"))
        {
            assert!(error.contains("55006") && Instant::now() < deadline, "{error}");
            call(&mut holder, "ROLLBACK TO s");
        }
    }
    let mut kept = cluster.admin("kept");
    for key in ["1", "2", "3"] {
        seals(&mut kept, key);
        std::thread::sleep(Duration::from_secs(6));
    }
    let log = cluster.log_text();
    assert!(log.contains("exited with exit code 1"), "{log}");
    call(&mut holder, "ROLLBACK");
    drop(kept);
    all_record_failures(&cluster, &["kept", "copy1", "copy2", "copy3"]);
    assert_intact(&mut cluster.admin("kept"));
}

/// DROP DATABASE fails while other processes are connected to the database. If the database waits
/// for its turn, DROP DATABASE must succeed without waiting for the turn.
#[test]
fn a_waiting_database_can_be_dropped() {
    let cluster = cluster(1);
    copy(&cluster, &["copy1", "copy2", "copy3", "copy4"]);
    all_record_failures(&cluster, &["kept", "copy1", "copy2", "copy3", "copy4"]);
    let mut creator = cluster.session("creator", "postgres");
    let begin = Instant::now();
    for name in ["copy1", "copy2", "copy3", "copy4"] {
        call(&mut creator, &format!("DROP DATABASE {name}"));
    }
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    seals(&mut cluster.admin("kept"), "alone");
}
