//! DROP EXTENSION must leave nothing behind. The test compares the state before CREATE EXTENSION
//! with the state after DROP EXTENSION. The compared state is the output of pg_dump and the number
//! of rows in each catalog.

use acceptance::{
    Cluster, Session, add_leads, app_database, assert_intact, call, seal, sqlstate, value,
};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const WORKERS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'lead_audit worker'";
const TABLES: &str =
    "CREATE SCHEMA crm; CREATE TABLE crm.accounts (id int PRIMARY KEY, gone boolean); ALTER SCHEMA crm OWNER TO app;
     ALTER TABLE crm.accounts OWNER TO app; CREATE TABLE crm.parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
     CREATE TABLE crm.part PARTITION OF crm.parted DEFAULT";

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the number of rows in each catalog, including shared catalogs. Omits the catalogs of
/// statistics, because autovacuum writes to them. Uses a new session, in which nothing is cached.
fn catalogs(cluster: &Cluster, database: &str) -> BTreeMap<String, i64> {
    let mut admin = cluster.admin(database);
    let names =
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r'
                 AND c.relname NOT LIKE 'pg_statistic%'";
    let names: Vec<String> =
        admin.query(names, &[]).expect("catalogs").iter().map(|row| row.get(0)).collect();
    assert!(names.len() > 50, "{names:?}");
    names
        .into_iter()
        .map(|name| {
            let rows = value(&mut admin, &format!("SELECT count(*) FROM {name}"));
            (name, rows)
        })
        .collect()
}

/// Returns the output of pg_dump without its random parts.
fn dump(cluster: &Cluster, database: &str) -> String {
    let text = cluster.run("pg_dump", &["-U", "postgres", database]);
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns the files whose names contain the name of the extension, in a directory and in its
/// subdirectories.
fn files_of_it(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the data directory can be read").flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains("lead_audit") {
            found.push(path);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_of_it(&path));
        }
    }
    found
}

/// Creates a database without the extension. The database contains the table `leads`, two other
/// tables and a role.
fn bare(cluster: &Cluster, name: &str) -> Session {
    let mut admin = app_database(cluster, name);
    call(&mut admin, "DROP EXTENSION lead_audit CASCADE; DROP SCHEMA lead_audit");
    call(&mut admin, TABLES);
    admin
}

/// Uses the main features of the extension: watches tables, makes a baseline, changes settings,
/// seals, and makes entries of row changes, of a failed statement and of a rolled-back transaction.
fn use_it(admin: &mut Session, app: &mut Session, preloaded: bool) {
    call(
        admin,
        "CREATE EXTENSION lead_audit; SELECT lead_audit.enable('crm.accounts', soft_delete_column => 'gone', baseline => true)",
    );
    call(
        admin,
        "SELECT lead_audit.enable('crm.parted'); INSERT INTO crm.parted VALUES (1); DELETE FROM crm.parted",
    );
    call(admin, "SET lead_audit.on_error = abort; SET lead_audit.user_id = 'admin'; RESET ALL");
    call(
        app,
        "SET lead_audit.user_id = 'u-17'; INSERT INTO crm.accounts VALUES (1); UPDATE crm.accounts SET gone = true",
    );
    add_leads(app, 1, 300);
    assert_eq!(sqlstate(app, "INSERT INTO crm.accounts VALUES (1)"), "23505");
    call(app, "BEGIN; DELETE FROM leads; ROLLBACK");
    call(app, "DELETE FROM leads; DELETE FROM crm.accounts");
    if preloaded {
        let late = "SELECT count(*) FROM lead_audit.log WHERE outcome IN ('failed', 'rolled_back')";
        wait_for("what failed has no entry", || value::<i64>(admin, late) == 2);
    }
    seal(admin);
    assert_intact(admin);
}

#[test]
fn nothing_is_left_in_the_database() {
    for preloaded in [false, true] {
        let builder = Cluster::builder().setting("autovacuum = off");
        let cluster = if preloaded { builder.preloaded() } else { builder }.start();
        let mut admin = bare(&cluster, "crm");
        let (rows, text) = (catalogs(&cluster, "crm"), dump(&cluster, "crm"));
        assert!(!text.contains("lead_audit"), "{text}");
        let mut app = cluster.session("app", "crm");

        for round in 0..2 {
            use_it(&mut admin, &mut app, preloaded);
            assert_ne!(catalogs(&cluster, "crm"), rows);
            if preloaded {
                assert_eq!(value::<i64>(&mut admin, WORKERS), 1);
            }
            if round == 0 {
                // The first round ends the watching of all tables, as the documentation
                // recommends. If no table is watched, DROP EXTENSION works without CASCADE.
                for table in ["leads", "crm.accounts", "crm.parted"] {
                    assert!(
                        value::<bool>(&mut admin, &format!("SELECT lead_audit.disable('{table}')")),
                        "{table}"
                    );
                }
                call(&mut admin, "DROP EXTENSION lead_audit");
            } else {
                call(&mut admin, "DROP EXTENSION lead_audit CASCADE");
            }
            call(&mut admin, "DROP SCHEMA lead_audit");

            // A session that was opened before the DROP EXTENSION can continue, even if it has set
            // a context. After the DROP EXTENSION, the session's writes create no entries.
            call(
                &mut app,
                "INSERT INTO crm.accounts VALUES (1); UPDATE crm.accounts SET gone = true",
            );
            assert_eq!(sqlstate(&mut app, "INSERT INTO crm.accounts VALUES (1)"), "23505");
            call(&mut app, "BEGIN; DELETE FROM crm.accounts; ROLLBACK; DELETE FROM crm.accounts");
            call(
                &mut app,
                "CREATE TABLE crm.another (id int); ALTER TABLE crm.another ADD COLUMN x int; DROP TABLE crm.another",
            );
            assert_eq!(app.warnings(), [""; 0]);

            assert_eq!(catalogs(&cluster, "crm"), rows, "preloaded: {preloaded}, round {round}");
            assert_eq!(dump(&cluster, "crm"), text, "preloaded: {preloaded}, round {round}");
            wait_for("the worker does not end", || value::<i64>(&mut admin, WORKERS) == 0);
            assert_eq!(files_of_it(&cluster.data()), [""; 0].map(PathBuf::from));
            let settings: i64 = value(
                &mut cluster.admin("crm"),
                "SELECT count(*) FROM pg_settings WHERE name LIKE 'lead_audit.%' AND source <> 'default'",
            );
            assert_eq!(settings, 0);
            if !preloaded {
                let known = "SELECT count(*) FROM pg_settings WHERE name LIKE 'lead\\_audit.%'";
                assert_eq!(
                    value::<i64>(&mut cluster.admin("crm"), known),
                    0,
                    "a new session knows no such setting"
                );
            }
        }
        let log = cluster.log_text();
        assert!(!log.contains("terminated by signal") && !log.contains("PANIC"), "{log}");
    }
}

/// Drops the extension at moments at which the worker is busy with different tasks. DROP EXTENSION
/// and the worker must never deadlock.
#[test]
fn never_a_deadlock_with_the_worker() {
    let cluster = Cluster::builder()
        .preloaded()
        .setting("deadlock_timeout = 1ms")
        .setting("lead_audit.seal_interval = 1ms")
        .start();
    let mut admin = bare(&cluster, "crm");
    let mut app = cluster.session("app", "crm");
    for round in 0..30 {
        call(&mut admin, "CREATE EXTENSION lead_audit; SELECT lead_audit.enable('crm.accounts')");
        call(&mut app, "INSERT INTO crm.accounts VALUES (1)");
        assert_eq!(sqlstate(&mut app, "INSERT INTO crm.accounts VALUES (1)"), "23505");
        std::thread::sleep(Duration::from_millis(round * 2));
        call(
            &mut admin,
            "DROP EXTENSION lead_audit CASCADE; DROP SCHEMA lead_audit; TRUNCATE crm.accounts",
        );
    }
    let log = cluster.log_text();
    assert!(!log.contains("deadlock detected") && !log.contains("terminated by"), "{log}");
}

#[test]
fn nothing_is_left_of_the_server() {
    let cluster = Cluster::builder().preloaded().start();
    let data = fs::metadata(cluster.data()).expect("the data directory");
    let memory = PathBuf::from(format!("/dev/shm/lead_audit.{}.{}", data.dev(), data.ino()));
    let mut admin = bare(&cluster, "crm");
    let mut app = cluster.session("app", "crm");
    use_it(&mut admin, &mut app, true);
    assert!(memory.exists());
    call(
        &mut admin,
        "CREATE TABLE kept AS TABLE lead_audit.entry; DROP EXTENSION lead_audit CASCADE; DROP SCHEMA lead_audit",
    );
    let kept: i64 = value(&mut admin, "SELECT count(*) FROM kept");
    assert!(kept > 600, "{kept}");
    drop((admin, app));
    cluster.stop("fast");
    cluster.configure(&["shared_preload_libraries = ''".to_owned()]);
    assert!(!memory.exists(), "the queue's memory ends with the server");
    cluster.start_again();
    let mut admin = cluster.admin("crm");
    assert_eq!(
        value::<i64>(&mut admin, "SELECT count(*) FROM kept"),
        kept,
        "what was asked for is there"
    );
    assert_eq!(
        value::<i64>(
            &mut admin,
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'lead_audit%'"
        ),
        0
    );
    assert_eq!(
        value::<i64>(
            &mut admin,
            "SELECT count(*) FROM pg_settings WHERE name LIKE 'lead\\_audit.%'"
        ),
        0
    );
    assert!(!memory.exists());
    assert_eq!(files_of_it(&cluster.data()), [""; 0].map(PathBuf::from));
}
