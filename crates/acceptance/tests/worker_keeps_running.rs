//! Neither a role with the right to create databases nor a database's owner can keep the worker
//! away from a database. The worker continues to seal and to write the entries of failed
//! statements.

use acceptance::{Cluster, Session, app_database, call, sqlstate, value, wait_until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The timeout of a wait for the worker. Each command of another role that fails can delay the
/// worker by five seconds.
const LONG: Duration = Duration::from_secs(300);
const WORKER: &str = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'lead_audit worker' AND datname = 'kept'";

fn cluster() -> (Cluster, Session) {
    let cluster =
        Cluster::builder().preloaded().setting("lead_audit.seal_interval = '100ms'").start();
    let mut admin = app_database(&cluster, "kept");
    call(
        &mut admin,
        "ALTER DATABASE kept OWNER TO app; CREATE ROLE creator LOGIN CREATEDB; INSERT INTO leads (id) VALUES ('taken')",
    );
    wait_until(&mut admin, LONG, &format!("SELECT EXISTS ({WORKER})"));
    (cluster, admin)
}

/// Checks that the worker seals a new entry and writes the entry of a failed statement.
fn works(admin: &mut Session, key: &str) {
    let before: i64 = value(admin, "SELECT count(*) FROM lead_audit.log WHERE outcome = 'failed'");
    call(admin, &format!("INSERT INTO leads (id) VALUES ('{key}')"));
    assert_eq!(sqlstate(admin, "INSERT INTO leads (id) VALUES ('taken')"), "23505");
    wait_until(
        admin,
        LONG,
        &format!("SELECT count(*) > {before} FROM lead_audit.log WHERE outcome = 'failed'"),
    );
    wait_until(admin, LONG, "SELECT unsealed_entries = 0 FROM lead_audit.stats");
}

#[test]
fn a_command_that_is_refused_does_not_keep_the_worker_away() {
    let (cluster, mut admin) = cluster();
    let commands = [
        ("creator", "CREATE DATABASE x TEMPLATE kept", "25001", "42501"),
        ("app", "DROP DATABASE kept", "25001", "55006"),
        ("app", "ALTER DATABASE kept RENAME TO x", "42501", "42501"),
        ("app", "ALTER DATABASE kept SET TABLESPACE pg_default", "25001", "55006"),
    ];
    for (role, command, in_a_block, alone) in commands {
        let mut other = cluster.session(role, "postgres");
        call(&mut other, "BEGIN; SAVEPOINT s");
        assert_eq!(sqlstate(&mut other, command), in_a_block, "{command}");
        call(&mut other, "ROLLBACK TO s");
        works(&mut admin, &format!("{command} in a transaction"));
        call(&mut other, "COMMIT");
        let found = sqlstate(&mut other, command);
        assert!(found == alone || command.contains("TABLESPACE"), "{command}: {found}");
        works(&mut admin, command);
    }
}

/// An object whose destructor ends the loops of the other threads. The destructor also runs if the
/// test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn commands_in_a_loop_do_not_keep_the_worker_away() {
    let (cluster, mut admin) = cluster();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (role, command) in [
            ("creator", "CREATE DATABASE x TEMPLATE kept"),
            ("app", "ALTER DATABASE kept RENAME TO x"),
            ("app", "DROP DATABASE kept"),
        ] {
            let (mut session, stop) = (cluster.session(role, "postgres"), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert!(session.batch_execute(command).is_err());
                }
            });
        }
        let _ends = Ends(&stop);
        for key in ["1", "2", "3"] {
            works(&mut admin, key);
        }
    });
    // When no session is connected to the database, the worker's own connection must not prevent
    // the rename and the DROP DATABASE.
    drop(admin);
    call(&mut cluster.session("app", "postgres"), "SELECT pg_sleep(0.2)");
    call(&mut cluster.admin("postgres"), "ALTER DATABASE kept RENAME TO moved");
    call(&mut cluster.session("app", "postgres"), "DROP DATABASE moved");
}

#[test]
fn settings_of_the_database_do_not_change_the_worker() {
    let (cluster, mut admin) = cluster();
    let settings = [
        "session_authorization = app",
        "role = app",
        "exit_on_error = on",
        "default_transaction_deferrable = on",
        "transform_null_equals = on",
        "standard_conforming_strings = off",
    ];
    let mut owner = cluster.session("app", "postgres");
    for setting in settings {
        call(&mut owner, &format!("ALTER DATABASE kept SET {setting}"));
    }
    // The setting restrict_nonsystem_relation_kind does not exist before the minor versions 15.8
    // and 16.4.
    _ = owner.batch_execute("ALTER DATABASE kept SET restrict_nonsystem_relation_kind = 'view'");
    let before: i32 = value(&mut admin, WORKER);
    // Ends the worker, so that the launcher starts a new worker.
    call(&mut admin, &format!("SELECT pg_terminate_backend({before})"));
    wait_until(&mut admin, LONG, &format!("SELECT EXISTS ({WORKER} AND pid <> {before})"));
    works(&mut admin, "whatever");
    let log = cluster.log_text();
    // pg_terminate_backend() also cancels the current task of the old worker. This cancellation is
    // not a failure of the new worker.
    let failed = log.lines().find(|line| {
        line.contains("could not check the watched tables") && !line.contains("canceling statement")
    });
    assert_eq!(failed, None);
}

/// The owner of a database can refuse new sessions with ALLOW_CONNECTIONS false. The worker and
/// the existing sessions of the database continue.
#[test]
fn a_database_that_is_closed_to_new_sessions() {
    let (cluster, mut admin) = cluster();
    let mut owner = cluster.session("app", "postgres");
    call(&mut owner, "ALTER DATABASE kept ALLOW_CONNECTIONS false");
    assert_eq!(sqlstate(&mut owner, "DROP DATABASE kept"), "55006");
    works(&mut admin, "closed");
    let worker: i32 = value(&mut admin, WORKER);
    call(&mut admin, &format!("SELECT pg_terminate_backend({worker})"));
    works(&mut admin, "with another worker");
    call(&mut owner, "ALTER DATABASE kept ALLOW_CONNECTIONS true");
}

/// A role with the right to create databases can copy a database. In the copy, the worker must not
/// seal under the origin of the original log and with the server's signing key.
#[test]
fn a_copy_is_not_sealed_under_the_name_of_the_original() {
    let (cluster, mut admin) = cluster();
    works(&mut admin, "before");
    drop(admin);
    call(&mut cluster.admin("postgres"), "ALTER ROLE app CREATEDB");
    call(&mut cluster.session("app", "postgres"), "CREATE DATABASE copy TEMPLATE kept");
    call(&mut cluster.session("app", "copy"), "INSERT INTO leads (id) VALUES ('only here')");
    let mut copy = cluster.admin("copy");
    let off = "SELECT state = 'off' AND reason LIKE '%copy of \"kept\"%' FROM lead_audit.status() WHERE part = 'sealing'";
    wait_until(&mut copy, LONG, off);
    let checkpoints: i64 = value(&mut copy, "SELECT count(*) FROM lead_audit.checkpoint");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(value::<i64>(&mut copy, "SELECT count(*) FROM lead_audit.checkpoint"), checkpoints);
    // The worker of the original database continues to seal. The worker of the copy seals only
    // after the copy has got an origin that differs from the original's.
    works(&mut cluster.admin("kept"), "afterwards");
    call(&mut cluster.admin("postgres"), "ALTER DATABASE copy SET lead_audit.origin = 'another'");
    wait_until(&mut copy, LONG, "SELECT unsealed_entries = 0 FROM lead_audit.stats");
    assert_eq!(
        value::<String>(&mut copy, "SELECT split_part(lead_audit.latest_checkpoint(), E'\\n', 1)"),
        "another"
    );
    assert_eq!(value::<i64>(&mut copy, "SELECT count(*) FROM lead_audit.verify()"), 0);
}
